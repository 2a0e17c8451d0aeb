"""A person's corrections of one slide: an array for those who read, and the journal that it is made from.

The journal holds everything since the first stroke and is the truth; `compaction` has the array.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_histodistill.slide.labels import IGNORE
from napari_histodistill.study.compaction import (
    Compacted,
    Mark,
    lay,
    lay_entry,
    nothing,
    patches_under,
    replayed,
    strips_of,
    tiles_in,
)
from napari_histodistill.study.files import StudyError, way_out
from napari_histodistill.study.journal import TILE, Entry, Journal, Patch, Scan, numbered, timeline
from napari_histodistill.study.locks import FileLock
from napari_histodistill.study.pyramid import NO_CORRECTION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slide.grid import WorkingGrid

    UInt8 = npt.NDArray[np.uint8]

logger = logging.getLogger(__name__)

PENDING_LIMIT: Final = 64
"""Entries that the journal may be ahead of the array."""
PENDING_BYTES: Final = 4 << 20
READ_TRIES: Final = 10
LOCK_TRIES: Final = 500
"""Of 20 ms: whoever appends is patient while another one brings the array up to date."""


@dataclass(frozen=True)
class Origin:
    """Where corrections in a window come from.

    Parameters
    ----------
    value : int
        0 to 3.
    tool, time, context : str
        Of the stroke; see `journal.Entry`. "unknown" and empty where the journal does not say.
    pixels : int
        How many of the window's pixels still hold what this stroke set.
    """

    value: int
    tool: str
    time: str
    context: str
    pixels: int


class Corrections:
    """What a person set on the working grid, uint8, 255 where nothing; ``corrections[rows, columns]`` reads a window.

    Reading needs no lock and writes nothing. Writing takes the lock for the moment, so that several windows and
    programs can add to one slide; each stroke lands whole.

    Parameters
    ----------
    folder : Path
        Of the slide in the study.
    grid : WorkingGrid
    name : str
        Of the slide, for messages.
    """

    dtype: Final = np.dtype(np.uint8)

    def __init__(self, folder: Path, grid: WorkingGrid, name: str) -> None:
        self._folder, self._grid, self._name = folder, grid, name
        self._journal = Journal(folder / "corrections.journal", grid.shape)
        self._compacted = Compacted(folder, grid, self._journal)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the working grid."""
        return self._grid.shape

    @property
    def levels(self) -> tuple[Corrections]:
        """The finest level, as a `Pyramid` has it; there is no other."""
        return (self,)

    @property
    def exist(self) -> bool:
        """Whether anybody ever set anything, in this version or in one without a journal."""
        return self._journal.exists or self._compacted.exists

    @property
    def journal_bytes(self) -> int:
        """Size of the journal, which only grows: figures that were counted at this size know every correction."""
        return self._journal.path.stat().st_size if self._journal.exists else 0

    # Reading

    def __getitem__(self, index: slice | tuple[slice, slice]) -> UInt8:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        (top, bottom, _), (left, right, _) = rows.indices(self.shape[0]), columns.indices(self.shape[1])
        return self.read(top, left, max(0, bottom - top), max(0, right - left))

    def read(self, y: int, x: int, height: int, width: int) -> UInt8:
        """A window as uint8 (height, width); it must lie inside the grid."""
        for _ in range(READ_TRIES):
            stamp, window = self._compacted.stamp(), self._read(y, x, height, width)
            if self._compacted.stamp() == stamp:
                break  # else the array may have been made anew meanwhile, and was empty for a moment
        return window

    def _read(self, y: int, x: int, height: int, width: int) -> UInt8:
        # In this order: what is brought into the array meanwhile, and what came after, is among the entries read last.
        mark = self._compacted.mark()
        window = self._compacted.window(y, x, height, width)
        pending = self._scan_pending(mark).entries
        if window is None and self._journal.exists:  # damaged: the journal has it all
            window, pending = nothing(height, width), self.entries().entries
        elif window is None:
            window = self._salvage(y, x, height, width)
        for entry in pending:
            lay_entry(window, (y, x), entry)
        return window

    def _salvage(self, y: int, x: int, height: int, width: int) -> UInt8:
        """What can be read, tile by tile, of a damaged array that has no journal."""
        window = nothing(height, width)
        for top, left, tall, wide in tiles_in(y, x, height, width):
            tile = self._compacted.window(top, left, tall, wide)
            if tile is not None:
                window[top - y : top - y + tall, left - x : left - x + wide] = tile
        return window

    def entries(self) -> Scan:
        """The whole journal."""
        return self._journal.scan() if self._journal.exists else Scan([], Journal.start)

    def since(self, known: int) -> list[Entry]:
        """Entries behind the one numbered ``known``; quick where the array is no further."""
        mark = self._compacted.mark()
        found = self.entries().entries if known < mark.sequence else self._scan_pending(mark).entries
        return [entry for entry in found if entry.sequence > known]

    def stamp(self) -> tuple[int, int] | None:
        """What changes whenever somebody writes; None while there is no journal, or it cannot be reached."""
        try:
            about = self._journal.path.stat()
        except OSError:
            return None
        return about.st_size, about.st_mtime_ns

    def provenance(self, y: int, x: int, height: int, width: int) -> list[Origin]:
        """Where the corrections in a window come from, the latest stroke first."""
        entries = self.entries().entries
        in_effect = [entry for entry in entries if entry.kind == "base"] + timeline(entries)[0]
        source = np.full((height, width), -1, np.int32)
        said = nothing(height, width)
        for index, entry in enumerate(in_effect):
            for patch in patches_under(entry, (y, x), source.shape):
                changed, values = entry.values(patch)
                lay(source, (y, x), patch, changed, index)
                lay(said, (y, x), patch, changed, values)
        present = self.read(y, x, height, width)
        source[said != present] = -1
        pairs = np.stack([source, present.astype(np.int32)], axis=-1)[present != NO_CORRECTION]
        found = []
        for (index, value), pixels in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
            of = in_effect[index] if index >= 0 else Entry("unknown", (), time="")
            found.append(Origin(int(value), of.tool, of.time, of.context, int(pixels)))
        return found[::-1]  # by their place in the journal, not by the time: clocks are set back

    def problems(self) -> list[str]:
        """What is damaged, a sentence each; empty for a sound journal."""
        scan = self.entries()
        said = []
        if self._journal.exists and not self._journal.identity():
            said.append(f"The head of {self._journal.path} is damaged; its {len(scan.entries)} corrections were read.")
        if scan.damaged:
            said.append(
                f"{scan.damaged} damaged stretch(es) in {self._journal.path} were passed over: what was corrected "
                f"there may be missing or can no longer be undone; the other {len(scan.entries)} corrections were read."
            )
        if scan.torn:
            said.append(f"The last correction on {self._name} was cut short while it was written, and is lost.")
        if self._compacted.mark_path.exists() and not self._journal.exists:
            said.append(f"{self._journal.path} is gone: the corrections are there, but can no longer be undone.")
        if self.exist and not self._journal.exists:
            lost = sum(self._compacted.window(*tile) is None for tile in tiles_in(0, 0, *self.shape))
            if lost:
                where = self._compacted.folder
                said.append(f"{lost} damaged tile(s) of {where} were passed over: {way_out(where)}.")
        return said

    # Writing

    def append(self, entries: Iterable[Entry], known: int = 0) -> tuple[list[Entry], list[Entry]]:
        """Add entries; they are on disk when this returns.

        Parameters
        ----------
        entries : iterable of Entry
        known : int
            Sequence number up to which the caller knows the journal.

        Returns
        -------
        written : list of Entry
            With their numbers.
        foreign : list of Entry
            What others added behind ``known``.

        Raises
        ------
        StudyError
            If nothing can be written, or another process holds the corrections for more than ten seconds.
        """
        with self._writing():
            mark = self._compacted.sound_mark()
            scan = self._scan_pending(mark)
            last = max([mark.sequence, *(entry.sequence for entry in scan.entries)])
            if known < mark.sequence:
                foreign = [entry for entry in self.entries().entries if entry.sequence > known]
            else:
                foreign = [entry for entry in scan.entries if entry.sequence > known]
            written = numbered(entries, last)
            end = self._journal.append(written, scan.end)
            if len(scan.entries) + len(written) > PENDING_LIMIT or end - mark.end > PENDING_BYTES:
                try:
                    self._compacted.take_in([*scan.entries, *written], end)
                except StudyError:  # the strokes are safe; the next ones try again
                    logger.exception("corrections stay in the journal for now")
        return written, foreign

    def set_window(self, y: int, x: int, values: UInt8, *, tool: str, context: str = "") -> None:
        """Replace a window, uint8 (h, w) with 255 for none, as one entry that can be undone."""
        patches = []
        height, width = values.shape
        if y < 0 or x < 0 or y + height > self.shape[0] or x + width > self.shape[1]:
            raise ValueError("the window does not lie inside the grid")
        if ((values > IGNORE) & (values != NO_CORRECTION)).any():
            raise ValueError("corrections hold 0 to 3, or 255 for none")
        for top in range(y - y % TILE, y + height, TILE):
            rows = slice(max(top, y), min(top + TILE, y + height))
            before, after = (
                self.read(rows.start, x, rows.stop - rows.start, width),
                values[rows.start - y : rows.stop - y],
            )
            for left in range(x - x % TILE, x + width, TILE):
                columns = slice(max(left, x) - x, min(left + TILE, x + width) - x)
                patches.append(Patch.between(rows.start, x + columns.start, before[:, columns], after[:, columns]))
        kept = tuple(patch for patch in patches if patch is not None)
        if kept:
            present = np.unique(values)
            self.append([Entry(tool, kept, int(present[0]) if present.size == 1 else None, context=context)])

    def compact(self) -> None:
        """Bring the array up to the end of the journal."""
        if not self._journal.exists:
            return
        with self._writing():
            scan = self._scan_pending(self._compacted.sound_mark())
            if scan.entries:
                self._compacted.take_in(scan.entries, scan.end)

    def rebuild(self) -> None:
        """Make the array anew from the whole journal; what only the array still held of damaged entries is gone."""
        if not self._journal.exists:
            return
        with self._writing():
            scan = self._journal.scan()
            self._compacted.begin_anew()
            self._compacted.take_in(scan.entries, scan.end)

    def unsound_tiles(self) -> list[tuple[int, int, int, int]]:
        """Tiles whose array cannot be read, or, under a sound journal, does not hold what that says."""
        scan = self.entries()
        pending = self._scan_pending().entries
        known = self._journal.exists and not scan.damaged and bool(self._journal.identity())
        bad = []
        for strip in strips_of(self.shape):
            whole = replayed(scan.entries, *strip)
            for y, x, height, width in tiles_in(*strip):
                tile = self._compacted.window(y, x, height, width)
                if tile is not None and known:
                    for entry in pending:
                        lay_entry(tile, (y, x), entry)
                    if np.array_equal(tile, whole[:, x : x + width]):
                        continue
                if tile is None or known:
                    bad.append((y, x, height, width))
        return bad

    def mend(self, keep: Callable[[Path], None], move: Callable[[Path], None]) -> None:
        """Make journal and array sound again with everything that either still holds.

        Parameters
        ----------
        keep, move : callable
            Copy a file, or move a folder, to where damaged things are kept.
        """
        with self._writing():
            scan = self._journal.scan()
            if scan.damaged or not self._journal.identity():
                patches = []
                for strip in strips_of(self.shape):
                    whole = replayed(scan.entries, *strip)
                    for y, x, height, width in tiles_in(*strip):
                        tile, before = self.read(y, x, height, width), whole[:, x : x + width]
                        if (tile != NO_CORRECTION).any():  # else the chunk may be gone as well
                            patches.append(Patch.between(y, x, before, tile))
                kept = tuple(patch for patch in patches if patch is not None)
                last = max((entry.sequence for entry in scan.entries), default=0)
                recovered = [Entry("recovered", kept, sequence=last + 1)] if kept else []
                keep(self._journal.path)
                self._journal.create([*scan.entries, *recovered])
            self._compacted.forget_mark()  # first: whoever reads at this moment then asks the journal for all
            move(self._compacted.folder)
            self._compacted.begin_anew()
            scan = self._journal.scan()
            self._compacted.take_in(scan.entries, scan.end)

    # Files

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock, with a journal there to write to."""
        lock = FileLock(self._folder / "corrections.lock", f"The corrections of {self._name}", tries=LOCK_TRIES)
        try:
            lock.acquire()
        except StudyError as error:
            raise StudyError(f"{str(error).removesuffix('.')}; your last corrections are not saved yet.") from error
        try:
            if not self._journal.exists:
                self._begin_journal()
            yield
        finally:
            lock.release()

    def _begin_journal(self) -> None:
        """Start the journal with what an older version left in the array."""
        patches = []
        if self._compacted.sound_array() is not None:
            for y, x, height, width in tiles_in(0, 0, *self.shape):
                tile = self._compacted.window(y, x, height, width)
                if tile is not None:
                    patches.append(Patch.between(y, x, nothing(height, width), tile))
        self._compacted.forget_mark()
        kept = tuple(patch for patch in patches if patch is not None)
        base = Entry("an earlier version", kept, kind="base", sequence=1)
        self._journal.create([base] if kept else [])

    def _scan_pending(self, mark: Mark | None = None) -> Scan:
        """What the journal holds and the array may not."""
        if not self._journal.exists:
            return Scan([], Journal.start)
        return self._journal.scan((mark or self._compacted.mark()).end)
