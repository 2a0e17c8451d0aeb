"""Keeps changes of a document of a slide in the study: one after another, in the background, until they are on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import ThreadJob
from napari_histodistill.viewer.saving import RETRY_S
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.study import StudySlide
    from napari_histodistill.viewer.work import Runner

C = TypeVar("C")
R = TypeVar("R")


@dataclass(frozen=True)
class _Request(Generic[C, R]):
    write: Callable[[StudySlide, tuple[C, ...]], R]
    entry: StudySlide
    changes: tuple[C, ...]


def _work(request: _Request[C, R], control: JobControl) -> R:
    control.progress(0, 0, "Keeping changes")
    return request.write(request.entry, request.changes)


class Keeper(Generic[C, R]):
    """Writes changes in order; those that cannot be written wait and are tried again, as strokes are.

    Parameters
    ----------
    runner : Runner
    write : callable
        ``write(entry, changes)`` makes changes on disk; those that are there already it may be given again. Off the
        main thread.
    kept : callable
        Called with what ``write`` gave, after every write in the background.

    Attributes
    ----------
    waiting : list
        Changes that are not on disk, or not yet known to be.
    """

    def __init__(
        self, runner: Runner, write: Callable[[StudySlide, tuple[C, ...]], R], kept: Callable[[R], None]
    ) -> None:
        self._write, self._kept = write, kept
        self.waiting: list[C] = []
        self._entry: StudySlide | None = None
        self._said = ""
        self._work, self._retry = Latest(runner), runner.timer(RETRY_S, self._start)

    def keep(self, entry: StudySlide, change: C) -> None:
        """Have a change on disk soon; before those of another slide come, `leave`."""
        self._entry = entry
        self.waiting.append(change)
        self._start()

    def finish(self) -> None:
        """Have everything on disk now; an error is told, and what it keeps from being written waits on."""
        self._retry.stop()
        self._work.finish()
        if self.waiting and self._entry is not None:
            try:
                self._write(self._entry, tuple(self.waiting))
            except HistodistillError as error:
                self._on_failed(error)
            else:
                self.waiting.clear()

    def leave(self) -> None:
        """The same for good: of what cannot be written nothing is kept, which is told."""
        self._said = ""
        self.finish()
        self._retry.stop()
        self.waiting.clear()

    def _start(self) -> None:
        if self.waiting and self._entry is not None and not self._work.busy:
            self._retry.stop()
            request: Any = _Request(self._write, self._entry, tuple(self.waiting))
            done = partial(self._on_done, len(self.waiting))
            self._work.start(ThreadJob(_work, request), done=done, failed=self._on_failed)

    def _on_done(self, count: int, result: R) -> None:
        del self.waiting[:count]
        self._said = ""
        self._kept(result)
        self._start()

    def _on_failed(self, error: Exception) -> None:
        if str(error) != self._said:  # say it once, not at every try
            self._said = str(error)
            tell(error)
        self._retry.start()
