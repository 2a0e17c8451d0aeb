"""Writes a person's corrections to the study in the background, soon after each stroke."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from psygnal import Signal

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import InlineControl, JobControl, ThreadJob
from napari_histodistill.study import Entry, timeline
from napari_histodistill.study.journal import TILE
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from napari_histodistill.study import StudySlide
    from napari_histodistill.viewer.editing import EditableMask, Mask
    from napari_histodistill.viewer.work import Runner

DELAY_S: Final = 0.05
"""From a stroke to the start of its writing; what is painted while it is written goes along with the next."""
RETRY_S: Final = 5.0
"""From a write that failed to the next try."""


@dataclass(frozen=True)
class SavedCorrections:
    """What a study holds of a person's work on one slide.

    Parameters
    ----------
    hand : uint8 array (height, width)
        0 for none, otherwise the value plus one.
    undo, redo : list of Entry
        Steps that can be undone and redone, the next one last.
    sequence : int
        Number of the last entry of the journal.
    problems : list of str
        What is damaged, a sentence each.
    pending : list of Entry
        Steps that could not be written yet.
    """

    hand: Mask
    undo: list[Entry]
    redo: list[Entry]
    sequence: int
    problems: list[str] = field(default_factory=list)
    pending: list[Entry] = field(default_factory=list)


def read_corrections(entry: StudySlide) -> SavedCorrections:
    """Read all that a study holds of the corrections of a slide."""
    hand = np.zeros(entry.grid.shape, np.uint8)
    corrections = entry.corrections()
    if corrections is None:
        return SavedCorrections(hand, [], [], 0)
    entries = corrections.entries().entries
    for top in range(0, hand.shape[0], TILE):
        rows = slice(top, top + TILE)
        stored = corrections[rows] + np.uint8(1)  # 255, the study's "nothing", becomes 0
        if stored.any():  # rows that are never written to take no memory
            hand[rows] = stored
    undo, redo = timeline(entries)
    last = max((found.sequence for found in entries), default=0)
    return SavedCorrections(hand, undo, redo, last, corrections.problems())


@dataclass(frozen=True)
class _Request:
    entry: StudySlide
    entries: tuple[Entry, ...]
    known: int
    compact: bool = False


@dataclass(frozen=True)
class _Written:
    sequence: int
    foreign: tuple[Entry, ...]


class CorrectionsSaver:
    """Appends every step of an `EditableMask` to a study's journal.

    What cannot be written stays here and is tried again, in order; what others have written meanwhile is shown.

    Parameters
    ----------
    mask : EditableMask
    entry : StudySlide
    runner : Runner
    held : SavedCorrections
        What ``mask`` began with.

    Attributes
    ----------
    known : int
        Number of the last entry of the journal that ``mask`` shows.
    saved : Signal
        Emitted with True when everything is on disk, with False as soon as something is not.
    """

    saved = Signal(bool)

    def __init__(self, mask: EditableMask, entry: StudySlide, runner: Runner, held: SavedCorrections) -> None:
        self._mask, self._entry, self.known = mask, entry, held.sequence
        self._queue = list(held.pending)
        self._writing = 0
        self._wrote = False
        self._said = ""
        self._stamp: tuple[int, int] | None = None
        self._work, self._watching = Latest(runner), Latest(runner)
        self._timer, self._retry = runner.timer(DELAY_S, self._write), runner.timer(RETRY_S, self._write)
        mask.stepped.connect(self._on_stepped)
        if self._queue:
            self._timer.start()

    @property
    def all_saved(self) -> bool:
        """Whether the study holds every correction."""
        return not self._queue

    @property
    def state(self) -> str:
        """In a word: "none" where nobody has corrected, "saving…" or "saved"."""
        if self._queue:
            return "saving…"
        return "saved" if self.known else "none"

    def corrections(self) -> SavedCorrections:
        """The corrections as they are now, for a mask that takes this one's place."""
        self._mask.commit()
        mask = self._mask
        return SavedCorrections(mask.hand, mask.undo_steps, mask.redo_steps, self.known, pending=list(self._queue))

    @property
    def problem(self) -> str:
        """Why corrections are not on disk, in a sentence; empty if they are, or about to be."""
        return self._said

    def flush(self) -> None:
        """Write what is not written yet, now, in this thread; an error is told, and the steps stay in the queue."""
        self._timer.stop()
        self._retry.stop()
        self._watching.cancel()
        self._mask.commit()
        self._work.finish()
        if self._queue or self._wrote:
            try:
                self._on_written(write_corrections(self._request(compact=True), InlineControl()))
            except HistodistillError as error:
                self._on_failed(error)
                self._retry.stop()

    def look(self) -> None:
        """Show what others have written to the study."""
        if not self._work.busy:
            self._write()

    def look_if_changed(self) -> None:
        """The same, unless the journal is as it was at the last look; a folder that hangs holds no window."""
        if not self._work.busy and not self._watching.busy:
            self._watching.start(ThreadJob(_stamp_of, self._entry), done=self._on_stamp)

    def _on_stamp(self, stamp: tuple[int, int] | None) -> None:
        if stamp != self._stamp and not self._work.busy:
            self._stamp = stamp
            self._write()

    def _on_stepped(self, entry: Entry) -> None:
        self._queue.append(entry)
        self.saved.emit(False)
        if not self._timer.active and not self._work.busy:
            self._timer.start()

    def _request(self, *, compact: bool = False) -> _Request:
        self._writing = len(self._queue)
        return _Request(self._entry, tuple(self._queue), self.known, compact)

    def _write(self) -> None:
        if not self._work.busy:
            job = ThreadJob(write_corrections, self._request())
            self._work.start(job, done=self._on_written, failed=self._on_failed)

    def _on_written(self, written: _Written) -> None:
        self._wrote = self._wrote or self._writing > 0
        if written.foreign:
            self._mask.commit()
            self._mask.take_over(written.foreign, self._queue)  # ours come after them in the journal
        del self._queue[: self._writing]
        self._writing, self._said, self.known = 0, "", written.sequence
        if self._queue:
            self._timer.start()
        else:
            self.saved.emit(True)

    def _on_failed(self, error: Exception) -> None:
        if str(error) != self._said:  # say it once, not at every try
            self._said = str(error)
            tell(error)
        self._writing = 0
        self._retry.start()
        self.saved.emit(False)


def _stamp_of(entry: StudySlide, control: JobControl) -> tuple[int, int] | None:
    control.progress(0, 0)
    return entry.all_corrections().stamp()


def write_corrections(request: _Request, control: JobControl) -> _Written:
    """Append steps to the journal of a slide, and find what others appended."""
    control.progress(0, 1)
    corrections = request.entry.all_corrections()
    if request.entries:
        written, foreign = corrections.append(request.entries, request.known)
    else:
        written, foreign = [], corrections.since(request.known)
    if request.compact:
        corrections.compact()
    last = max([request.known, *(entry.sequence for entry in (*foreign, *written))])
    return _Written(last, tuple(foreign))
