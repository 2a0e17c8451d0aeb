"""Reading speed of the fast path beside OpenSlide: random 512 px windows at level 0, on one and two threads.

``make bench``, or ``python -m pytest tests/benchmarks/test_slide_reading.py -s -o addopts=--import-mode=importlib``.
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

SIDE = 512
READS = 120
ROUNDS = 5

Place = tuple[int, int]


def reads_per_second(read: Callable[[Place], object], places: Sequence[Place], threads: int) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, places))
    return len(places) / (time.perf_counter() - start)


@pytest.mark.parametrize("threads", [1, 2])
def test_fast_path_beside_openslide(slides_dir: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(tile_cache.SHARED, "limit", 0)  # neither side keeps tiles: decoding is what is compared
    path = slides_dir / "crc-section-pyramid.tiff"
    rng = np.random.default_rng(0)
    ratios = []
    with open_slide(path, source="fast") as slide, openslide.OpenSlide(path) as reference:
        reference.set_cache(openslide.OpenSlideCache(0))
        height, width = slide.shape
        for _ in range(ROUNDS):
            ys, xs = rng.integers(0, height - SIDE, READS), rng.integers(0, width - SIDE, READS)
            places = [(int(y), int(x)) for y, x in zip(ys, xs, strict=True)]
            slow = reads_per_second(
                lambda at: np.asarray(reference.read_region((at[1], at[0]), 0, (SIDE, SIDE)).convert("RGB")),
                places,
                threads,
            )
            fast = reads_per_second(lambda at: slide.read_level(0, *at, SIDE, SIDE), places, threads)
            ratios.append(fast / slow)
            print(
                f"\n{threads} thread(s): fast {fast:.0f}, OpenSlide {slow:.0f} reads/s, ratio {ratios[-1]:.2f}", end=""
            )
    print(f"\n{threads} thread(s): median ratio {statistics.median(ratios):.2f}")
    assert statistics.median(ratios) > 1.3
