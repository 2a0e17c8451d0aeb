"""What the killed processes do: paint as a person does in the viewer, and distil; each logs what is on disk.

Logs are files outside the study. A line is written once the study has what it says, so that whatever a log holds after
a kill was acknowledged. Importing this loads everything, so that processes can be forked from one that is warm.
"""

from __future__ import annotations

import base64
import os
import pickle
import queue
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from napari.components import ViewerModel

from napari_histodistill.distill import StudyRequest, distill_study, find_recipe
from napari_histodistill.distill.rounds import Round, Rounds
from napari_histodistill.distill.study import run_study as _loaded_before_forking
from napari_histodistill.jobs import InlineControl
from napari_histodistill.mil.settings import Epoch
from napari_histodistill.slide import open_slide
from napari_histodistill.viewer.correct import Tool
from napari_histodistill.viewer.layers import Role, add_layer, slide_layer
from napari_histodistill.viewer.slides import SlideViews

__all__ = ["_loaded_before_forking", "distil", "paint"]

PAUSE_S = (0.05, 0.3)
"""Between strokes; people are slower."""
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir", "shutil.rmtree"}


class Log:
    """Lines in a file, each written at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, *said: Any) -> None:
        os.write(self._file, base64.b64encode(pickle.dumps((time.monotonic(), *said))) + b"\n")


def read_log(path: Path) -> list[tuple[Any, ...]]:
    """Whole lines of a log: (time, what, ...)."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [pickle.loads(base64.b64decode(line)) for line in lines]


class Loop:
    """A `Runner` with an event loop of its own, as Qt's is: jobs on threads, news and timers on this one."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._timers: list[LoopTimer] = []

    def start(self, job, *, progress, done, failed) -> None:
        threading.Thread(target=self._supervise, args=(job, progress, done, failed), daemon=True).start()

    def _supervise(self, job, progress, done, failed) -> None:
        try:
            events = job.events()
            while True:
                try:
                    event = next(events)
                except StopIteration as end:
                    self._calls.put(lambda result=end.value: done(result))
                    return
                self._calls.put(lambda event=event: progress(event))
        except Exception as error:  # noqa: BLE001 - every failure of a job goes to whoever started it
            self._calls.put(lambda error=error: failed(error))

    def timer(self, seconds: float, function: Callable[[], None]) -> LoopTimer:
        self._timers.append(LoopTimer(seconds, function))
        return self._timers[-1]

    def run(self, seconds: float = 0.0, until: Callable[[], Any] = lambda: False) -> None:
        """Let things happen for a while, or until a condition holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            for timer in [timer for timer in self._timers if timer.due is not None and timer.due <= time.monotonic()]:
                timer.due = None
                timer.function()
            try:
                self._calls.get(timeout=0.005)()
            except queue.Empty:
                continue


class LoopTimer:
    def __init__(self, seconds: float, function: Callable[[], None]) -> None:
        self.seconds, self.function = seconds, function
        self.due: float | None = None

    def start(self) -> None:
        self.due = time.monotonic() + self.seconds

    def stop(self) -> None:
        self.due = None

    @property
    def active(self) -> bool:
        return self.due is not None


class Session:
    """A slide and its study, open as in a napari of its own."""

    def __init__(self, slide: Path, study: Path) -> None:
        self.loop = Loop()
        self.viewer = ViewerModel()
        self.views = SlideViews(self.viewer, self.loop)
        add_layer(self.viewer, slide_layer(open_slide(slide)))
        self.view = self.views.current
        self.view.teacher.choose_study(study)
        self.control = self.view.correct
        self.loop.run(30, lambda: not self.control.reason)
        assert not self.control.reason, self.control.reason
        self.control.set_brush(40)

    @property
    def result(self):
        return self.view.teacher.result

    def stroke(self, rng: random.Random) -> None:
        """Paint, or now and then undo or redo."""
        way = rng.random()
        if way < 0.1 and self.control.undo_text:
            self.control.undo()
        elif way < 0.15 and self.control.redo_text:
            self.control.redo()
        else:
            height, width = self.result.mask.shape
            self.paint(rng.randrange(height), rng.randrange(width), rng.randrange(4))

    def paint(self, y: int, x: int, value: int) -> None:
        """A dab of the brush, or of the eraser for 0."""
        self.control.pick(Tool.BRUSH, value)
        self.view.layer(Role.PSEUDO_MASK).paint((y, x), value)

    def close(self) -> None:
        self.views.close()


def kill_at_file_operation(study: Path, count: int) -> None:
    """End this process, and those of its group, at so many operations on files of the study from now on."""
    left, inside = count, str(study)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if event in FILE_EVENTS and args and isinstance(args[0], str | Path) and str(args[0]).startswith(inside):
            left -= 1
            if left == 0:
                os.killpg(os.getpgrp(), signal.SIGKILL)

    sys.addaudithook(hook)


def paint(slide: Path, study: Path, log: Log, seed: int) -> None:
    """Paint until killed; log every step that is made, and how many are in the study."""
    rng = random.Random(seed)
    session = Session(slide, study)
    made = 0

    def on_stepped(entry: Any) -> None:
        nonlocal made
        made += 1
        log("made", entry)

    session.result.mask.stepped.connect(on_stepped)
    session.result.saved.connect(lambda saved: log("saved", made) if saved else None)
    log("open")
    while True:
        session.stroke(rng)
        session.loop.run(rng.uniform(*PAUSE_S))
        if session.result.save_problem:
            log("problem", session.result.save_problem)


def distil(study: Path, teacher: Path, log: Log, seed: int) -> None:
    """Do round after round until killed; log every round and every prediction that is whole."""
    torch.set_num_threads(1)
    recipe = find_recipe("default")
    recipe = replace(recipe, targets=replace(recipe.targets, views=1), batch=2, crop=64)
    request = StudyRequest(
        study,
        str(teacher),
        rounds=1,
        epochs=2,
        recipe=recipe,
        most_tiles=2,
        device="cpu",
        threads=1,
        seed=0,
        resume=True,
    )

    def told(progress: Any) -> None:
        if isinstance(progress.payload, Round):
            log("round", progress.payload.number)
        elif isinstance(progress.payload, Epoch):
            log("epoch")

    log("open")
    rng = random.Random(seed)
    while True:
        result = distill_study(request, InlineControl(told))
        log("predicted", result.rounds[-1].number)
        if rng.random() < 0.3:  # a person takes a round
            number = rng.randrange(len(Rounds.open(result.folder).rounds) + 1)
            Rounds.open(result.folder).take(number)
            log("taken", number)


def run(work: Callable[..., None], log: Log, *args: Any) -> None:
    """Do ``work``; an error that it ends with is logged."""
    try:
        work(*args)
    except BaseException:  # noqa: BLE001 - the log is all that is left of this process
        log("error", traceback.format_exc())
