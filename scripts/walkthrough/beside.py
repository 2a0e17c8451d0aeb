"""Measurements beside the story, each in a process and a window of its own: bare napari, and strokes on a large grid.

A second window in one process would share vispy's state with the first, and its memory would count as the tool's.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from walkthrough.bare import drive_bare
from walkthrough.hand import Hand, WaitedInVainError
from walkthrough.painting import compare_painting
from walkthrough.watchdog import Hold, Watchdog

if TYPE_CHECKING:
    from walkthrough.story import Plan

SIZE = (1600, 1000)
PATIENCE_S = 900


def bare_holds(plan: Plan, grid: tuple[int, int]) -> list[Hold]:
    """What bare napari holds its event loop for, see `drive_bare`."""
    return [Hold(**hold) for hold in _wait(_start("holds", plan, grid))]


def painting(hand: Hand, folder: Path, *, prediction: bool) -> dict[str, Any]:
    """`compare_painting` while the event loop of the story's window goes round."""
    process = _start("painting", folder, prediction)
    hand.wait(lambda: process.poll() is not None, PATIENCE_S, "strokes on a large grid")
    return dict(_wait(process))


def _start(what: str, *arguments: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "walkthrough.beside"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - ourselves
    assert process.stdin is not None
    process.stdin.write(pickle.dumps((what, arguments)))
    process.stdin.close()
    process.stdin = None
    return process


def _wait(process: subprocess.Popen[bytes]) -> Any:
    said, _ = process.communicate(timeout=PATIENCE_S)
    if process.returncode:
        raise WaitedInVainError("A measurement in a process of its own failed; what it said is above.")
    return json.loads(said.splitlines()[-1])


def main() -> None:
    """Do what is asked for on standard input, and say what came of it in a last line of JSON."""
    import napari

    what, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by `_start`
    viewer = napari.Viewer()
    hand = Hand(viewer)
    hand.window.resize(*SIZE)
    hand.pause(0.5)
    said: Any
    if what == "holds":
        watchdog = Watchdog()
        drive_bare(viewer, arguments[0], watchdog, arguments[1])
        watchdog.stop()
        said = [asdict(hold) for hold in watchdog.holds]
    else:
        said = compare_painting(viewer, arguments[0], prediction=arguments[1])
    print(json.dumps(said), flush=True)
    viewer.close()


if __name__ == "__main__":
    main()
