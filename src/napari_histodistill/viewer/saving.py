"""Writes a person's corrections to the study in the background, soon after each stroke."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from psygnal import Signal

from napari_histodistill.jobs import InlineControl, JobControl, ThreadJob
from napari_histodistill.viewer.editing import TILE, clip_window, window_of
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from napari_histodistill.study import StudySlide
    from napari_histodistill.viewer.editing import EditableMask, Mask, Window
    from napari_histodistill.viewer.work import Runner

DELAY_S: Final = 0.7
"""From a stroke to the start of its writing; strokes that follow within this time go along."""


@dataclass(frozen=True)
class _Request:
    entry: StudySlide
    tiles: tuple[tuple[int, int, Mask], ...]


class CorrectionsSaver:
    """Keeps the corrections of an `EditableMask` in a study.

    Whole chunks of the study's array are written, each atomically, so a crash leaves every square as it was before or
    after the last stroke.

    Parameters
    ----------
    mask : EditableMask
    entry : StudySlide
    runner : Runner

    Attributes
    ----------
    saved : Signal
        Emitted with True when everything is on disk, with False as soon as something is not.
    """

    saved = Signal(bool)

    def __init__(self, mask: EditableMask, entry: StudySlide, runner: Runner) -> None:
        self._mask, self._entry = mask, entry
        self._dirty: set[tuple[int, int]] = set()
        self._writing: set[tuple[int, int]] = set()
        self._work = Latest(runner)
        self._timer = runner.timer(DELAY_S, self._write)
        mask.edited.connect(self._on_edited)

    @property
    def all_saved(self) -> bool:
        """Whether the study holds every correction."""
        return not self._dirty and not self._writing

    def flush(self) -> None:
        """Write what is not written yet, now, in this thread."""
        self._timer.stop()
        self._work.finish()
        self._dirty |= self._writing
        if self._dirty:
            write_corrections(self._snapshot(), InlineControl())
            self._writing.clear()
            self.saved.emit(True)

    def _on_edited(self, window: Window) -> None:
        rows, columns = window
        self._dirty.update(
            (row, column)
            for row in range(rows.start // TILE, -(-rows.stop // TILE))
            for column in range(columns.start // TILE, -(-columns.stop // TILE))
        )
        self.saved.emit(False)
        if not self._timer.active and not self._work.busy:
            self._timer.start()

    def _snapshot(self) -> _Request:
        self._writing, self._dirty = self._dirty, set()
        tiles = []
        for row, column in sorted(self._writing):
            window = clip_window(window_of(row * TILE, column * TILE, TILE, TILE), self._mask.shape)
            tiles.append((window[0].start, window[1].start, self._mask.hand[window].copy()))
        return _Request(self._entry, tuple(tiles))

    def _write(self) -> None:
        self._work.start(ThreadJob(write_corrections, self._snapshot()), done=self._on_written, failed=self._on_failed)

    def _on_written(self, _result: None) -> None:
        self._writing.clear()
        if self._dirty:
            self._timer.start()
        else:
            self.saved.emit(True)

    def _on_failed(self, error: Exception) -> None:
        self._dirty |= self._writing
        self._writing.clear()
        tell(error)


def write_corrections(request: _Request, control: JobControl) -> None:
    """Write squares of hand-set values (0 for none, otherwise the value plus one) into the study."""
    for y, x, hand in request.tiles:
        control.checkpoint()
        request.entry.save_corrections_region(y, x, hand - np.uint8(1))  # 0 - 1 is 255, the study's "nothing"


def read_corrections(entry: StudySlide) -> Mask:
    """What a person set on a slide of a study, as `EditableMask` keeps it: 0 for none, otherwise the value plus one."""
    hand = np.zeros(entry.grid.shape, np.uint8)
    pyramid = entry.corrections()
    if pyramid is not None:
        for top in range(0, hand.shape[0], TILE):
            rows = slice(top, top + TILE)
            stored = np.asarray(pyramid.levels[0][rows]) + np.uint8(1)
            if stored.any():  # rows that are never written to take no memory
                hand[rows] = stored
    return hand
