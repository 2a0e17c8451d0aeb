"""How long the event loop is held, by what, and how much memory the process and its children take."""

from __future__ import annotations

import re
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
from qtpy.QtCore import Qt, QTimer

if TYPE_CHECKING:
    from collections.abc import Iterator

BEAT_MS = 5
NOTED_S, LOOKED_AT_S = 0.03, 0.08
"""Holds from this length on are kept; after this long the main thread's stack is looked at."""


@dataclass
class Hold:
    """A time for which the event loop did not come round.

    Attributes
    ----------
    activity : str
    seconds, cpu_seconds : float
        By the clock, and of the main thread's own work in it: on a busy machine the rest is waiting for a core.
    stack : list of str
        Where the main thread was, innermost last; empty for short ones.
    """

    activity: str
    seconds: float
    cpu_seconds: float
    stack: list[str] = field(default_factory=list)


class Watchdog:
    """A heartbeat in the event loop; late beats are holds. Begins at once, ends with `stop`."""

    def __init__(self) -> None:
        self.activity = self.recent = "start"
        self.holds: list[Hold] = []
        self._main = threading.get_ident()
        self._last, self._cpu = time.perf_counter(), time.thread_time()
        self._stack: list[str] = []
        self._ended = threading.Event()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)
        self._timer.start(BEAT_MS)
        self._looker = threading.Thread(target=self._look, name="walkthrough-watchdog", daemon=True)
        self._looker.start()

    @contextmanager
    def doing(self, activity: str) -> Iterator[None]:
        """Name what is going on."""
        before, self.activity = self.activity, activity
        self.recent = activity
        yield
        self._beat()
        self.activity = before

    @contextmanager
    def own_work(self) -> Iterator[None]:
        """Work of the walkthrough itself, such as a screenshot: no hold."""
        self._beat()
        yield
        self._begin()

    def longest(self, activity: str) -> Hold:
        """The longest hold of an activity."""
        return max(
            (hold for hold in self.holds if hold.activity == activity),
            key=lambda hold: hold.seconds,
            default=Hold(activity, 0.0, 0.0),
        )

    def activities(self) -> list[str]:
        """All that were named, in order."""
        return list(dict.fromkeys(hold.activity for hold in self.holds))

    def stop(self) -> None:
        """End the heartbeat."""
        self._timer.stop()
        self._ended.set()
        self._looker.join()

    def _begin(self) -> None:
        self._stack = []
        self._last, self._cpu = time.perf_counter(), time.thread_time()

    def _beat(self) -> None:
        seconds = time.perf_counter() - self._last - BEAT_MS / 1000
        if seconds > NOTED_S:
            self.holds.append(Hold(self.activity, seconds, time.thread_time() - self._cpu, self._stack))
        self._begin()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            if time.perf_counter() - self._last > LOOKED_AT_S and not self._stack:
                frame = sys._current_frames().get(self._main)  # noqa: SLF001 - the one way to see another thread
                self._stack = [_line_of(entry) for entry in traceback.extract_stack(frame)[-14:]]


def _line_of(entry: traceback.FrameSummary) -> str:
    short = re.sub(r".*/(site-packages|src|scripts|python3[.0-9]*)/", "", entry.filename)
    return f"{short}:{entry.lineno} {entry.name}"


class MemoryGauge:
    """Peak resident memory in bytes, looked at twice a second: of this process, of its children, of both at once."""

    def __init__(self) -> None:
        self.process = self.children = self.together = 0
        self._ended = threading.Event()
        self._counts = True
        self._thread = threading.Thread(target=self._watch, name="walkthrough-memory", daemon=True)
        self._thread.start()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Do not count what a measurement takes."""
        self._counts = False
        yield
        self._counts = True

    def stop(self) -> None:
        """End looking."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(0.5):
            if not self._counts:
                continue
            mine = me.memory_info().rss
            others = sum(_rss(child) for child in me.children(recursive=True))
            self.process, self.children = max(self.process, mine), max(self.children, others)
            self.together = max(self.together, mine + others)


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:  # ended a moment ago
        return 0
