"""Outlines of masks as polygons with holes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from napari_histodistill.export import outlines
from napari_histodistill.export.outlines import polygons


def strips(mask, rows=7):
    return (mask[y : y + rows] for y in range(0, len(mask), rows))


def area(ring):
    y, x = ring.T
    return abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def draw(found, shape, scale=8):
    """What the polygons cover, at the centres of pixels."""
    picture = Image.new("1", (shape[1] * scale, shape[0] * scale))
    pen = ImageDraw.Draw(picture)
    for polygon in found:
        pen.polygon([(x * scale, y * scale) for y, x in polygon.outer], fill=1)
        for hole in polygon.holes:
            pen.polygon([(x * scale, y * scale) for y, x in hole], fill=0)
    return np.asarray(picture)[scale // 2 :: scale, scale // 2 :: scale]


def test_an_empty_mask_has_no_polygons():
    assert polygons(strips(np.zeros((9, 9), bool)), 9) == []


def test_a_box_has_its_edges_on_the_edges_of_its_pixels():
    mask = np.zeros((30, 40), bool)
    mask[5:20, 10:32] = True
    (polygon,) = polygons(strips(mask), 40)
    assert polygon.holes == []
    assert polygon.outer.min(0).tolist() == [5, 10]
    assert polygon.outer.max(0).tolist() == [20, 32]
    assert (polygon.outer[0] == polygon.outer[-1]).all()
    assert len(polygon.outer) == 9  # four sides, each corner cut
    assert area(polygon.outer) == 15 * 22 - 4 * 0.125


def test_a_box_at_the_border_of_the_mask_reaches_it():
    (polygon,) = polygons(strips(np.ones((30, 40), bool)), 40)
    assert polygon.outer.min(0).tolist() == [0, 0]
    assert polygon.outer.max(0).tolist() == [30, 40]


def test_one_pixel_is_a_diamond():
    mask = np.zeros((5, 5), bool)
    mask[2, 3] = True
    (polygon,) = polygons(strips(mask), 5)
    assert sorted(map(tuple, polygon.outer[:-1])) == [(2, 3.5), (2.5, 3), (2.5, 4), (3, 3.5)]


def test_pixels_that_touch_at_a_corner_are_apart_and_their_rings_do_not_touch():
    mask = np.eye(6, dtype=bool)
    found = polygons(strips(mask), 6)
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
    found = sorted(polygons(strips(mask), 60), key=lambda polygon: -area(polygon.outer))
    assert [len(polygon.holes) for polygon in found] == [3, 1, 0]
    assert sorted(round(area(hole)) for hole in found[0].holes) == [56, 84, 392]


@pytest.mark.parametrize("sigma", [0, 0.7, 2, 6])
@pytest.mark.parametrize("rows", [1, 64, 1000])
def test_polygons_cover_exactly_the_pixels_of_any_mask(sigma, rows, monkeypatch):
    rng = np.random.default_rng(int(10 * sigma))
    noise = ndimage.gaussian_filter(rng.random((150, 170)), sigma)
    mask = noise > np.median(noise)
    found = polygons(strips(mask, rows), 170)
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
    found = polygons(strips(noise > np.median(noise)), 60)
    assert crossings([ring for polygon in found for ring in [polygon.outer, *polygon.holes]]) == 0


@pytest.mark.parametrize(("slope", "most"), [(0.0, 10), (1.0, 20), (0.37, 240)])
def test_slanted_edges_are_simplified(slope, most):
    y, x = np.mgrid[:400, :400]
    (polygon,) = polygons(strips(y > slope * x + 20), 400)
    assert len(polygon.outer) < most
    assert abs(area(polygon.outer) - np.count_nonzero(y > slope * x + 20)) < 100
    assert outlines.TOLERANCE < 0.35
