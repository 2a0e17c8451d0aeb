"""Reading, computing and writing at once: tiles in, probabilities on disk out, with bounded queues between."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.nets import ModelCard
    from napari_histodistill.predict.request import TileDone
    from napari_histodistill.predict.tiling import Tiling, Window
    from napari_histodistill.predict.writer import BlockWriter
    from napari_histodistill.slide import Slide

    UInt8 = npt.NDArray[np.uint8]
    Tile = tuple[int, UInt8]

READERS = 2
WRITES_AHEAD = 4
"""Maps that may wait for the writer."""
GPU_BATCH = 8
M_ARENA_MAX = -8
"""Number of the option in glibc's malloc.h."""


class Predictor(Protocol):
    """What a prediction needs of a model; `nets.Model` is one."""

    card: ModelCard
    device: str

    def predict(self, images: UInt8, /) -> npt.NDArray[np.float32]:
        """Tumour probabilities (n, h, w) of images (n, h, w, 3)."""


def compute(
    tiles: list[int],
    *,
    slide: Slide,
    tiling: Tiling,
    model: Predictor,
    writer: BlockWriter,
    control: JobControl,
    total: int,
) -> None:
    """Predict tiles and hand them to the writer, in the given order.

    Parameters
    ----------
    tiles : list of int
        What is to be computed.
    total : int
        Tiles in all, for progress; the difference counts as done.

    Raises
    ------
    HistodistillError
        If the disk is full or the memory of the device runs out.
    JobCancelled
        From ``control``; what was computed is written first.
    """
    batch_size = 1 if model.device == "cpu" else GPU_BATCH  # one by one, a tile's result depends on nothing else
    done = total - len(tiles)
    control.progress(done, total, "Predicting")

    def write(index: int, values: npt.NDArray[np.float32]) -> None:
        nonlocal done
        landed = writer.take(index, tiling.reduce(values, index))
        done += 1
        report(control, done, total, landed)

    with ThreadPoolExecutor(READERS, "read") as readers, ThreadPoolExecutor(1, "write") as writing:
        pending: deque[Future[None]] = deque()
        source = _read_ahead(readers, tiles, lambda index: _read(slide, tiling, index), batch_size + READERS)
        with contextlib.closing(source):
            for batch in _batches(source, batch_size):
                control.checkpoint()
                for (index, _), values in zip(batch, _predict(model, [image for _, image in batch]), strict=True):
                    pending.append(writing.submit(write, index, values))
                while len(pending) > WRITES_AHEAD:
                    pending.popleft().result()
        for write_ in pending:
            write_.result()


def report(control: JobControl, done: int, total: int, landed: list[TileDone]) -> None:
    """One progress report per block that landed, at least one."""
    payloads: Sequence[TileDone | None] = landed or [None]
    for payload in payloads:
        control.progress(done, total, "Predicting", payload)


def _read(slide: Slide, tiling: Tiling, index: int) -> Tile:
    window: Window = tiling.tile_window(index).scaled(tiling.factor)
    return index, slide.read_resampled(tiling.input_shape, *window)


def _read_ahead(
    pool: ThreadPoolExecutor, tiles: Iterable[int], read: Callable[[int], Tile], depth: int
) -> Generator[Tile]:
    pending: deque[Future[Tile]] = deque()
    try:
        for index in tiles:
            pending.append(pool.submit(read, index))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _batches(tiles: Iterable[Tile], size: int) -> Iterator[list[Tile]]:
    """Runs of tiles of one shape, at most ``size`` long."""
    for _, group in groupby(tiles, key=lambda tile: tile[1].shape):
        batch: list[Tile] = []
        for tile in group:
            batch.append(tile)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch


def _predict(model: Predictor, images: list[UInt8]) -> list[npt.NDArray[np.float32]]:
    """Predict a batch; where the memory of the device runs out, halve it until it fits."""
    try:
        return list(model.predict(np.stack(images)))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(images) == 1:
            raise HistodistillError(
                f"The memory of {model.device} ran out on a single tile; close other programs or choose another device "
                "(--device cpu), then resume."
            ) from error
    half = len(images) // 2
    return _predict(model, images[:half]) + _predict(model, images[half:])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_one_heap() -> None:
    """Have glibc give all threads of this process one heap instead of one each, each with its own freed tiles.

    Measured over 238 tiles of a 100,000 x 80,000 px slide: peak 1321 instead of 1458 MiB, at no cost in time. Other C
    libraries have no such setting and need none.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        set_option(M_ARENA_MAX, 1)


def spare_cores() -> int:
    """Threads to compute with on a CPU: all cores but the one left to readers, writer and window."""
    return max(1, cores() - 1)


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[Any]:
    """Let torch use ``count`` threads for a while; None leaves one core to the readers, the writer and the window."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or spare_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)
