"""Reading, computing and writing at once: tiles in, probabilities on disk out, with bounded queues between."""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

import numpy as np

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import is_out_of_memory
from napari_histodistill.nets.threads import torch_threads
from napari_histodistill.predict.stain import recoloured
from napari_histodistill.predict.tiling import Window, rectangles

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.nets import ModelCard
    from napari_histodistill.predict.request import PredictRequest, TileDone
    from napari_histodistill.predict.stain import Recolouring
    from napari_histodistill.predict.tiling import Tiling
    from napari_histodistill.slide import Slide

    UInt8 = npt.NDArray[np.uint8]
    FloatMap = npt.NDArray[np.float32]

READERS = 2
WRITES_AHEAD = 4
"""Maps that may wait for the writer."""
GPU_BATCH = 8
PREDICTING = "Predicting"
"""Message of the progress reports that count tiles."""


class Predictor(Protocol):
    """What a prediction needs of a model; `nets.Model` is one."""

    card: ModelCard
    device: str

    def predict(self, images: UInt8, /) -> npt.NDArray[np.float32]:
        """Tumour probabilities (n, h, w) of images (n, h, w, 3)."""


@dataclass(frozen=True)
class _Tile:
    """A tile that was read."""

    index: int
    image: UInt8
    unreadable: list[Window]


@dataclass(frozen=True)
class PredictedTile:
    """What came of a tile.

    Attributes
    ----------
    index : int
    values : float32 (h, w)
        Tumour probability of the whole tile at input px, or, if it is ``reduced``, its map on the working grid.
    unreadable : list of Window
        Parts of the tile's block, in working-grid px, that the slide could not read.
    device : str
        What computed it.
    """

    index: int
    values: FloatMap
    unreadable: list[Window]
    device: str
    reduced: bool = False

    def map(self, tiling: Tiling) -> FloatMap:
        """Its map on the working grid, see `Tiling.reduce`."""
        return self.values if self.reduced else tiling.reduce(self.values, self.index)


@dataclass(frozen=True)
class Work:
    """The tiles of a slide that are to be computed, and all that decides what comes out.

    Attributes
    ----------
    request : PredictRequest
    slide : Slide
    tiling : Tiling
    tiles : list of int
        In the order in which they are wanted.
    recolour : Recolouring or None
        The stain normalisation of the slide, if the model asks for one.
    model_id : str
        Name and digest of the model.
    """

    request: PredictRequest
    slide: Slide
    tiling: Tiling
    tiles: list[int]
    recolour: Recolouring | None
    model_id: str


class Engine(Protocol):
    """What computes tiles: this process (`Here`), or the workers of a cluster."""

    def predicted(self, work: Work, control: JobControl) -> Generator[PredictedTile]:
        """The tiles as they come, in any order."""


class Here:
    """Computes tiles in this process.

    Parameters
    ----------
    model : Predictor, optional
        Used instead of loading the one that is asked for.
    """

    def __init__(self, model: Predictor | None = None) -> None:
        self._model = model

    def predicted(self, work: Work, control: JobControl) -> Generator[PredictedTile]:
        """The tiles in the order in which they are wanted; see `predicted`."""
        from napari_histodistill.nets import load_model

        model = recoloured(self._model or load_model(work.request.model, work.request.device), work.recolour)
        with torch_threads(work.request.threads):
            yield from predicted(work.tiles, slide=work.slide, tiling=work.tiling, model=model, control=control)


def predicted(
    tiles: list[int], *, slide: Slide, tiling: Tiling, model: Predictor, control: JobControl
) -> Generator[PredictedTile]:
    """Predict tiles in the given order, reading ahead; their values are at input px.

    On a CPU tiles are predicted one by one: then the result of a tile depends on nothing but its pixels, the model
    and the number of threads, wherever and beside whatever it is computed.

    Raises
    ------
    HistodistillError
        If the memory of the device runs out on a single tile.
    JobCancelled
        From ``control``.
    """
    batch_size = 1 if model.device == "cpu" else GPU_BATCH
    with ThreadPoolExecutor(READERS, "read") as readers:
        source = _read_ahead(readers, tiles, lambda index: _read(slide, tiling, index), batch_size + READERS)
        with contextlib.closing(source):
            for batch in _batches(source, batch_size):
                control.checkpoint()
                for tile, values in zip(batch, _predict(model, [tile.image for tile in batch]), strict=True):
                    yield PredictedTile(tile.index, values, tile.unreadable, model.device)


def store(
    tiles: Generator[PredictedTile],
    take: Callable[[PredictedTile], list[TileDone]],
    land: Callable[[], list[TileDone]],
    *,
    control: JobControl,
    done: int,
    total: int,
) -> set[str]:
    """Hand tiles to a writer as they come, on a thread of its own; the devices that computed them.

    Parameters
    ----------
    tiles : generator of PredictedTile
        Closed at the end, however that comes.
    take : callable
        Called in one thread only; gives the windows that it wrote.
    land : callable
        Called at the end, in the same thread: writes what was taken and not yet written, however the end comes.
    done, total : int
        Tiles that were there before, and in all, for progress.

    Raises
    ------
    HistodistillError
        If the disk is full, or from ``tiles``.
    JobCancelled
        From ``tiles``; what was computed is written first.
    """
    control.progress(done, total, PREDICTING)
    devices: set[str] = set()

    def write(tile: PredictedTile) -> None:
        nonlocal done
        landed = take(tile)
        done += 1
        report(control, done, total, landed)

    with contextlib.closing(tiles), ThreadPoolExecutor(1, "write") as writing:
        pending: deque[Future[None]] = deque()
        try:
            for tile in tiles:
                devices.add(tile.device)
                pending.append(writing.submit(write, tile))
                while len(pending) > WRITES_AHEAD:
                    pending.popleft().result()
        finally:
            pending.append(writing.submit(lambda: report(control, done, total, land())))
        for write_ in pending:
            write_.result()
    return devices


def report(control: JobControl, done: int, total: int, landed: list[TileDone]) -> None:
    """One progress report per block that landed, at least one."""
    payloads: Sequence[TileDone | None] = landed or [None]
    for payload in payloads:
        control.progress(done, total, PREDICTING, payload)


def _read(slide: Slide, tiling: Tiling, index: int) -> _Tile:
    image = slide.read_resampled(tiling.input_shape, *tiling.tile_window(index).scaled(tiling.factor))
    block = tiling.block_window(index)
    failed = rectangles(~slide.readable_mask(tiling.shape, *block))
    return _Tile(index, image, [Window(block.y + w.y, block.x + w.x, w.height, w.width) for w in failed])


def _read_ahead(
    pool: ThreadPoolExecutor, tiles: Iterable[int], read: Callable[[int], _Tile], depth: int
) -> Generator[_Tile]:
    pending: deque[Future[_Tile]] = deque()
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


def _batches(tiles: Iterable[_Tile], size: int) -> Iterator[list[_Tile]]:
    """Runs of tiles of one shape, at most ``size`` long."""
    for _, group in groupby(tiles, key=lambda tile: tile.image.shape):
        batch: list[_Tile] = []
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
        return list(model.predict(np.stack(images) if len(images) > 1 else images[0][None]))
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
