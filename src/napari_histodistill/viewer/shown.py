"""Which prediction of a slide is on screen, by its name in the study: what "Review" is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psygnal import Signal

from napari_histodistill.distill.rounds import TEACHER
from napari_histodistill.predict.audit import OWN
from napari_histodistill.study import RunState
from napari_histodistill.viewer.history import FIRST_TEACHER

if TYPE_CHECKING:
    from napari_histodistill.viewer.history import History
    from napari_histodistill.viewer.result import ResultView
    from napari_histodistill.viewer.slide_view import OpenSlideView

NO_RESULT: Final = "There is no prediction on this slide yet: run the teacher first."
NOT_WHOLE: Final = "The prediction of this slide is not all there yet: wait for it, or let it go on."


@dataclass(frozen=True)
class Shown:
    """A whole prediction.

    Attributes
    ----------
    name : str
        In `StudySlide.predictions`, or `OWN`.
    key : str
        Tells it from every other of this slide, also from the own result of another run.
    teacher : str or None
        The prediction of the model that taught it, by name; None if it is not there.
    """

    name: str
    key: str
    teacher: str | None = None


def shown_prediction(view: OpenSlideView) -> Shown | None:
    """The prediction that is shown on a slide, if it covers the slide."""
    result, distil = view.teacher.result, view.distil
    if result is None:
        return None
    number, history = distil.shown, distil.history
    if number is None or number == FIRST_TEACHER:
        own = OWN if result.run.record.state is RunState.COMPLETE else None
        name = own if number is None else _first_teacher(result, history)
        key = f"runs/{result.run.folder.name}" if name == OWN else f"predictions/{name}"
        return None if name is None else Shown(name, key)
    name = history.prediction_name(number)
    if name is None or number not in history.predicted or number > len(history.rounds):
        return None
    taught_by = history.rounds[number - 1].teacher
    if taught_by == TEACHER:
        return Shown(name, f"predictions/{name}", _first_teacher(result, history))
    of = int(taught_by.rsplit("/", 1)[1])
    return Shown(name, f"predictions/{name}", history.prediction_name(of) if of in history.predicted else None)


def _first_teacher(result: ResultView, history: History) -> str | None:
    """The name of what the first teacher says, which lies beside the rounds once one of them was taken as the mask."""
    if FIRST_TEACHER in history.predicted:
        return history.prediction_name(FIRST_TEACHER)
    record = result.run.record
    return OWN if record.state is RunState.COMPLETE and "adopted" not in record.settings else None


def why_none(view: OpenSlideView) -> str:
    """Why there is no whole prediction on screen, in a sentence; empty if there is one."""
    if view.teacher.result is None:
        return NO_RESULT
    return "" if shown_prediction(view) is not None else NOT_WHOLE


class OfShown:
    """A controller of "Review": follows the result of a slide, and which prediction of it is shown.

    Parameters
    ----------
    view : OpenSlideView

    Attributes
    ----------
    changed : Signal
        Something that a widget shows has changed.
    """

    changed = Signal()

    def __init__(self, view: OpenSlideView) -> None:
        self._view = view
        self._result: ResultView | None = None

    def _begin(self) -> None:
        """Follow from now on."""
        self._view.teacher.changed.connect(self._on_news)
        self._view.distil.changed.connect(self._on_news)
        self._on_news()

    @property
    def reason(self) -> str:
        """Why there is nothing to look at, in a sentence; empty if there may be."""
        return why_none(self._view)

    def _on_news(self) -> None:
        result = self._view.teacher.result
        if result is not self._result:
            self._leave_result()
            self._result = result
        self._on_shown()
        self.changed.emit()

    def _leave_result(self) -> None:
        """Another result comes, or none: write what is not written, take the layers away, forget."""
        raise NotImplementedError

    def _on_shown(self) -> None:
        """Another prediction may be shown, or more of it be known."""
        raise NotImplementedError
