"""How long a piece of work still takes."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ETA_SMOOTHING_S = 20.0
"""Time constant over which the rate behind an ETA is averaged."""


class EtaEstimator:
    """Time to go from a smoothed rate of steps per second.

    The rate is an exponential average over `ETA_SMOOTHING_S` (corrected for its start, so the first
    reports count fully); time spent paused does not count; a new total or a step back starts anew.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._total = -1
        self._restart(0)

    def _restart(self, done: int) -> None:
        self._done, self._time = done, self._clock()
        self._steps = self._seconds = 0.0

    def skip(self, seconds: float) -> None:
        """Leave out ``seconds`` that just went by without work."""
        self._time += seconds

    def update(self, done: int, total: int) -> float | None:
        """Seconds to go after ``done`` of ``total`` steps, or None while unknown."""
        if total != self._total or done < self._done:
            self._total = total
            self._restart(done)
            return None
        now = self._clock()
        elapsed = max(now - self._time, 0.0)
        keep = math.exp(-elapsed / ETA_SMOOTHING_S)
        self._steps = self._steps * keep + (done - self._done)
        self._seconds = self._seconds * keep + elapsed
        self._done, self._time = done, now
        if self._steps <= 0 or self._seconds <= 0:
            return None
        return (total - done) * self._seconds / self._steps
