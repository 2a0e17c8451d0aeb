"""A `Runner` without a window: jobs run to their end where they are started, timers when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_histodistill.viewer.work import AnyJob, OnDone, OnFailed, OnProgress

ROUNDS: Final = 1000
"""After so many rounds of timers something starts itself over and over."""


class HeadlessTimer:
    """A `Timer` that calls its function in `HeadlessRunner.settle`."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function, self.active = function, False

    def start(self) -> None:
        """Be due at the next `settle`."""
        self.active = True

    def stop(self) -> None:
        """Do not call."""
        self.active = False


class HeadlessRunner:
    """Drives the controllers from a script or a test; child processes are real ones.

    Attributes
    ----------
    errors : list of Exception
        Of jobs that failed, which were told to whoever started them too.
    timers : list of HeadlessTimer
        All that were asked for.
    """

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.timers: list[HeadlessTimer] = []

    def start(self, job: AnyJob, *, progress: OnProgress, done: OnDone, failed: OnFailed) -> None:
        """Do a job, and call back from here."""
        events = job.events()
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                done(end.value)
                return
            except Exception as error:  # noqa: BLE001 - every failure of a job goes to whoever started it
                self.errors.append(error)
                failed(error)
                return
            progress(event)

    def timer(self, _seconds: float, function: Callable[[], None]) -> HeadlessTimer:
        """A timer that `settle` calls, however long it was to wait."""
        self.timers.append(HeadlessTimer(function))
        return self.timers[-1]

    def settle(self) -> None:
        """Let time pass until no timer is due."""
        for _ in range(ROUNDS):
            due = [timer for timer in self.timers if timer.active]
            if not due:
                return
            for timer in due:
                timer.active = False
                timer.function()
