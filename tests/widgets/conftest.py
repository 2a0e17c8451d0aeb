"""Fixtures of the widgets' tests: a pink slide with a result in a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_histodistill.slide import open_slide
from napari_histodistill.slide.synthetic import draw_slide, write_slide
from napari_histodistill.study import Study
from napari_histodistill.widgets.session import session_of

PLUGIN = "napari-histodistill"


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch) -> None:
    """What is cached and remembered is not that of another test."""
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"HISTODISTILL_{name}", str(tmp_path / name.lower()))


@pytest.fixture
def docked(window) -> Callable[..., list[Any]]:
    """Adds widgets to the window by their names, the way the menu does it."""

    def add(*names: str) -> list[Any]:
        added = [window.viewer.window.add_plugin_dock_widget(PLUGIN, name)[1] for name in names]
        window.settle()
        return added

    return add


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Callable[[int, int], Path]:
    """A generated slide of (height, width) px, drawn once; not to be written to."""
    made: dict[tuple[int, int], Path] = {}

    def draw(height: int, width: int) -> Path:
        if (height, width) not in made:
            made[height, width] = tmp_path_factory.mktemp("drawn") / "drawn.tiff"
            write_slide(draw_slide((height, width)), made[height, width])
        return made[height, width]

    return draw


@pytest.fixture
def pink_study(tmp_path) -> Callable[..., tuple[Path, Path]]:
    """Makes a pink slide of `side` px at 0.5 µm and its study with a grid of `um`; `paint` sets the probabilities."""

    def make(side: int, um: float, paint: Callable[[np.ndarray], None]) -> tuple[Path, Path]:
        path = tmp_path / "pink.tiff"
        picture = np.broadcast_to(np.array([225, 150, 190], np.uint8), (side, side, 3))
        tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3)
        with open_slide(path) as slide:
            entry = Study.create(tmp_path / "study").add_slide(slide, target_mpp=um)
        entry.save_tissue(np.ones((100, 100), np.uint8), settings={})
        run = entry.new_run({})
        probability = np.zeros(entry.grid.shape, np.uint8)
        paint(probability)
        run.probability.write(0, 0, probability)
        run.record.finished = set(range(-(-entry.grid.shape[0] // 512) * -(-entry.grid.shape[1] // 512)))
        with run.replace_pseudo_mask() as target:
            target.write(0, 0, np.where(probability > 0, 1, 2).astype(np.uint8))
        entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})
        return path, tmp_path / "study"

    return make


@pytest.fixture
def open_result() -> Callable[..., Any]:
    """Opens a slide in a window and shows the result that a study holds of it; gives its view."""

    def open_it(window: Any, made: tuple[Path, Path]) -> Any:
        window.viewer.open(made[0], plugin="napari-histodistill")
        window.settle()
        view = session_of(window.viewer).current
        view.teacher.choose_study(made[1])
        window.wait(lambda: view.teacher.result is not None and view.teacher.result.mask.data.all())
        return view

    return open_it
