"""Which prediction of a slide is on screen, by its name in the study: what "Review" is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from napari_histodistill.distill.rounds import TEACHER
from napari_histodistill.predict.audit import OWN
from napari_histodistill.study import RunState
from napari_histodistill.viewer.history import FIRST_TEACHER

if TYPE_CHECKING:
    from napari_histodistill.viewer.slides import OpenSlideView

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
        whole = result.run.record.state is RunState.COMPLETE
        return Shown(OWN, f"runs/{result.run.folder.name}") if whole else None
    name = distil.prediction_name(number)
    if name is None or number not in history.predicted or number > len(history.rounds):
        return None
    taught_by, teacher = history.rounds[number - 1].teacher, None
    if taught_by != TEACHER:
        of = int(taught_by.rsplit("/", 1)[1])
        teacher = distil.prediction_name(of) if of in history.predicted else None
    elif "adopted" not in result.run.record.settings:  # else what the teacher said is no longer there
        teacher = OWN
    return Shown(name, f"predictions/{name}", teacher)


def why_none(view: OpenSlideView) -> str:
    """Why there is no whole prediction on screen, in a sentence; empty if there is one."""
    if view.teacher.result is None:
        return NO_RESULT
    return "" if shown_prediction(view) is not None else NOT_WHOLE
