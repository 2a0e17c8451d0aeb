"""Long changes to a mask in short pieces on the main thread, so that the window goes on between them."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_histodistill.viewer.editing import Window
    from napari_histodistill.viewer.work import Runner

SLICE_S: Final = 0.03
"""How long a piece may take, two frames: the canvas is drawn between pieces, which takes longer."""


class Pacer:
    """Runs iterators of `EditableMask` to their end, one after another; a short one before `run` returns.

    Parameters
    ----------
    runner : Runner
    show : callable
        Draws a window anew.
    """

    def __init__(self, runner: Runner, show: Callable[[Window], None]) -> None:
        self._show = show
        self._work: deque[tuple[Iterator[Window], Callable[[], None]]] = deque()
        self._timer = runner.timer(0, self._go)

    @property
    def busy(self) -> bool:
        """Whether something is under way."""
        return bool(self._work)

    def run(self, windows: Iterator[Window], done: Callable[[], None] = lambda: None) -> None:
        """Begin; ``done`` is called after the end."""
        self._work.append((windows, done))
        if len(self._work) == 1:
            self._go()

    def finish(self) -> None:
        """Bring everything to its end now."""
        self._timer.stop()
        while self._work:
            self._piece(float("inf"))

    def _go(self) -> None:
        self._piece(time.perf_counter() + SLICE_S)
        if self._work:
            self._timer.start()

    def _piece(self, end: float) -> None:
        windows, done = self._work[0]
        try:
            for window in windows:
                self._show(window)
                if time.perf_counter() > end:
                    return
        except Exception:
            self._work.popleft()
            raise
        self._work.popleft()
        done()
