"""Reading beside bare OpenSlide with the same threads: stored tiles, and windows of 512 px anywhere at level 0.

Tiles are what a viewer asks for. A window off the tiles' raster touches nine tiles of 256 px where its area is four.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import openslide
import pytest

from napari_histodistill.slide import open_slide, tile_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

READS = 60
ROUNDS = 9
TIFF = "crc-section-pyramid.tiff"
OTHERS = ("hamamatsu-dapi.ndpi", "wsi2dcm-jpeg.dcm")

Place = tuple[int, int]


def reads_per_second(read: Callable[[Place], object], places: Sequence[Place], threads: int) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, places))
    return len(places) / (time.perf_counter() - start)


def compare(path: Path, side: int, raster: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many times as fast as OpenSlide windows of level 0 are read, round by round."""
    monkeypatch.setattr(tile_cache.SHARED, "limit", 0)  # neither side keeps tiles: decoding is what is compared
    rng = np.random.default_rng(0)
    ratios = []
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        reference.set_cache(openslide.OpenSlideCache(0))

        def theirs(at: Place) -> object:
            return np.asarray(reference.read_region((at[1], at[0]), 0, (side, side)).convert("RGB"))

        def ours(at: Place) -> object:
            return slide.read_level(0, *at, side, side)

        bounds = [max(1, size - side) for size in slide.shape]
        for _ in range(ROUNDS):
            places = [tuple(int(v) // raster * raster for v in rng.integers(0, bounds)) for _ in range(READS)]
            slow = reads_per_second(theirs, places, threads)
            ratios.append(reads_per_second(ours, places, threads) / slow)
    return ratios


@pytest.mark.parametrize("threads", [1, 2])
def test_a_tiled_tiff(slides_dir, bench, monkeypatch, threads):
    of = "" if threads == 2 else "_1_thread"
    tiles = compare(slides_dir / TIFF, 256, 256, threads, monkeypatch)
    windows = compare(slides_dir / TIFF, 512, 1, threads, monkeypatch)
    bench.add(f"tile_rate_vs_openslide_tiff{of}", tiles, target=3)
    bench.add(f"window_rate_vs_openslide_tiff{of}", windows, target=3)
    assert statistics.median(windows) > 1.3


def test_what_openslide_reads_for_us(slides_dir, bench, monkeypatch):
    ratios = [r for name in OTHERS for r in compare(slides_dir / name, 256, 256, 2, monkeypatch)]
    bench.add("tile_rate_vs_openslide_other", ratios, target=0.95)
    assert statistics.median(ratios) > 0.5
