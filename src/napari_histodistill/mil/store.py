"""Many small arrays in one file: training images and targets of any number, without holding them in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray


class ArrayStore(Sequence["NDArray[np.uint8]"]):
    """A sequence of uint8 arrays of any shapes, memory-mapped from a file that vanishes with the object.

    The system keeps in memory what it has room for, so a small data set costs no reading and a large one no memory.

    Parameters
    ----------
    arrays : iterable of uint8 arrays
        Written one after the other.
    folder : Path, optional
        Where the file lies; the system's temporary folder if None.
    """

    def __init__(self, arrays: Iterable[NDArray[np.uint8]] = (), folder: Path | None = None) -> None:
        self._places: list[tuple[int, tuple[int, ...]]] = []
        self._file = tempfile.TemporaryFile(dir=folder, prefix="histodistill-")  # noqa: SIM115 - closed with the object
        self._size = 0
        self._bytes = np.empty(0, np.uint8)
        for array in arrays:
            self.append(array)

    def append(self, array: NDArray[np.uint8]) -> None:
        """Add an array at the end."""
        self._file.write(np.ascontiguousarray(array, np.uint8).data)
        self._places.append((self._size, array.shape))
        self._size += array.size

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...

    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.uint8]]: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start, shape = self._places[index]
        if len(self._bytes) < self._size:
            self._file.flush()
            self._bytes = np.memmap(self._file, np.uint8, "r", shape=(self._size,))
        return self._bytes[start : start + int(np.prod(shape))].reshape(shape)
