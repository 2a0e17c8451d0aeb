"""The zarr face: what napari and dask see."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

from napari_histodistill.slide import open_slide
from napari_histodistill.slide.zarr_store import SlideStore

if TYPE_CHECKING:
    from pathlib import Path


def test_arrays_equal_the_levels(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        arrays = slide.pyramid()
        assert len(arrays) == len(slide.levels)
        for number, (array, level) in enumerate(zip(arrays, slide.levels, strict=True)):
            assert isinstance(array, zarr.Array)
            assert array.metadata.zarr_format == 3
            assert (array.shape, array.dtype) == ((*level.shape, 3), np.uint8)
            whole = slide.read_level(number, 0, 0, *level.shape)
            np.testing.assert_array_equal(array[:], whole)
            np.testing.assert_array_equal(array[-40:, 30:61:2, 1], whole[-40:, 30:61:2, 1])


def test_dask_wraps_the_levels(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        lazy = da.from_zarr(slide.pyramid()[0])
        assert lazy.chunks[0][0] == 128
        whole = slide.read_level(0, 0, 0, *slide.shape)
        np.testing.assert_array_equal(lazy[100:500, 50:300].compute(), whole[100:500, 50:300])
        assert float(lazy.mean().compute()) == pytest.approx(whole.mean())


def test_reads_from_many_threads_agree(pyramid: Path) -> None:
    with open_slide(pyramid) as slide, ThreadPoolExecutor(16) as pool:
        array = slide.pyramid()[0]
        whole = slide.read_level(0, 0, 0, *slide.shape)
        for pixels in pool.map(lambda _: array[100:700, 200:900], range(32)):
            np.testing.assert_array_equal(pixels, whole[100:700, 200:900])


def test_making_the_arrays_reads_no_pixels(pyramid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(pyramid) as slide:
        monkeypatch.setattr(slide, "read_level", lambda *_: pytest.fail("pixels were read"))
        assert slide.pyramid()[0].nbytes == 901 * 1203 * 3


def test_store_is_a_read_only_group_of_its_levels(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        store = SlideStore(slide)
        group = zarr.open_group(store, mode="r")
        assert sorted(group.array_keys()) == ["0", "1", "2"]
        with pytest.raises((PermissionError, ValueError), match="read-only"):
            slide.pyramid()[0][0, 0, 0] = 1

        prototype = default_buffer_prototype()

        def get(key: str, part: object = None) -> bytes | None:
            buffer = asyncio.run(store.get(key, prototype, part))
            return None if buffer is None else buffer.to_bytes()

        for absent in ("7/zarr.json", "0/c/99/0/0", "0/c/0/0/1", "9/c/0/0/0", "0/c/x/0/0", "other"):
            assert get(absent) is None
            assert not asyncio.run(store.exists(absent))
        chunk = get("0/c/7/9/0")
        assert chunk is not None
        assert len(chunk) == 128 * 128 * 3, "chunks at the edge are whole"
        assert asyncio.run(store.exists("0/c/7/9/0"))
        assert get("0/c/7/9/0", RangeByteRequest(10, 30)) == chunk[10:30]
        assert get("0/c/7/9/0", OffsetByteRequest(40)) == chunk[40:]
        assert get("0/c/7/9/0", SuffixByteRequest(7)) == chunk[-7:]
