"""What is said of slides, tumour or normal, is written to the study in the background."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from napari.utils.notifications import show_warning

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import InlineControl, ThreadJob
from napari_histodistill.study import StudySlide
from napari_histodistill.viewer.work import Latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.study import SlideLabel
    from napari_histodistill.viewer.work import Runner

    Labels: TypeAlias = tuple[tuple[Path, SlideLabel], ...]


class LabelWriter:
    """Writes labels of slides one job at a time; of what is said of a slide meanwhile the last counts.

    Parameters
    ----------
    runner : Runner
    written : callable
        ``written(labels, problem)`` after each job: the labels by folders of slides, and what went wrong, which the
        user has been told, or nothing.
    """

    def __init__(self, runner: Runner, written: Callable[[Labels, str], None]) -> None:
        self._written, self._work = written, Latest(runner)
        self._waiting: dict[Path, SlideLabel] = {}

    @property
    def busy(self) -> bool:
        """Whether something is not on disk yet."""
        return self._work.busy

    def write(self, labels: Iterable[tuple[Path, SlideLabel]]) -> None:
        """Keep what is said of slides, by their folders in the study."""
        self._waiting.update(labels)
        self._write()

    def finish(self) -> None:
        """Have everything on disk, now; nobody is called back."""
        self._work.finish()
        problem = set_labels(self._taken(), InlineControl())
        if problem:
            show_warning(problem)

    def _taken(self) -> Labels:
        labels = tuple(self._waiting.items())
        self._waiting.clear()
        return labels

    def _write(self) -> None:
        if self._waiting and not self._work.busy:
            labels = self._taken()
            self._work.start(ThreadJob(set_labels, labels), done=partial(self._on_written, labels))

    def _on_written(self, labels: Labels, problem: str) -> None:
        if problem:
            show_warning(problem)
        self._write()
        self._written(labels, problem)


def set_labels(labels: Labels, control: JobControl) -> str:
    """Keep what is said of slides, by their folders; gives what went wrong, or nothing."""
    problem = ""
    for number, (folder, label) in enumerate(labels):
        control.progress(number, len(labels), "Keeping labels")
        try:
            entry = StudySlide.open(folder)
            entry.label = label
            entry.save()
        except HistodistillError as error:
            problem = str(error)
    return problem
