"""The working grid shares its outer edges with the slide."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from napari_histodistill.slide import MppError, WorkingGrid, open_slide

if TYPE_CHECKING:
    from pathlib import Path

CASES = [
    # slide shape, mpp, options, grid shape
    ((15104, 7296), (0.5, 0.5), {}, (3776, 1824)),
    ((1001, 777), (0.5, 0.25), {}, (250, 97)),
    ((80_000, 100_000), (0.25, 0.25), {}, (10_000, 12_500)),
    ((80_000, 100_000), (0.5, 0.5), {}, (13_107, 16_384)),
    ((500, 400), (3.0, 3.0), {}, (500, 400)),
    ((500, 400), (0.5, 0.5), {"target_mpp": 1.0}, (250, 200)),
    ((500, 400), (0.5, 0.5), {"max_side": 50}, (50, 40)),
    ((1, 1), (0.5, 0.5), {}, (1, 1)),
]


def slide_of(shape: tuple[int, int], mpp: tuple[float, float]) -> SimpleNamespace:
    return SimpleNamespace(shape=shape, require_mpp=lambda: mpp)


@pytest.mark.parametrize(("shape", "mpp", "options", "wanted"), CASES)
def test_grid_has_the_wanted_pixels_and_the_slides_edges(
    shape: tuple[int, int], mpp: tuple[float, float], options: dict[str, float], wanted: tuple[int, int]
) -> None:
    grid = WorkingGrid.for_slide(slide_of(shape, mpp), **options)
    assert grid.shape == wanted
    assert grid.to_level0(0, 0) == (0, 0)
    assert grid.to_level0(*grid.shape) == pytest.approx(shape)
    assert grid.from_level0(*shape) == pytest.approx(grid.shape)
    for axis in range(2):
        assert grid.pixel_size_um[axis] * grid.shape[axis] == pytest.approx(shape[axis] * mpp[axis])
        # napari: pixel i is centred on translate + i * scale; the slide's layer has scale = mpp, translate = 0
        start = grid.translate[axis] - grid.scale[axis] / 2
        assert start == pytest.approx(-mpp[axis] / 2)
        stop = grid.translate[axis] + (grid.shape[axis] - 0.5) * grid.scale[axis]
        assert stop == pytest.approx((shape[axis] - 0.5) * mpp[axis])


def test_there_and_back_is_the_same_position() -> None:
    grid = WorkingGrid((37, 41), (1001, 777), (0.5, 0.25))
    assert grid.from_level0(*grid.to_level0(12.25, 3.5)) == pytest.approx((12.25, 3.5))


def test_unknown_pixel_size_is_an_error(slides_dir: Path) -> None:
    with open_slide(slides_dir / "wsi2dcm-jpeg.dcm") as slide, pytest.raises(MppError):
        WorkingGrid.for_slide(slide)


def test_sizes_must_be_positive() -> None:
    for wrong in (((0, 5), (10, 10), (1.0, 1.0)), ((5, 5), (10, 10), (0.0, 1.0))):
        with pytest.raises(ValueError, match="positive"):
            WorkingGrid(*wrong)
