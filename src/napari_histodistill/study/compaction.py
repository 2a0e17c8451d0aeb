"""The array of corrections: what the journal came to, up to a mark, so that nobody reads years of strokes to see one.

The mark (sequence number and byte) is written after the array. A crash in between applies some strokes to the array
again, which changes nothing: they set absolute values.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_histodistill.study.files import DamagedError, StudyError, read_document, write_document
from napari_histodistill.study.journal import TILE, Entry, Journal, Patch
from napari_histodistill.study.pyramid import NO_CORRECTION, Pyramid
from napari_histodistill.urls import UrlPath

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slide.grid import WorkingGrid

    UInt8 = npt.NDArray[np.uint8]

FORMAT, VERSION = "histodistill-corrections", 1
_UNREADABLE: Final = (StudyError, OSError, RuntimeError, ValueError)
"""What zarr and its codecs raise on a chunk or a head that is damaged."""


@dataclass(frozen=True)
class Mark:
    """How far the array holds the journal: the number of the last entry, the byte where it ends, whose journal."""

    sequence: int = 0
    end: int = Journal.start
    journal: str = ""

    @property
    def checksum(self) -> int:
        """CRC-32 of the three."""
        return zlib.crc32(f"{self.sequence} {self.end} {self.journal}".encode())


class Compacted:
    """The array and its mark. Reading needs no lock; whoever writes must hold that of the corrections.

    Parameters
    ----------
    folder : Path
        Of the slide in the study.
    grid : WorkingGrid
    journal : Journal
        What the array is made from.

    Attributes
    ----------
    folder, mark_path : Path
        Of the array, and of the mark.
    """

    def __init__(self, folder: Path, grid: WorkingGrid, journal: Journal) -> None:
        self.folder, self.mark_path = folder / "corrections.ome.zarr", folder / "corrections.json"
        self._grid, self._journal = grid, journal

    @property
    def exists(self) -> bool:
        """Whether there is an array."""
        return (self.folder / "zarr.json").exists()

    def window(self, y: int, x: int, height: int, width: int) -> UInt8 | None:
        """What the array holds, 255 where there is none; None if that cannot be read."""
        try:
            array = self._array()
            return nothing(height, width) if array is None else array.read(y, x, height, width)
        except _UNREADABLE:
            return None

    def _array(self) -> Pyramid | None:
        if not self.exists:
            return None
        return Pyramid(self.folder, "r" if isinstance(self.folder, UrlPath) else "r+")

    def sound_array(self) -> Pyramid | None:
        """The array, None if there is none or its head is damaged."""
        try:
            return self._array()
        except DamagedError:
            return None

    def begin_anew(self) -> None:
        """Make an empty array."""
        self.forget_mark()
        Pyramid.create(self.folder, self._grid, "labels", name="corrections", fill=NO_CORRECTION, multiscale=False)

    def take_in(self, entries: Sequence[Entry], end: int) -> None:
        """Write entries into the array, tile by tile, then the mark.

        Parameters
        ----------
        entries : sequence of Entry
            Those that the array lacks, in order.
        end : int
            Byte of the journal where the last one ends.

        Raises
        ------
        StudyError
            If it cannot be written.
        """
        tiles: dict[tuple[int, int], list[tuple[Entry, Patch]]] = {}
        for entry in entries:
            for patch in entry.in_order():
                tiles.setdefault((patch.y // TILE * TILE, patch.x // TILE * TILE), []).append((entry, patch))
        try:
            array = self.sound_array()
            if array is None:
                self.begin_anew()
                self.take_in(self._journal.scan().entries, end)
                return
            for (y, x), changes in tiles.items():
                self._write_tile(array, y, x, changes)
        except StudyError as error:
            raise StudyError(f"{error} No correction is lost, they are in the journal.") from error
        sequence = max((entry.sequence for entry in entries), default=0)
        self.write_mark(Mark(max(sequence, self.mark().sequence), end, self._journal.identity()))

    def _write_tile(self, array: Pyramid, y: int, x: int, changes: list[tuple[Entry, Patch]]) -> None:
        height, width = min(TILE, self._grid.shape[0] - y), min(TILE, self._grid.shape[1] - x)
        tile = self.window(y, x, height, width)
        if tile is None:
            tile = replayed(self._journal.scan().entries, y, x, height, width)
        for entry, patch in changes:
            lay(tile, (y, x), patch, *entry.values(patch))
        array.write(y, x, tile)

    # The mark

    def mark(self) -> Mark:
        """How far the array is; at the start of the journal where that is not known: applying twice is harmless."""
        if not self.mark_path.exists() or not self.exists:
            return Mark()
        try:
            content = read_document(self.mark_path, FORMAT, VERSION)
            mark = Mark(int(content["sequence"]), int(content["end"]), str(content["journal"]))
            sound = content["checksum"] == mark.checksum and mark.journal == self._journal.identity()
        except (StudyError, KeyError, TypeError, ValueError):
            return Mark()
        return mark if sound else Mark()

    def stamp(self) -> list[tuple[int, int]]:
        """What changes when array or journal are made anew, or the array is written to; not at a URL."""
        found = []
        for path in (self.mark_path, self._journal.path) if not isinstance(self.folder, UrlPath) else ():
            with suppress(OSError):
                about = path.stat()
                found.append((about.st_ino, about.st_mtime_ns if path == self.mark_path else 0))
        return found

    def sound_mark(self) -> Mark:
        """The mark, brought back where a damaged end of the journal was cut off below it. The lock must be held."""
        mark = self.mark()
        if mark.end > self._journal.path.stat().st_size:
            scan = self._journal.scan()
            mark = Mark(mark.sequence, scan.end, mark.journal)
            self.write_mark(mark)
        return mark

    def write_mark(self, mark: Mark) -> None:
        """Say how far the array is."""
        content = {**asdict(mark), "checksum": mark.checksum}
        write_document(self.mark_path, FORMAT, VERSION, content)

    def forget_mark(self) -> None:
        """Let the array count as holding nothing of the journal."""
        self.mark_path.unlink(missing_ok=True)


def nothing(height: int, width: int) -> UInt8:
    """A window in which nobody set anything."""
    return np.full((height, width), NO_CORRECTION, np.uint8)


def replayed(entries: Iterable[Entry], y: int, x: int, height: int, width: int) -> UInt8:
    """A window as entries, from the first on, make it."""
    window = nothing(height, width)
    for entry in entries:
        lay_entry(window, (y, x), entry)
    return window


def patches_under(entry: Entry, corner: tuple[int, int], shape: tuple[int, ...]) -> Iterator[Patch]:
    """The entry's patches that share pixels with a window, in the order in which they are to be applied."""
    bottom, right = corner[0] + shape[0], corner[1] + shape[1]
    for patch in entry.in_order():
        rows = patch.y < bottom and corner[0] < patch.y + patch.height
        if rows and patch.x < right and corner[1] < patch.x + patch.width:
            yield patch


