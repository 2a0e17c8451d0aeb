"""Why something cannot be done with a study just now, in a sentence; empty if it can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histodistill.viewer.slide_view import OpenSlideView
    from napari_histodistill.viewer.study import StudyControl
    from napari_histodistill.viewer.study_work import SlideRow

NONE_CHOSEN: Final = "Choose a slide in the list first."


def why_not_add(study: StudyControl) -> str:
    """Why no slide can be added."""
    return "Make or open a study first." if study.folder is None else _why_not_now(study)


def why_not_add_open(study: StudyControl) -> str:
    """Why the slides that are open cannot be added."""
    strangers = study.strangers
    if why_not_add(study):
        return why_not_add(study)
    if not strangers:
        return "The study holds every slide that is open." if study.open_slides else "No slide is open."
    if any(view.slide.mpp is None for view in strangers):
        return "The pixel size of an open slide is unknown: enter it in the Slide dock."
    busy = any(is_busy(view) for view in strangers)
    return "Work on an open slide is under way: wait for it, or stop it." if busy else ""


def why_not_open(study: StudyControl, rows: Sequence[SlideRow]) -> str:
    """Why slides cannot be opened."""
    if study.opening:
        return "A slide is being opened: a moment."
    for row in rows:
        if row.mpp is None:
            return row.problem
        if not row.there:
            return f"{row.name} is not where it was: relink it."
    return "" if rows else NONE_CHOSEN


def why_not_remove(study: StudyControl, rows: Sequence[SlideRow]) -> str:
    """Why slides cannot be taken out."""
    busy = next((row for row in rows if study.busy_with(row)), None)
    if busy is not None:
        return f"Work on {busy.name} is under way: wait for it, or stop it."
    return _why_not_now(study) if rows else NONE_CHOSEN


def why_not_relink(study: StudyControl, rows: Sequence[SlideRow]) -> str:
    """Why it cannot be said where a slide is."""
    if len(rows) != 1:
        return "Choose one slide in the list first."
    return f"{rows[0].name} is where it was." if rows[0].there else _why_not_now(study)


def why_not_search(study: StudyControl) -> str:
    """Why slides that have moved cannot be looked for."""
    return _why_not_now(study) if study.missing else "No slide is missing."


def why_not_restore(study: StudyControl) -> str:
    """Why no slide can be put back."""
    return _why_not_now(study)


def is_busy(view: OpenSlideView) -> bool:
    """Whether something works on a slide, see `work_on`."""
    return bool(work_on(view))


def work_on(view: OpenSlideView) -> str:
    """What is being done on a slide, in words; empty for nothing."""
    if view.has("teacher") and view.teacher.state.busy:
        return "the teacher is running"
    if view.has("distil") and view.distil.state.busy:
        return "learning"
    return "files are read or written" if view.has("export") and view.export.state.busy else ""


def _why_not_now(study: StudyControl) -> str:
    return "Something else is being done with the study: wait, or stop it." if study.busy else ""
