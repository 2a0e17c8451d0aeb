"""What a long computation of this package needs from whoever runs it; a job's control (`jobs`) fits."""

from __future__ import annotations

from typing import Any, Protocol


class Control(Protocol):
    """Progress out, cancel in."""

    def progress(self, done: int, total: int, message: str = "", payload: Any = None) -> None:
        """Say how much of the work is done."""

    def checkpoint(self) -> None:
        """Wait while paused; raise if cancelled."""


class Silent:
    """A control for callers that want neither progress nor cancel."""

    def progress(self, done: int, total: int, message: str = "", payload: Any = None) -> None:
        """Drop the news."""

    def checkpoint(self) -> None:
        """Go on."""
