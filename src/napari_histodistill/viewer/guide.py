"""What to do next, in a line for each dock, and what a report of an error says of the open slide; no names, no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from napari_histodistill.nets.card import bundled_models
from napari_histodistill.study import SlideLabel
from napari_histodistill.viewer.teacher import TeacherState

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_histodistill.viewer.slide_view import OpenSlideView

NO_SLIDE: Final = "Open a slide first: in the Slide dock, or drag a file onto the window."


def next_step(dock: str, view: OpenSlideView | None) -> str:
    """What to do next in a dock.

    Parameters
    ----------
    dock : str
        Its name: "Slide", "Teacher", "Correct", "Distil", "Review" or "Export"; "Study" says it itself.
    view : OpenSlideView or None
        The current slide.

    Returns
    -------
    str
        A sentence, or an empty one where the dock itself says what is missing.
    """
    if view is None:
        return "Open a slide of yours, or load the sample to try everything out." if dock == "Slide" else ""
    guide = _GUIDES.get(dock)
    return "" if guide is None else guide(view)


def _in_slide(view: OpenSlideView) -> str:
    if view.slide.mpp is None:
        return "Next: enter the pixel size and press Set. Areas and the model depend on it."
    if view.tissue.busy:
        return "You can look around meanwhile."
    if view.tissue.mask is None:
        return "Next: Find tissue, or go on to the Teacher dock, which does it too."
    return "Next: check that blue covers the tissue, then go on to the Teacher dock."


_IN_TEACHER: Final = {
    TeacherState.NO_MPP: "",
    TeacherState.READY: "Next: read what the model is for, then press Run.",
    TeacherState.TISSUE: "You can look around meanwhile.",
    TeacherState.RUNNING: "You can look around meanwhile: the mask comes block by block, first where you look.",
    TeacherState.PAUSED: "Next: Go on, or Cancel; what was computed is kept.",
    TeacherState.STOPPING: "",
    TeacherState.PARTIAL: "Next: Resume goes on where it stopped.",
    TeacherState.DONE: "Next: move the threshold until the mask looks right, then correct it.",
    TeacherState.STALE: "Next: Run again; your corrections stay.",
}


def _in_correct(view: OpenSlideView) -> str:
    if view.correct.reason:
        return ""
    if view.correct.proposing or view.correct.proposal is not None:
        return "Next: look at what would change on the slide, then Apply or Drop."
    if not view.correct.undo_text:
        return "Next: choose Tumour or Normal and paint where the mask is wrong; a few strokes will do."
    return "Next: paint on, or go to the Distil dock to let the model learn from this."


def _in_distil(view: OpenSlideView) -> str:
    control = view.distil
    if control.reason:
        return ""
    if control.state.busy:
        return "You can go on painting: it goes into the next round."
    if control.history.rounds:
        if control.history.rounds[-1].outcome == "not better":
            return "No better on your corrections. Next: correct more where it is wrong, then Go on; or export."
        return "Next: compare, choose a round under History and take it; then correct on, or export."
    if control.history.label is SlideLabel.UNKNOWN:
        return "Next: say what this slide is, then press Start."
    return "Next: press Start. You can go on painting meanwhile."


def _in_review(view: OpenSlideView) -> str:
    if view.review.reason:
        return ""
    if view.audit.patch is not None:
        return "Next: paint what is wrong in the square, or say that it is right (Y)."
    if view.audit.unlabelled:
        return "Next: Label patches, as many as you like; the figures come with them."
    if view.review.place is not None:
        return "Next: correct what is wrong in the frame, then Next (J) again."
    return "Next: Next (J) flies to a place worth correcting; or draw patches to learn how good the mask is."


def _in_export(view: OpenSlideView) -> str:
    control = view.export
    if control.problem or control.state.busy:
        return ""
    if control.preview is not None:
        return "Next: look at the preview on the slide, then Apply or Discard."
    if control.written:
        return "Done. Show files opens the folder."
    return "Next: choose what and as what, then press Export."


_GUIDES: Final[dict[str, Callable[[OpenSlideView], str]]] = {
    "Slide": _in_slide,
    "Teacher": lambda view: _IN_TEACHER[view.teacher.state],
    "Correct": _in_correct,
    "Distil": _in_distil,
    "Review": _in_review,
    "Export": _in_export,
}


def state_for_report(view: OpenSlideView | None) -> dict[str, str]:
    """What helps to understand an error on a slide, without a name: format, sizes, states, settings."""
    if view is None:
        return {"slide": "none open"}
    slide, begun = view.slide, view.__dict__  # a control is made when it is first asked for: a report makes none
    facts = {
        "slide": f"{slide.format}, {slide.shape[1]} x {slide.shape[0]} px, {len(slide.levels)} levels, "
        f"mpp {slide.mpp}, {slide.unreadable} unreadable tiles",
        "layers": ", ".join(type(layer).__name__ for layer in view.viewer.layers),
    }
    if "tissue" in begun:
        facts["tissue"] = f"{'not found' if view.tissue.mask is None else 'found'}, {view.tissue.settings}"
    if "teacher" in begun:
        teacher, mask = view.teacher, view.teacher.mask_settings
        model = teacher.model if teacher.model in bundled_models() else "of the user"
        facts["teacher"] = (
            f"{teacher.state.name}, model {model}, device {teacher.device}, threshold {mask.threshold:g}, "
            f"smoothing {mask.smoothing_um:g} µm, support {mask.support:g}"
        )
    if "distil" in begun:
        outcomes = ", ".join(done.outcome for done in view.distil.history.rounds) or "none"
        facts["distil"] = f"{view.distil.state.name}, {view.distil.settings}, rounds: {outcomes}"
    if "export" in begun:
        facts["export"] = f"{view.export.state.name}, {view.export.format}"
    return facts
