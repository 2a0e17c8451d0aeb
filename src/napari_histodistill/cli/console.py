"""What commands do with a terminal: print results, show how far the work is, stop cleanly at Ctrl-C.

Progress is a bar on a terminal and plain lines elsewhere.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from napari_histodistill.errors import printable
from napari_histodistill.jobs import InlineControl, JobControl, Progress

Q = TypeVar("Q")
R = TypeVar("R")

EXIT_SOME_FAILED = 1
"""Exit code where some slides of several failed."""
PLAIN_LINE_S = 5.0
"""Seconds between progress lines where stderr is not a terminal."""


def run_shown(
    work: Callable[[Q, JobControl], R], request: Q, on_progress: Callable[[Progress], None] | None = None
) -> R:
    """Do ``work`` in this thread and show its progress on stderr.

    Parameters
    ----------
    work, request
        As for a job: ``work(request, control)``.
    on_progress
        Called with every report, to print what a command prints of it.

    Raises
    ------
    JobCancelled
        After the first Ctrl-C, once the work has come to a safe place; a second one stops at once.
    """
    with _shown() as show:

        def report(progress: Progress) -> None:
            show(progress)
            if on_progress is not None:
                on_progress(progress)

        control = InlineControl(report)
        with _cancel_on_interrupt(control):
            return work(request, control)


def duration(seconds: float) -> str:
    """Seconds as people say them.

    Examples
    --------
    >>> duration(42.4), duration(65), duration(7380)
    ('42 s', '1 min 5 s', '2 h 3 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """One JSON object, or a line for every entry."""
    if as_json:
        click.echo(json.dumps(result))  # in ASCII: names may hold what a terminal would obey
        return
    width = max(map(len, result))
    for key, value in result.items():
        name = f"{printable(key.replace('_', ' ')):{width}}"
        for line in _lines(value):
            click.echo(f"{name}  {line}")
            name = " " * width


def speaks() -> bool:
    """Whether this process is the one, of those that ``torchrun`` started, that tells what happens."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """A line on stdout, once however many processes there are."""
    if speaks():
        click.echo(printable(line))


def print_payload(progress: Progress) -> None:
    """A line for every finished epoch or round, and what the user should know on stderr."""
    from napari_histodistill.distill import LeftOut
    from napari_histodistill.distill.rounds import Round
    from napari_histodistill.mil.settings import Epoch

    if isinstance(progress.payload, Epoch | Round):
        say(printable(str(progress.payload)))
    elif isinstance(progress.payload, LeftOut):
        click.secho(f"Warning: {printable(str(progress.payload))}", err=True, fg="yellow")


def _lines(value: Any) -> list[str]:
    """A value for people: dictionaries and lists have a line per entry, sizes and intervals one, numbers 4 digits."""
    if isinstance(value, dict):
        return [f"{printable(str(key))}: {' '.join(_lines(entry))}" for key, entry in value.items()]
    if isinstance(value, tuple):
        return [" x ".join(" ".join(_lines(entry)) for entry in value)]
    if isinstance(value, list) and len(value) == 2 and all(isinstance(entry, float) for entry in value):
        return [" to ".join(" ".join(_lines(entry)) for entry in value)]
    if isinstance(value, list):
        return [" ".join(_lines(entry)) for entry in value]
    if isinstance(value, float):
        return [f"{value:.4g}"]
    return ["unknown" if value is None else printable(str(value))]


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    if not speaks():
        yield lambda _progress: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines()
        return
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Bar(*columns, TextColumn("{task.fields[left]}"), console=console, transient=True) as bar:
        task = bar.add_task("", total=None, left="")

        def show(progress: Progress) -> None:
            left = "" if progress.eta is None else f"{duration(progress.eta)} left"
            total = progress.total or None
            bar.update(task, completed=progress.done, total=total, description=printable(progress.message), left=left)

        yield show


class _PlainLines:
    """A line when the message changes or the work ends, else at most one every few seconds."""

    def __init__(self) -> None:
        self._shown = ("", 0, 0)
        self._last = -PLAIN_LINE_S

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        state = (progress.message, progress.done, progress.total)
        finished = progress.total > 0 and progress.done >= progress.total
        too_soon = progress.message == self._shown[0] and not finished and now - self._last < PLAIN_LINE_S
        if too_soon or state == self._shown:
            return
        self._shown, self._last = state, now
        count = f" {progress.done}/{progress.total}" if progress.total else ""
        left = "" if progress.eta is None or finished else f", {duration(progress.eta)} left"
        click.echo(f"{printable(progress.message)}{count}{left}", err=True)


@contextmanager
def _cancel_on_interrupt(control: InlineControl) -> Iterator[None]:
    """Ctrl-C asks the work to stop at its next checkpoint; pressed again it interrupts as usual."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        sys.stderr.write("\nStopping at a safe place; press Ctrl-C again to stop at once.\n")
        control.cancel()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
