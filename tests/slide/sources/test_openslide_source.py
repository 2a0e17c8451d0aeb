"""OpenSlide's quirks: latched errors, interpolation between pixels, alpha."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from napari_histodistill.slide import open_slide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_one_bad_region_does_not_kill_the_rest(
    tmp_path: Path, make_picture: Callable[..., np.ndarray], break_tile: Callable[[Path, int], None]
) -> None:
    path = tmp_path / "broken.tif"
    picture = make_picture(1024, 1024)
    tifffile.imwrite(path, picture, photometric="rgb", compression="jpeg", tile=(256, 256), metadata=None)
    with open_slide(path, source="openslide") as slide:
        whole = slide.read_level(0, 0, 0, 1024, 1024)
    break_tile(path, 6)
    with open_slide(path, source="openslide") as slide, ThreadPoolExecutor(8) as pool:
        windows = [(y, x) for y in range(0, 1024, 128) for x in range(0, 1024, 128)] * 2
        shown = list(pool.map(lambda at: slide.read_level(0, *at, 128, 128), windows))
        assert slide.unreadable == 1
        for (y, x), pixels in zip(windows, shown, strict=True):
            broken = 256 <= y < 512 and 512 <= x < 768
            expected = np.full_like(pixels, 255) if broken else whole[y : y + 128, x : x + 128]
            np.testing.assert_array_equal(pixels, expected)


def test_unreadable_slide_is_background_and_counted(slides_dir: Path) -> None:
    for source in ("fast", "openslide"):
        with open_slide(slides_dir / "fixtures/unreadable.svs", source=source) as slide:
            assert (slide.read_level(0, 0, 0, 16, 16) == 255).all()
            assert slide.unreadable == 1
            assert slide.failures[0].reason
            assert not slide.readable_mask((4, 4), 0, 0, 4, 4).any()


def test_reads_from_many_threads_agree(slides_dir: Path) -> None:
    with open_slide(slides_dir / "hamamatsu-dapi.ndpi") as slide, ThreadPoolExecutor(8) as pool:
        windows = [(level, y, x) for level in (0, 1, 2) for y in range(0, 900, 300) for x in range(0, 900, 300)]
        together = list(pool.map(lambda at: slide.read_level(*at, 300, 300), windows))
    with open_slide(slides_dir / "hamamatsu-dapi.ndpi") as slide:
        for at, pixels in zip(windows, together, strict=True):
            np.testing.assert_array_equal(pixels, slide.read_level(*at, 300, 300))


def test_odd_downsamples_are_read_without_interpolation(slides_dir: Path) -> None:
    with (
        open_slide(slides_dir / "fixtures/boxes.tiff", source="openslide") as slide,
        tifffile.TiffFile(slides_dir / "fixtures/boxes.tiff") as tif,
    ):
        for level in range(4):
            stored = tif.pages[level].asarray()
            for x in range(0, stored.shape[1] - 8, 5):
                np.testing.assert_array_equal(slide.read_level(level, 3, x, 8, 8), stored[3:11, x : x + 8])
