"""Outlines of masks as polygons with holes."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from PIL import Image, ImageDraw
from scipy import ndimage

from napari_histodistill.export import outlines
from napari_histodistill.export.outlines import Tracer, regions


def polygons(mask, rows=7, tolerance=outlines.TOLERANCE):
    strips = ((mask[y : y + rows], None) for y in range(0, len(mask), rows))
    return list(regions(strips, mask.shape[1], tolerance))


def area(ring):
    y, x = ring.T
    return abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def draw(found, shape, scale=8):
    """What the polygons cover, at the centres of pixels."""
    picture = Image.new("1", (shape[1] * scale, shape[0] * scale))
    pen = ImageDraw.Draw(picture)
    for polygon in sorted(found, key=lambda polygon: -area(polygon.outer)):  # islands after what surrounds them
        pen.polygon([(x * scale, y * scale) for y, x in polygon.outer], fill=1)
        for hole in polygon.holes:
            pen.polygon([(x * scale, y * scale) for y, x in hole], fill=0)
    return np.asarray(picture)[scale // 2 :: scale, scale // 2 :: scale]


def test_an_empty_mask_has_no_polygons():
    assert polygons(np.zeros((9, 9), bool)) == []


def test_a_box_has_its_edges_on_the_edges_of_its_pixels():
    mask = np.zeros((30, 40), bool)
    mask[5:20, 10:32] = True
    (polygon,) = polygons(mask)
    assert polygon.holes == []
    assert polygon.outer.min(0).tolist() == [5, 10]
    assert polygon.outer.max(0).tolist() == [20, 32]
    assert (polygon.outer[0] == polygon.outer[-1]).all()
    assert len(polygon.outer) == 9  # four sides, each corner cut
    assert area(polygon.outer) == 15 * 22 - 4 * 0.125


def test_a_box_at_the_border_of_the_mask_reaches_it():
    (polygon,) = polygons(np.ones((30, 40), bool))
    assert polygon.outer.min(0).tolist() == [0, 0]
    assert polygon.outer.max(0).tolist() == [30, 40]


def test_one_pixel_is_a_diamond():
    mask = np.zeros((5, 5), bool)
    mask[2, 3] = True
    (polygon,) = polygons(mask)
    assert sorted(map(tuple, polygon.outer[:-1])) == [(2, 3.5), (2.5, 3), (2.5, 4), (3, 3.5)]


def test_pixels_that_touch_at_a_corner_are_apart_and_their_rings_do_not_touch():
    mask = np.eye(6, dtype=bool)
    found = polygons(mask)
    assert len(found) == 6
    assert len({tuple(point) for polygon in found for point in polygon.outer}) == 24


def test_islands_in_holes_belong_to_nobody_and_holes_to_what_surrounds_them():
    mask = np.zeros((40, 60), bool)
    mask[2:38, 2:40] = True
    mask[6:34, 6:20] = False  # first hole
    mask[10:30, 8:18] = True  # island in it, with
    mask[12:20, 10:16] = False  # a hole of its own
    mask[6:20, 22:26] = False  # a hole beside the first: its western neighbour is a hole, not the outer ring
    mask[6:20, 30:36] = False
    mask[5:9, 50:55] = True
    found = sorted(polygons(mask), key=lambda polygon: -area(polygon.outer))
    assert [len(polygon.holes) for polygon in found] == [3, 1, 0]
    assert sorted(round(area(hole)) for hole in found[0].holes) == [56, 84, 392]


@pytest.mark.parametrize("sigma", [0, 0.7, 2, 6])
@pytest.mark.parametrize("rows", [1, 64, 1000])
def test_polygons_cover_exactly_the_pixels_of_any_mask(sigma, rows):
    rng = np.random.default_rng(int(10 * sigma))
    noise = ndimage.gaussian_filter(rng.random((150, 170)), sigma)
    mask = noise > np.median(noise)
    found = polygons(mask, rows)
    assert np.array_equal(draw(found, mask.shape), mask)
    assert len(found) == ndimage.label(mask)[1]
    _, background = ndimage.label(np.pad(~mask, 1, constant_values=True), structure=np.ones((3, 3)))
    assert sum(len(polygon.holes) for polygon in found) == background - 1


def crossings(rings):
    """Pairs of segments, of the same or of different rings, that meet other than in a shared end."""
    start = np.concatenate([ring[:-1] for ring in rings])
    end = np.concatenate([ring[1:] for ring in rings])

    def side(a, b, c):
        return np.sign(
            (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
        )

    a, b, c, d = start[:, None], end[:, None], start[None], end[None]
    proper = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    return np.count_nonzero(proper)


@pytest.mark.parametrize("sigma", [0, 0.7, 1.5])
def test_simplified_rings_never_cross(sigma):
    rng = np.random.default_rng(5)
    noise = ndimage.gaussian_filter(rng.random((60, 60)), sigma)
    found = polygons(noise > np.median(noise))
    assert crossings([ring for polygon in found for ring in [polygon.outer, *polygon.holes]]) == 0


@pytest.mark.parametrize(("slope", "most"), [(0.0, 10), (1.0, 20), (0.37, 240)])
def test_slanted_edges_are_simplified(slope, most):
    y, x = np.mgrid[:400, :400]
    (polygon,) = polygons(y > slope * x + 20)
    assert len(polygon.outer) < most
    assert abs(area(polygon.outer) - np.count_nonzero(y > slope * x + 20)) < 100
    assert outlines.TOLERANCE < 0.35


@pytest.mark.parametrize("rows", [1, 13, 150])
def test_strips_of_any_height_give_the_same_polygons_and_sums(rows):
    rng = np.random.default_rng(2)
    noise = ndimage.gaussian_filter(rng.random((150, 90)), 1.5)
    mask, probability = noise > np.median(noise), rng.integers(0, 256, (150, 90), np.uint8)
    strips = ((mask[y : y + rows], probability[y : y + rows]) for y in range(0, 150, rows))
    found = sorted(regions(strips, 90), key=lambda region: region.centroid)
    labels, count = ndimage.label(mask)
    index = np.arange(1, count + 1)
    centroids = np.array(ndimage.center_of_mass(mask, labels, index)) + 0.5
    order = np.lexsort(centroids.T[::-1])
    assert [region.pixels for region in found] == ndimage.sum(mask, labels, index)[order].tolist()
    np.testing.assert_allclose([region.centroid for region in found], centroids[order])
    means = ndimage.mean(probability / 255, labels, index)[order]
    np.testing.assert_allclose([region.mean_probability for region in found], means)
    whole = sorted(polygons(mask, 150), key=lambda region: region.centroid)
    for one, other in zip(found, whole, strict=True):
        assert as_shape(one) == as_shape(other)


def as_shape(region):
    return shapely.Polygon(region.outer, region.holes)


def test_polygons_leave_as_soon_as_they_end_so_that_memory_holds_only_open_ones():
    strip = np.zeros((8, 800), bool)
    strip[2:5, ::4] = True
    tracer = Tracer(800)
    left = 0
    for _ in range(20):
        left += len(tracer.feed(strip))
        assert not tracer._parts
        assert not tracer._chains
    assert left == 20 * 200


@pytest.mark.parametrize("tolerance", [0.3, 1, 3, 20])
def test_polygons_are_valid_at_any_tolerance_and_none_gets_lost(tolerance):
    rng = np.random.default_rng(9)
    noise = ndimage.gaussian_filter(rng.random((200, 160)), 2)
    mask = noise > np.median(noise)
    mask[0, 0] = mask[3:5, 3] = True
    found = polygons(mask, 64, tolerance)
    assert len(found) == ndimage.label(mask)[1]
    assert all(shapely.is_valid(as_shape(region)) for region in found)
    points = sum(len(region.outer) for region in found)
    assert tolerance == 0.3 or points < sum(len(region.outer) for region in polygons(mask))