def lay_entry(window: UInt8, corner: tuple[int, int], entry: Entry) -> None:
    """Write what an entry set into the window at ``corner``."""
    for patch in patches_under(entry, corner, window.shape):
        lay(window, corner, patch, *entry.values(patch))


def lay(
    window: npt.NDArray[Any], corner: tuple[int, int], patch: Patch, changed: npt.NDArray[np.bool_], values: Any
) -> None:
    """Write ``values``, one or one per changed pixel, where a patch lies in the window at ``corner``."""
    full = np.zeros(changed.shape, window.dtype)
    full[changed] = values
    top, left = max(patch.y, corner[0]), max(patch.x, corner[1])
    bottom = min(patch.y + patch.height, corner[0] + window.shape[0])
    right = min(patch.x + patch.width, corner[1] + window.shape[1])
    of_patch = slice(top - patch.y, bottom - patch.y), slice(left - patch.x, right - patch.x)
    target = window[top - corner[0] : bottom - corner[0], left - corner[1] : right - corner[1]]
    np.copyto(target, full[of_patch], where=changed[of_patch])


def strips_of(shape: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """A grid cut into rows of tiles: (y, x, height, width) of each."""
    for top in range(0, shape[0], TILE):
        yield top, 0, min(TILE, shape[0] - top), shape[1]


def tiles_in(y: int, x: int, height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """A window cut along multiples of `TILE`: (y, x, height, width) of each piece."""
    for top in range(y - y % TILE, y + height, TILE):
        for left in range(x - x % TILE, x + width, TILE):
            first, second = max(top, y), max(left, x)
            yield first, second, min(top + TILE, y + height) - first, min(left + TILE, x + width) - second
