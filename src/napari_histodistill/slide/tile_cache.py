"""Decoded tiles in memory, shared by every open slide and bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np
    from numpy.typing import NDArray

CACHE_BYTES: Final = 192 * 2**20


class TileCache:
    """Least-recently-used tiles up to a number of bytes; safe to use from many threads.

    Parameters
    ----------
    limit
        Bytes of pixels to hold at most. A tile larger than that is not held.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self.size = 0
        self._tiles: OrderedDict[tuple[Hashable, ...], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[Hashable, ...]) -> NDArray[np.uint8] | None:
        """The tile, which becomes the most recently used, or None."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: tuple[Hashable, ...], tile: NDArray[np.uint8]) -> None:
        """Hold a tile; the least recently used ones make room for it. The tile must not be written to afterwards."""
        if tile.nbytes > self.limit:
            return
        with self._lock:
            self._drop(key)
            self._tiles[key] = tile
            self.size += tile.nbytes
            while self.size > self.limit:
                self._drop(next(iter(self._tiles)))

    def drop(self, owner: Hashable) -> None:
        """Forget every tile whose key starts with `owner`."""
        with self._lock:
            for key in [key for key in self._tiles if key[0] == owner]:
                self._drop(key)

    def _drop(self, key: tuple[Hashable, ...]) -> None:
        tile = self._tiles.pop(key, None)
        if tile is not None:
            self.size -= tile.nbytes


SHARED: Final = TileCache()
