"""Polygons on a grid: the pixels whose centres they hold, as another library finds them."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import polygon

from napari_histodistill.slide import filling
from napari_histodistill.slide.filling import Polygon

SQUARE = np.array([(0.0, 0.0), (0.0, 10.0), (10.0, 10.0), (10.0, 0.0)])


def fill(shape: tuple[int, int], *rings: np.ndarray) -> np.ndarray:
    filled = np.zeros(shape, bool)
    for y, x, inside in Polygon(rings, shape).blocks():
        assert not filled[y : y + inside.shape[0]].any()  # blocks do not overlap
        filled[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return filled


def star(rng: np.random.Generator, centre: tuple[float, float], radius: float, corners: int = 40) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    away = radius * rng.uniform(0.3, 1, corners)
    return np.column_stack([centre[0] + away * np.sin(angle), centre[1] + away * np.cos(angle)])


@pytest.mark.parametrize(("band", "at_once"), [(1 << 24, 1 << 22), (500, 50)])
def test_filling_equals_scikit_image_in_any_window(monkeypatch, band, at_once):
    monkeypatch.setattr(filling, "_BAND", band)
    monkeypatch.setattr(filling, "_AT_ONCE", at_once)
    rng, margin = np.random.default_rng(0), 200
    for _ in range(20):
        corners = star(rng, tuple(rng.uniform(40, 160, 2)), 90)
        whole = np.zeros((600, 630), bool)
        whole[polygon(*(corners + margin - 0.5).T, shape=whole.shape)] = True
        y, x = rng.integers(-30, 120, 2)
        window = whole[margin + y : margin + y + 90, margin + x : margin + x + 70]
        np.testing.assert_array_equal(fill((90, 70), corners - (y, x)), window)


def test_a_ring_within_another_is_a_hole():
    np.testing.assert_array_equal(
        fill((40, 40), 3 * SQUARE, SQUARE + 7), fill((40, 40), 3 * SQUARE) & ~fill((40, 40), SQUARE + 7)
    )


def test_rectangles_that_share_an_edge_through_pixel_centres_share_no_pixel_and_leave_none_out():
    left = SQUARE * (2, 1) + 0.5
    masks = [fill((40, 40), corners) for corners in (left, left + np.array([0, 10]))]
    assert not (masks[0] & masks[1]).any()
    assert [mask.sum() for mask in masks] == [200, 200]


def test_what_holds_no_centre_or_lies_off_the_grid_has_no_blocks():
    assert not list(Polygon([SQUARE / 100], (20, 20)).blocks())
    assert not list(Polygon([SQUARE + 30], (20, 20)).blocks())
    assert not list(Polygon([SQUARE - (0, 30)], (20, 20)).blocks())
    assert not list(Polygon([SQUARE[:2]], (20, 20)).blocks())
    assert Polygon([SQUARE], (20, 20)).crossings == 20
