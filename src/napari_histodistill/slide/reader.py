"""Windows of stored levels, put together from cached tiles; unreadable tiles are counted and become background."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.slide.errors import RegionError, SlideError
from napari_histodistill.slide.tile_cache import SHARED, TileCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_histodistill.slide.sources import Source, SourceLevel


@dataclass(frozen=True, slots=True)
class Failure:
    """A tile that could not be read: its window in px of a stored level, and the reader's reason."""

    level: int
    y: int
    x: int
    height: int
    width: int
    reason: str


class TileReader:
    """Reads windows of a source's levels. Safe to use from many threads.

    Parameters
    ----------
    source
        Where tiles come from.
    convert
        Applied to every tile once, such as an ICC transform.
    """

    def __init__(
        self,
        source: Source,
        convert: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
        cache: TileCache = SHARED,
    ) -> None:
        self._source = source
        self._convert = convert
        self._cache = cache
        self._owner = object()
        self._closed = False
        self._failures: dict[tuple[int, int, int], Failure] = {}
        self._lock = threading.Lock()

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Tiles that failed so far, each once."""
        with self._lock:
            return tuple(self._failures.values())

    def read(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window that lies inside the level: uint8 (height, width, 3)."""
        return assemble(self._source.levels[level], lambda row, col: self.tile(level, row, col), (y, x, height, width))

    def tile(self, level: int, row: int, col: int) -> NDArray[np.uint8]:
        """One tile, from the cache where it is there. Not to be written to."""
        if self._closed:
            raise SlideError("The slide was closed: open it again.")
        key = (self._owner, level, row, col)
        tile = self._cache.get(key)
        if tile is None:
            tile = self._read_tile(level, row, col)
            self._cache.put(key, tile)
        return tile

    def _read_tile(self, level: int, row: int, col: int) -> NDArray[np.uint8]:
        try:
            tile = self._source.read_tile(level, row, col)
        except RegionError as error:
            return self._fail(level, row, col, str(error))
        return tile if self._convert is None else self._convert(tile)

    def _fail(self, level: int, row: int, col: int, reason: str) -> NDArray[np.uint8]:
        info = self._source.levels[level]
        y, x = row * info.tile[0], col * info.tile[1]
        height, width = min(info.tile[0], info.shape[0] - y), min(info.tile[1], info.shape[1] - x)
        with self._lock:
            self._failures[level, row, col] = Failure(level, y, x, height, width, reason)
        return filled((height, width), self._source.metadata.background)

    def close(self) -> None:
        """Give back the cached tiles and the file."""
        self._closed = True
        self._cache.drop(self._owner)
        self._source.close()


def assemble(
    info: SourceLevel, tile: Callable[[int, int], NDArray[np.uint8]], window: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """Put a window (y, x, height, width) inside a level together from its tiles."""
    y, x, height, width = window
    tile_h, tile_w = info.tile
    out = np.empty((height, width, 3), np.uint8)
    for row in range(y // tile_h, -(-(y + height) // tile_h)):
        top, bottom = max(y, row * tile_h), min(y + height, (row + 1) * tile_h)
        for col in range(x // tile_w, -(-(x + width) // tile_w)):
            left, right = max(x, col * tile_w), min(x + width, (col + 1) * tile_w)
            out[top - y : bottom - y, left - x : right - x] = tile(row, col)[
                top - row * tile_h : bottom - row * tile_h, left - col * tile_w : right - col * tile_w
            ]
    return out


def filled(shape: tuple[int, int], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Pixels of one colour: uint8 (height, width, 3)."""
    return np.broadcast_to(np.asarray(colour, np.uint8), (*shape, 3)).copy()
