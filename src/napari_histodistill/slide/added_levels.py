"""Added levels: computed once from the next finer level, tile by tile, and kept in a folder on disk.

A tile is a file that appears in one piece, so two processes can compute the same slide side by side, and a crashed one
is continued. The folder of a slide is named by its content; the oldest folders are removed where the whole passes
`CACHE_BYTES`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
import uuid
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_histodistill.slide.cache import cache_folder
from napari_histodistill.slide.control import Silent
from napari_histodistill.slide.errors import SlideError
from napari_histodistill.slide.tile_cache import SHARED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_histodistill.slide.control import Control

    Place = tuple[int, int, int]
    Compute = Callable[[int, int, int, int, int], NDArray[np.uint8]]

TILE: Final = 512
CACHE_BYTES: Final = 8 * 2**30
"""Bytes that the added levels of all slides may take on disk."""

_QUALITY: Final = 95
_WORKERS: Final = min(4, os.cpu_count() or 1)
_IN_USE_SECONDS: Final = 3600


class AddedLevels:
    """Tiles of the added levels of one slide on disk.

    Parameters
    ----------
    key
        Names the slide's content and how its pixels are converted.
    shapes
        Shape (height, width) of each added level by its number in the slide's pyramid.
    """

    def __init__(self, key: str, shapes: Mapping[int, tuple[int, int]]) -> None:
        self._folder = cache_folder() / "levels" / key
        self._marker = self._folder / "complete"
        self._shapes = dict(sorted(shapes.items()))
        self._building = threading.Lock()
        self._owner = object()
        self._complete = not shapes

    @property
    def complete(self) -> bool:
        """Whether every tile is there."""
        self._complete = self._complete or self._marker.exists()
        return self._complete

    def tile(self, level: int, row: int, col: int) -> NDArray[np.uint8] | None:
        """Pixels of a tile of `TILE` px, cropped to the level, or None where it was not computed yet."""
        import imagecodecs

        key = (self._owner, level, row, col)
        tile = SHARED.get(key)
        if tile is None:
            try:
                data = self._file(level, row, col).read_bytes()
            except FileNotFoundError:
                return None
            tile = np.asarray(imagecodecs.jpeg8_decode(data))
            SHARED.put(key, tile)
        return tile

    def build(self, compute: Compute, control: Control | None = None) -> None:
        """Compute the missing tiles, finest level first.

        Parameters
        ----------
        compute
            ``compute(level, y, x, height, width)`` returns a window of an added level; it may read coarser added
            levels only after the finer ones are complete, which the order assures.
        control
            Hears of progress in tiles, and can cancel; what was computed until then is kept.

        Raises
        ------
        SlideError
            The cache folder cannot be written to.
        """
        control = control or Silent()
        with self._building:
            if self.complete:
                return
            try:
                self._build(compute, control)
            except OSError as error:
                raise SlideError(
                    f"The cache folder {self._folder.parent} cannot be written to ({error.strerror}): "
                    "free some space or set HISTODISTILL_CACHE to another folder."
                ) from error

    def _build(self, compute: Compute, control: Control) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        total = sum(len(list(_places(level, shape))) for level, shape in self._shapes.items())
        done = 0
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="added-levels") as pool:
            for level, shape in self._shapes.items():
                for _ in _bounded(pool, lambda place: self._compute_tile(compute, place), _places(level, shape)):
                    done += 1
                    control.progress(done, total, "Computing overview levels")
                    control.checkpoint()
        self._write(self._marker, b"")
        prune(self._folder.parent, keep=self._folder)

    def _compute_tile(self, compute: Compute, place: Place) -> None:
        import imagecodecs

        path = self._file(*place)
        if path.exists():
            return
        level, row, col = place
        height, width = self._shapes[level]
        y, x = row * TILE, col * TILE
        pixels = compute(level, y, x, min(TILE, height - y), min(TILE, width - x))
        self._write(path, imagecodecs.jpeg8_encode(pixels, level=_QUALITY, subsampling="444"))

    def _file(self, level: int, row: int, col: int) -> Path:
        return self._folder / f"{level}-{row}-{col}.jpg"

    @staticmethod
    def _write(path: Path, data: bytes | bytearray) -> None:
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        partial.write_bytes(data)
        partial.replace(path)

    def touch(self) -> None:
        """Note that the slide is in use, so that its folder is not the next to be removed."""
        with contextlib.suppress(OSError):  # a cache that may only be read serves as well
            os.utime(self._folder)


def prune(folder: Path, keep: Path, limit: int = CACHE_BYTES) -> None:
    """Remove the least recently used slides' folders until all take at most `limit` bytes.

    `keep` and folders used within the last hour stay. Other processes may do the same at the same time.
    """
    entries = sorted((_modified(entry), entry) for entry in folder.iterdir())
    sizes = {entry: sum(_size(file) for file in entry.glob("*")) for _, entry in entries}
    excess = sum(sizes.values()) - limit
    for used, entry in entries:
        if excess > 0 and entry != keep and used < time.time() - _IN_USE_SECONDS:
            shutil.rmtree(entry, ignore_errors=True)
            excess -= sizes[entry]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _places(level: int, shape: tuple[int, int]) -> Iterator[Place]:
    for row in range(-(-shape[0] // TILE)):
        for col in range(-(-shape[1] // TILE)):
            yield level, row, col


def _bounded(pool: ThreadPoolExecutor, work: Callable[[Place], None], places: Iterator[Place]) -> Iterator[None]:
    """Run work on a pool with few tasks waiting; yields once per finished one, and drops the rest on an error."""
    pending: set[Future[None]] = set()
    try:
        for place in places:
            pending.add(pool.submit(work, place))
            if len(pending) >= 2 * _WORKERS:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        for future in pending:
            yield future.result()
    finally:
        for future in pending:
            future.cancel()
