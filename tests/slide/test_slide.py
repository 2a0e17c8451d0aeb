"""Reading windows: borders, resampling without seams, thumbnails, unreadable areas."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_histodistill.slide import SlideError, open_slide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Picture = np.ndarray


@pytest.fixture
def lossless(tmp_path: Path, make_picture: Callable[..., Picture], write_tiff: Callable[..., Path]) -> Path:
    return write_tiff(tmp_path / "lossless.tiff", [make_picture(700, 900)], compression="zlib")


def test_outside_of_a_level_is_background(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        height, width = slide.shape
        whole = slide.read_level(0, 0, 0, height, width)
        around = slide.read_level(0, -10, -20, height + 30, width + 50)
        np.testing.assert_array_equal(around[10 : 10 + height, 20 : 20 + width], whole)
        around[10 : 10 + height, 20 : 20 + width] = 255
        assert (around == 255).all()
        for beyond in ((0, height, 0), (0, -50, 0), (0, 0, width + 5)):
            assert (slide.read_level(*beyond, 50, 50) == 255).all()
        assert slide.read_level(0, 5, 5, 0, 10).shape == (0, 10, 3)


@pytest.mark.parametrize("shape", [(350, 450), (233, 311), (700, 900), (1000, 1300), (89, 57), (3, 2)])
def test_pieces_of_a_grid_fit_together_without_seams(lossless: Path, shape: tuple[int, int]) -> None:
    with open_slide(lossless) as slide:
        whole = slide.read_resampled(shape, 0, 0, *shape).astype(int)
        pieces = np.empty_like(whole)
        for y in range(0, shape[0], 37):
            for x in range(0, shape[1], 53):
                h, w = min(37, shape[0] - y), min(53, shape[1] - x)
                pieces[y : y + h, x : x + w] = slide.read_resampled(shape, y, x, h, w)
        difference = np.abs(whole - pieces)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.05, "ties of rounding at most"


def test_resampling_keeps_the_outer_edges_and_the_mean(lossless: Path) -> None:
    with open_slide(lossless) as slide:
        whole = slide.read_level(0, 0, 0, *slide.shape)
        for shape in ((350, 450), (211, 333), (1400, 1800)):
            wanted = np.asarray(Image.fromarray(whole).resize(shape[::-1], Image.Resampling.BILINEAR)).astype(int)
            shown = slide.read_resampled(shape, 0, 0, *shape)
            assert np.abs(shown - wanted).max() <= 1
        outside = slide.read_resampled((350, 450), 340, 440, 20, 20)
        assert (outside[10:] == 255).all()
        assert (outside[:, 10:] == 255).all()
        np.testing.assert_array_equal(slide.read_resampled(slide.shape, 5, 6, 50, 60), whole[5:55, 6:66])


def test_a_mark_stays_in_place_at_every_scale(
    tmp_path: Path, write_tiff: Callable[..., Path], slides_dir: Path
) -> None:
    """Also where downsamples are 4.02: the blue box of OpenSlide's own test file."""
    with open_slide(slides_dir / "fixtures/boxes.tiff") as slide:

        def edges(pixels: Picture) -> tuple[float, float, float, float]:
            blue = (pixels[..., 2] > 128) & (pixels[..., 0] < 128) & (pixels[..., 1] < 128)
            rows, cols = np.flatnonzero(blue.any(1)), np.flatnonzero(blue.any(0))
            return rows[0], rows[-1] + 1, cols[0], cols[-1] + 1

        top, bottom, left, right = edges(slide.read_level(0, 0, 0, *slide.shape))
        for number, level in enumerate(slide.levels):
            dy, dx = level.downsample
            found = edges(slide.read_level(number, 0, 0, *level.shape))
            assert np.abs(np.array(found) - (top / dy, bottom / dy, left / dx, right / dx)).max() <= 1
        for shape in ((180, 217), (125, 150), (61, 75)):
            dy, dx = slide.shape[0] / shape[0], slide.shape[1] / shape[1]
            found = edges(slide.read_resampled(shape, 0, 0, *shape))
            assert np.abs(np.array(found) - (top / dy, bottom / dy, left / dx, right / dx)).max() <= 1


