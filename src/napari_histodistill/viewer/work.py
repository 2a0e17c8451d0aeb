"""Background work as controllers see it: jobs whose news arrive on the main thread, timers, one job at a time.

The widgets bring a `Runner` made of Qt; nothing here needs one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from napari.utils.notifications import show_error

from napari_histodistill.errors import HistodistillError, printable
from napari_histodistill.jobs import Job, JobFailedError, JobState, Progress

logger = logging.getLogger(__name__)

AnyJob: TypeAlias = Job[Any, Any]
OnProgress: TypeAlias = Callable[[Progress], None]
OnDone: TypeAlias = Callable[[Any], None]
OnFailed: TypeAlias = Callable[[Exception], None]


class Timer(Protocol):
    """A single-shot timer; `start` while it runs begins its time anew."""

    def start(self) -> None:
        """Call the function once the time has passed."""

    def stop(self) -> None:
        """Do not call it."""

    @property
    def active(self) -> bool:
        """Whether a call is due."""


class Runner(Protocol):
    """Runs jobs and timers beside the main thread, and calls back on it."""

    def start(self, job: AnyJob, *, progress: OnProgress, done: OnDone, failed: OnFailed) -> None:
        """Start a job. ``failed`` gets JobCancelled after a cancel."""

    def timer(self, seconds: float, function: Callable[[], None]) -> Timer:
        """A timer that calls ``function`` on the main thread."""


class Latest:
    """At most one job of a kind: a newer one cancels the older, and what still comes from the older is dropped."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.job: AnyJob | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self.job is not None

    def start(
        self,
        job: AnyJob,
        *,
        done: OnDone,
        progress: OnProgress = lambda _progress: None,
        failed: OnFailed | None = None,
    ) -> None:
        """Start ``job``; unless ``failed`` is given, an error is shown to the user."""
        self.cancel()
        self.job = job

        def if_current(callback: Callable[[Any], None], *, last: bool) -> Callable[[Any], None]:
            def call(news: Any) -> None:
                if self.job is job:
                    if last:
                        self.job = None
                    callback(news)

            return call

        self._runner.start(
            job,
            progress=if_current(progress, last=False),
            done=if_current(done, last=True),
            failed=if_current(failed or tell, last=True),
        )

    def pause(self) -> None:
        """Hold the job, or let it go on if it is held."""
        if self.job is not None:
            if self.job.state is JobState.PAUSED:
                self.job.resume()
            else:
                self.job.pause()

    def finish(self) -> None:
        """Wait for the job here and drop what it says; its error, if any, goes to the log."""
        job, self.job = self.job, None
        if job is not None:
            try:
                job.wait()
            except (HistodistillError, JobFailedError):
                logger.exception("background work failed")

    def cancel(self) -> None:
        """Ask the job to stop; whatever it still says is dropped."""
        if self.job is not None:
            self.job.cancel()
            self.job = None


def tell(error: Exception) -> None:
    """Show an error as one sentence in napari; details of one that no user caused go to the log."""
    if isinstance(error, HistodistillError):
        show_error(shown_in_napari(str(error)))
        return
    details = error.details if isinstance(error, JobFailedError) else ""
    logger.error("%s\n%s", error, details, exc_info=None if details else error)
    said = shown_in_napari(printable(str(error)))
    show_error(f"Something went wrong inside napari-histodistill ({said}): please report it with the log.")


def shown_in_napari(text: str) -> str:
    """A text for napari's notifications, which take tags, such as in the name of a file, for markup."""
    return text.replace("<", "\u2039").replace(">", "\u203a")
