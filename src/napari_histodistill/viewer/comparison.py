"""Where two rounds of a distillation say different things of a slide, as a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from psygnal import Signal

from napari_histodistill.errors import HistodistillError
from napari_histodistill.export.source import round_name
from napari_histodistill.jobs import ThreadJob
from napari_histodistill.slide.labels import TUMOUR
from napari_histodistill.viewer.display import show_thumbnail, show_window
from napari_histodistill.viewer.geometry import visible_window
from napari_histodistill.viewer.history import PredictionRequest, open_prediction
from napari_histodistill.viewer.kept import KeptLayer
from napari_histodistill.viewer.layers import ADDED, REMOVED, Role, comparison_layer
from napari_histodistill.viewer.masking import MaskBlock, MaskRequest, blocks_of, compute_block, nearest_first
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Labels

    from napari_histodistill.jobs import JobControl, Progress
    from napari_histodistill.nets.masking import MaskSettings
    from napari_histodistill.study import Run
    from napari_histodistill.viewer.editing import Mask, Window
    from napari_histodistill.viewer.result import ResultView
    from napari_histodistill.viewer.slide_view import OpenSlideView

NOTHING: Final[tuple[int, ...]] = ()


class NotPredictedError(HistodistillError):
    """A round that says nothing of the slide."""


@dataclass(frozen=True)
class CompareRequest:
    """What `compare_rounds` needs: two predictions, the older first, and how they become masks, see `MaskRequest`."""

    rounds: tuple[PredictionRequest, PredictionRequest]
    result: ResultView
    settings: MaskSettings
    seen: Window


def compare_rounds(request: CompareRequest, control: JobControl) -> None:
    """Compare two rounds block by block, what is seen first; each `MaskBlock` is the payload of a report.

    Raises
    ------
    NotPredictedError
        If the slide has no prediction of one of them.
    """
    masks = []
    for asked in request.rounds:
        run = open_prediction(asked, control)
        if run is None:
            raise NotPredictedError(
                f"This slide has no prediction of {round_name(asked.number)}: choose rounds that predicted it."
            )
        masks.append(_masks_of(run, request))
    windows = nearest_first(blocks_of(request.result.mask.shape), request.seen)
    for number, window in enumerate(windows, start=1):
        control.checkpoint()
        before, after = (compute_block(mask, window).mask == TUMOUR for mask in masks)
        difference = np.zeros(before.shape, np.uint8)
        difference[after & ~before] = ADDED
        difference[before & ~after] = REMOVED
        control.progress(number, len(windows), payload=MaskBlock(window, difference))


def _masks_of(run: Run, request: CompareRequest) -> MaskRequest:
    result, settings = request.result, request.settings
    return MaskRequest(
        run.probability.levels[0],
        result.tissue_on_grid(run),
        settings,
        result.entry.grid.pixel_size_um,
        (),
    )


class Comparison:
    """Compares two rounds on one slide in a viewer.

    Parameters
    ----------
    view : OpenSlideView

    Attributes
    ----------
    rounds : tuple of int
        Those compared, the older first; empty if none are.
    changed : Signal
        Something that a widget shows has changed.
    """

    changed = Signal()

    def __init__(self, view: OpenSlideView) -> None:
        self._view = view
        self.rounds = NOTHING
        self._folder: Path | None = None
        self._result: ResultView | None = None
        self._made_with: tuple[MaskSettings, int] | None = None
        self._work = Latest(view.runner)
        self._shown = KeptLayer(view, Role.COMPARISON)
        view.teacher.changed.connect(self._on_change)
        view.distil.changed.connect(self._on_change)

    @property
    def layer(self) -> Labels | None:
        """The layer of the difference, None if there is none."""
        return self._shown.layer

    def compare(self, first: int, second: int) -> None:
        """Show where two rounds differ, `FIRST_TEACHER` for the first teacher; corrected pixels do not."""
        self.hide()
        result, folder = self._view.teacher.result, self._view.distil.history.folder
        if result is None or folder is None or first == second:
            return
        self.rounds, self._result, self._folder = (min(first, second), max(first, second)), result, folder
        self._difference: Mask = np.zeros(result.mask.shape, np.uint8)
        self.data: Mask = np.zeros_like(self._difference)
        data = comparison_layer(self._view.slide, self._view.frame, self.data)
        layer = self._shown.show(data)
        layer.editable = False
        older, newer = map(round_name, self.rounds)
        layer.name = f"difference: {newer} against {older}"
        result.mask.edited.connect(self._lay_over)
        self._compute()
        self.changed.emit()

    def hide(self) -> None:
        """Take the layer away."""
        self._work.cancel()
        if self._result is not None:
            self._result.mask.edited.disconnect(self._lay_over, missing_ok=True)
        self.rounds, self._result = NOTHING, None
        self._shown.put_away()
        self.changed.emit()

    def _compute(self) -> None:
        result, folder = self._result, self._folder
        assert result is not None
        assert folder is not None
        older, newer = (PredictionRequest(result.entry, f"{folder.name}-{n:04d}", n) for n in self.rounds)
        self._made_with = _made_with(result)
        layer = self.layer
        seen = visible_window(layer) if layer is not None else (slice(0, 1), slice(0, 1))
        request = CompareRequest((older, newer), result, result.settings, seen)
        self._work.start(
            ThreadJob(compare_rounds, request), progress=self._on_block, done=self._on_done, failed=self._on_failed
        )

    def _on_block(self, progress: Progress) -> None:
        block = progress.payload
        if isinstance(block, MaskBlock):
            self._difference[block.window] = block.mask
            self._lay_over(block.window)

    def _on_done(self, _result: None) -> None:
        if self.layer is not None:
            show_thumbnail(self.layer)

    def _on_failed(self, error: Exception) -> None:
        self.hide()
        tell(error)

    def _lay_over(self, window: Window) -> None:
        """What a person set is the same in every round."""
        if self._result is not None and self.layer is not None:
            self.data[window] = np.where(self._result.mask.hand[window] > 0, np.uint8(0), self._difference[window])
            show_window(self.layer, window)

    def _on_change(self) -> None:
        """Another result or distillation ends it; other settings of the mask or tissue are followed."""
        if not self.rounds:
            return
        if self._view.teacher.result is not self._result or self._view.distil.history.folder != self._folder:
            self.hide()
        elif self._result is not None and _made_with(self._result) != self._made_with:
            self._compute()

    def close(self) -> None:
        """Stop the work."""
        self._work.cancel()


def _made_with(result: ResultView) -> tuple[MaskSettings, int]:
    return result.settings, id(result.tissue_on_grid().mask)