def test_the_coarsest_level_that_is_fine_enough_is_read(pyramid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(pyramid) as slide:
        used: list[int] = []
        read = slide._read_inside
        monkeypatch.setattr(slide, "_read_inside", lambda level, *at: (used.append(level), read(level, *at))[1])
        stored = [level.shape for level in slide.levels]
        for shape, level in (
            ((2000, 2600), 0), (stored[0], 0), ((459, 610), 0), (stored[1], 1), ((300, 400), 1), (stored[2], 2),
            ((20, 30), 2),
        ):  # fmt: skip
            used.clear()
            slide.read_resampled(shape, 0, 0, 4, 4)
            assert set(used) == {level}, shape


def test_thumbnail_has_the_asked_side_and_looks_like_the_slide(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        whole = slide.read_level(0, 0, 0, *slide.shape)
        small = slide.thumbnail(100)
        assert small.shape == (75, 100, 3)
        assert np.abs(small.mean((0, 1)) - whole.mean((0, 1))).max() < 3
        assert slide.thumbnail(10**6).shape == whole.shape


def test_levels_cover_the_slide_edge_to_edge(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        for level in slide.levels:
            assert level.downsample == (slide.shape[0] / level.shape[0], slide.shape[1] / level.shape[1])


def test_readable_mask_covers_what_failed(
    tmp_path: Path, make_picture: Callable[..., Picture], break_tile: Callable[[Path, int], None]
) -> None:
    path = tmp_path / "broken.tif"
    tifffile.imwrite(
        path, make_picture(512, 512), photometric="rgb", compression="zlib", tile=(128, 128), metadata=None
    )
    break_tile(path, 6)
    with open_slide(path) as slide:
        assert slide.readable_mask((100, 100), 0, 0, 100, 100).all(), "nothing was read yet"
        slide.read_resampled((100, 100), 0, 0, 100, 100)
        mask = slide.readable_mask((100, 100), 0, 0, 100, 100)
        rows, cols = np.flatnonzero(~mask.all(1)), np.flatnonzero(~mask.all(0))
        assert (rows[0], rows[-1], cols[0], cols[-1]) == (25, 49, 50, 74)
        np.testing.assert_array_equal(slide.readable_mask((100, 100), 20, 40, 30, 30), mask[20:50, 40:70])


def test_reads_from_many_threads_with_a_tiny_cache_agree(pyramid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(pyramid) as slide:
        whole = slide.read_level(0, 0, 0, *slide.shape)
    monkeypatch.setattr("napari_histodistill.slide.tile_cache.SHARED.limit", 200_000)
    with open_slide(pyramid) as slide, ThreadPoolExecutor(8) as pool:
        windows = [(y, x) for y in range(0, 800, 90) for x in range(0, 1000, 110)]
        for (y, x), pixels in zip(
            windows, pool.map(lambda at: slide.read_level(0, *at, 100, 150), windows), strict=True
        ):
            np.testing.assert_array_equal(pixels, whole[y : y + 100, x : x + 150])


def test_closed_slide_gives_back_its_tiles_and_says_that_it_is_closed(pyramid: Path) -> None:
    slide = open_slide(pyramid)
    slide.read_level(0, 0, 0, *slide.shape)
    held = slide._reader._cache.size
    slide.close()
    assert slide._reader._cache.size <= held - 900 * 1200 * 3
    with pytest.raises(SlideError, match="closed"):
        slide.read_level(0, 0, 0, 10, 10)


def test_fingerprint_names_the_content_not_the_place(
    pyramid: Path, tmp_path: Path, make_picture: Callable[..., Picture], write_tiff: Callable[..., Path]
) -> None:
    copy = tmp_path / "elsewhere.tiff"
    copy.write_bytes(pyramid.read_bytes())
    other = write_tiff(tmp_path / "other.tiff", [make_picture(901, 1203, seed=1)])
    with open_slide(pyramid) as one, open_slide(copy) as same, open_slide(other) as different:
        assert one.fingerprint == same.fingerprint != different.fingerprint
        assert len(one.fingerprint) == 32


def test_icc_profile_is_applied_only_on_request(slides_dir: Path, pyramid: Path) -> None:
    path = slides_dir / "fixtures/boxes.tiff"
    with open_slide(path) as plain, open_slide(path, icc=True) as managed:
        assert managed._source.icc_profile
        before, after = plain.read_level(0, 0, 0, 250, 300), managed.read_level(0, 0, 0, 250, 300)
        assert np.abs(before.astype(int) - after).max() <= 60
        assert (after[0, 0] >= 250).all(), "white stays white"
    with open_slide(pyramid, icc=True) as slide:
        assert any("no ICC profile" in warning for warning in slide.warnings)
        assert slide.read_level(0, 0, 0, 5, 5).shape == (5, 5, 3)
