"""Freed memory is kept for the next tile, and given back at the end."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest

from napari_histodistill.heap import kept_heap

resource = pytest.importorskip("resource", reason="Windows has none")

PAGES = 16_000
"""Of 4 KiB, 62 MiB: more than glibc keeps by itself."""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="glibc only",
)
def test_a_large_array_takes_the_memory_of_the_last_one_and_not_new_pages():
    def new_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        np.ones(PAGES * 4096, np.uint8)
        return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    with kept_heap():
        new_pages()
        assert new_pages() < PAGES // 100
        assert new_pages() < PAGES // 100
    assert new_pages() > PAGES // 1000  # all was given back, in whatever size the system hands out pages
