"""The simulated annotator at the tool's own controllers: strokes on a slide whose truth is known, rounds in between."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel

from napari_histodistill.distill.annotator import next_stroke
from napari_histodistill.errors import HistodistillError
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import TUMOUR
from napari_histodistill.study import SlideLabel
from napari_histodistill.viewer.correct import BrushUnit, Tool
from napari_histodistill.viewer.headless import HeadlessRunner
from napari_histodistill.viewer.layers import Role, add_layer, slide_layer
from napari_histodistill.viewer.slides import SlideViews

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_histodistill.viewer.distil import DistilSettings
    from napari_histodistill.viewer.slide_view import OpenSlideView

RADIUS_UM = 30.0


class SlideAnnotator:
    """Opens a slide in a viewer without a window, runs the teacher, paints with the brush, distils.

    Parameters
    ----------
    path : Path
        The slide.
    truth : bool (h, w)
        Its tumour, on any grid over the slide.
    study : Path
        Folder of the study; one with a result is gone on with.
    """

    def __init__(self, path: Path, truth: NDArray[np.bool_], study: Path) -> None:
        self._runner, self._viewer = HeadlessRunner(), ViewerModel()
        self._views = SlideViews(self._viewer, self._runner)
        self._viewer.layers.selection.active = add_layer(self._viewer, slide_layer(open_slide(path)))
        assert self._views.current is not None
        self.view: OpenSlideView = self._views.current
        self.view.teacher.choose_study(study)
        self._settle()
        if self.view.teacher.result is None:
            self.view.teacher.run()
            self._settle()
        assert self.view.teacher.result is not None
        self.mask = self.view.teacher.result.mask
        height, width = self.mask.shape
        rows, columns = (
            ((np.arange(size) + 0.5) * truth.shape[axis] / size).astype(int)
            for axis, size in enumerate((height, width))
        )
        self.truth: NDArray[np.bool_] = truth[np.ix_(rows, columns)]
        self._inside = self.view.teacher.result.inside_tissue((slice(0, height), slice(0, width)))
        self.strokes = 0

    @property
    def settings(self) -> DistilSettings:
        """What the Distil dock would let a person choose."""
        return self.view.distil.settings

    @property
    def found(self) -> NDArray[np.bool_]:
        """Tumour on screen, corrections laid over: what the last round says, or the teacher."""
        prediction = self.view.distil.prediction
        shown = prediction.data if prediction is not None and self.view.distil.shown is not None else self.mask.data
        found: NDArray[np.bool_] = shown == TUMOUR
        return found

    def annotate(self, until: int) -> None:
        """Make strokes, each through the largest error that is left, until there were so many."""
        radius = RADIUS_UM / float(np.mean(self._pixel_um))
        while self.strokes < until:
            by_hand = np.where(self.mask.hand == 0, np.uint8(255), self.mask.hand - np.uint8(1))
            found = np.where(self._inside, self.found, self.truth)
            stroke = next_stroke([found], [self.truth], [by_hand], radius)
            if stroke is None:
                return
            control = self.view.correct
            control.pick(Tool.BRUSH, stroke.value)
            layer: Any = self.view.layer(Role.PSEUDO_MASK)
            for number, (row, column, wide) in enumerate(stroke.dabs, start=1):
                across = max(1, 2 * int(wide) - 1)  # px, inside the error with all of its width
                control.set_brush(across * min(self._pixel_um), BrushUnit.UM)
                layer.paint((row, column), stroke.value, number == len(stroke.dabs))
            self.strokes += 1
        self._settle()

    def distil(self) -> str:
        """Start the rounds as the Distil dock does and wait for them; gives the outcome of the last."""
        if self.view.distil.history.label is SlideLabel.UNKNOWN:
            self.view.distil.set_label(SlideLabel.TUMOUR)
        self.view.distil.start()
        self._settle()
        return self.view.distil.history.rounds[-1].outcome

    def point(self) -> dict[str, Any]:
        """Where the curve stands: strokes, their share of the tissue, Dice on screen and where nothing was painted."""
        by_hand = self.mask.hand > 0
        return {
            "strokes": self.strokes,
            "percent_of_tissue": 100 * np.count_nonzero(by_hand) / np.count_nonzero(self._inside),
            "dice": dice(self.found, self.truth, self._inside),
            "dice_not_painted": dice(self.found, self.truth, self._inside & ~by_hand),
            "shown": "the teacher" if self.view.distil.shown is None else f"round {self.view.distil.shown}",
        }

    def close(self) -> None:
        """Write everything and close the slide."""
        self._views.close()

    @property
    def _pixel_um(self) -> tuple[float, float]:
        assert self.view.teacher.result is not None
        return self.view.teacher.result.entry.grid.pixel_size_um

    def _settle(self) -> None:
        """Let time pass; a job that failed ends the script."""
        self._runner.settle()
        if self._runner.errors:
            raise HistodistillError(str(self._runner.errors[0])) from self._runner.errors[0]


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_], where: NDArray[np.bool_]) -> float:
    """Dice of two masks in part of a grid."""
    both = np.count_nonzero(found & truth & where)
    return 2 * both / max(1, np.count_nonzero(found & where) + np.count_nonzero(truth & where))


def curve(annotator: SlideAnnotator, strokes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Points of the curve: the teacher, then rounds after so many strokes in all."""
    points = [{**annotator.point(), "outcome": "teacher"}]
    for until in strokes:
        annotator.annotate(until)
        points.append({**annotator.point(), "outcome": "painted"})
        outcome = annotator.distil()
        points.append({**annotator.point(), "outcome": outcome})
    return points
