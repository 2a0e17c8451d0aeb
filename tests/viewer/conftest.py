"""Fixtures of the viewer's tests: a slide with a mark, open or as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_histodistill.jobs import JobState, ProcessJob, Progress
from napari_histodistill.slide import open_slide
from napari_histodistill.viewer.headless import HeadlessRunner


@dataclass(frozen=True)
class MarkedSlide:
    """A white slide with a black mark, and where the mark is."""

    path: Path
    shape: tuple[int, int] = (2201, 3007)
    levels: tuple[tuple[int, int], ...] = ((2201, 3007), (548, 748), (272, 372))
    """Downsamples of 1, about 4.02 and about 8.09, none an integer."""
    mark: tuple[int, int, int, int] = (1203, 1590, 910, 1411)
    """Top, bottom, left and right edge in level-0 px."""
    mpp: float = 0.5

    def mark_on(self, shape: tuple[int, int]) -> np.ndarray:
        """How much of each pixel of a grid over the slide the mark covers: float (h, w), 0 to 1."""
        axes = []
        for axis, (low, high) in enumerate((self.mark[:2], self.mark[2:])):
            edges = np.arange(shape[axis] + 1) * self.shape[axis] / shape[axis]
            covered = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
            axes.append(covered / np.diff(edges))
        return axes[0][:, None] * axes[1]


@pytest.fixture(scope="session")
def mark(tmp_path_factory: pytest.TempPathFactory) -> MarkedSlide:
    """A pyramidal TIFF, white with a black mark, whose levels do not divide evenly."""
    mark = MarkedSlide(tmp_path_factory.mktemp("marked") / "marked.tiff")
    with tifffile.TiffWriter(mark.path) as tif:
        for number, shape in enumerate(mark.levels):
            grey = np.rint(255 * (1 - mark.mark_on(shape))).astype(np.uint8)
            tif.write(
                np.repeat(grey[..., None], 3, axis=2),
                photometric="rgb",
                tile=(256, 256),
                resolution=(1e4 / (mark.mpp * mark.shape[0] / shape[0]),) * 2,
                resolutionunit="CENTIMETER",
                subfiletype=int(number > 0),
            )
    return mark


@pytest.fixture
def slide(mark: MarkedSlide) -> Any:
    """The marked slide, open."""
    with open_slide(mark.path) as slide:
        yield slide


class Runner(HeadlessRunner):
    """Jobs run where they are started; timers when the test lets time pass."""

    pass_time = HeadlessRunner.settle


class Child:
    """A child process that does what the test says."""

    def __init__(self, job, progress, done, failed):
        self.job, self.done, self.failed = job, done, failed
        self.commands = []
        job.state, job._command = JobState.RUNNING, self.commands.append
        self._progress = progress

    @property
    def request(self):
        return self.job._request

    def tell(self, payload):
        self._progress(Progress(0, 0, "news", payload))


class ParentRunner(Runner):
    """Jobs of threads run where they are started, children are kept."""

    def __init__(self):
        super().__init__()
        self.children = []

    def start(self, job, *, progress, done, failed):
        if isinstance(job, ProcessJob):
            self.children.append(Child(job, progress, done, failed))
        else:
            super().start(job, progress=progress, done=done, failed=failed)


@pytest.fixture
def new_parent_runner() -> type[ParentRunner]:
    """Makes a `Runner` that keeps children for the test to speak for."""
    return ParentRunner


@pytest.fixture
def new_runner() -> type[Runner]:
    """Makes a `Runner` without an event loop."""
    return Runner
