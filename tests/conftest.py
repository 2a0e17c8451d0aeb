"""Shared fixtures; what is skipped without the real data or without a screen, and how many tests that was."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SKIP_REASON = "shared data not found (set HISTODISTILL_DATA to its folder)"
NO_SCREEN = "no screen with OpenGL (Debian: apt-get install xvfb xauth, then make test)"


def find_data() -> Path | None:
    """Folder of the shared real data: $HISTODISTILL_DATA, else ../shared/data beside the checkout, else None."""
    candidates = [os.environ.get("HISTODISTILL_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    return next((Path(c) for c in candidates if c and Path(c).is_dir()), None)


@pytest.fixture(autouse=True, scope="session")
def own_folders(tmp_path_factory) -> Iterator[None]:
    """Logs and settings of the docks are not those of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LOG", "CONFIG"):
            patch.setenv(f"HISTODISTILL_{name}", str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The shared data folder; tests that ask for it are skipped where it does not exist."""
    folder = find_data()
    if folder is None:
        pytest.skip(SKIP_REASON)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of a user is not that of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HISTODISTILL_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def slides_dir(data_dir: Path) -> Path:
    return data_dir / "slides"


@pytest.fixture(scope="session")
def asap_xml() -> Callable[..., str]:
    """Text of an ASAP file: `asap_xml((group, points as (y, x)), ..., kind="Polygon")`."""

    def write(*outlines: tuple[str, Any], kind: str = "Polygon") -> str:
        annotations = ""
        for group, points in outlines:
            corners = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (y, x) in enumerate(points))
            head = f'Name="a" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58"'
            annotations += f"<Annotation {head}><Coordinates>{corners}</Coordinates></Annotation>"
        groups = '<AnnotationGroups><Group Name="_0" PartOfGroup="None"/></AnnotationGroups>'
        body = f"<Annotations>{annotations}</Annotations>{groups}"
        return f'<?xml version="1.0"?><ASAP_Annotations>{body}</ASAP_Annotations>'

    return write


@dataclass
class Window:
    """A napari window with real OpenGL, and what a person would do with it."""

    viewer: Any

    def look(self, centre: tuple[float, float], zoom: float) -> np.ndarray:
        """Point the camera at a world position, ``zoom`` canvas px per world unit; returns the canvas, RGB."""
        from napari_histodistill.viewer.geometry import camera_of

        camera_of(self.viewer).center = centre
        camera_of(self.viewer).zoom = zoom
        self.settle()
        return self.viewer.screenshot(canvas_only=True, flash=False)[..., :3]

    def settle(self, seconds: float = 0.15) -> None:
        """Let Qt and OpenGL catch up."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    def wait(self, condition: Callable[[], Any], seconds: float = 90) -> None:
        """Let things happen until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.settle(0.03)
        self.settle()

    def canvas_position(self, world: tuple[float, float]) -> tuple[int, int]:
        """Where a world position is on the canvas: (x, y) in px."""
        from napari_histodistill.viewer.geometry import camera_of

        height, width = self.viewer.screenshot(canvas_only=True, flash=False).shape[:2]
        camera = camera_of(self.viewer)
        y, x = ((world[i] - camera.center[-2:][i]) * camera.zoom for i in (0, 1))
        return round(width / 2 + x), round(height / 2 + y)

    def drag(self, *world: tuple[float, float], button: str = "LeftButton") -> None:
        """Press at the first world position, move over the others, release at the last."""
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        canvas = self.viewer.window._qt_viewer.canvas.native
        points = [QPoint(*self.canvas_position(position)) for position in world]
        button = getattr(Qt.MouseButton, button)
        QTest.mouseMove(canvas, points[0])
        self.settle(0.05)
        QTest.mousePress(canvas, button, pos=points[0])
        for point in points[1:]:
            _move_with_button(canvas, point, button)
            self.settle(0.02)
        QTest.mouseRelease(canvas, button, pos=points[-1])
        self.settle(0.1)

    def hover(self, *world: tuple[float, float]) -> None:
        """Move the mouse over world positions with no button down."""
        from qtpy.QtCore import QPoint, Qt

        canvas = self.viewer.window._qt_viewer.canvas.native
        for position in world:
            _move_with_button(canvas, QPoint(*self.canvas_position(position)), Qt.MouseButton.NoButton)
            self.settle(0.02)


def _move_with_button(canvas: Any, point: Any, button: Any) -> None:
    """Move the mouse; QTest.mouseMove does not tell which button is down."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    place = QPointF(point)
    event = QMouseEvent(
        QEvent.Type.MouseMove,
        place,
        QPointF(canvas.mapToGlobal(point)),
        Qt.MouseButton.NoButton,
        button,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(canvas, event)


@pytest.fixture
def window(make_napari_viewer: Callable[..., Any]) -> Window:
    """A napari window that is really drawn."""
    window = Window(make_napari_viewer(show=True))
    window.settle()
    return window


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return
    for item in items:
        if item.get_closest_marker("viewer") or "make_napari_viewer" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=NO_SCREEN))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for need, reason in (("the shared data", SKIP_REASON), ("a window", NO_SCREEN)):
        count = sum(reason in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
        if count:
            terminalreporter.write_line(f"{count} tests need {need} and were skipped: {reason}")


# A small generated data set: positive images hold dark blue discs on pink, negative ones only the pink.
SIZE, COUNT = 96, 24


def _draw(rng: np.random.Generator, label: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.full((SIZE, SIZE, 3), (230, 170, 200), np.float64)
    mask = np.zeros((SIZE, SIZE), bool)
    for _ in range(4 * label):
        cy, cx = rng.uniform(15, SIZE - 15, 2)
        mask |= (y - cy) ** 2 + (x - cx) ** 2 < 14**2
    image[mask] = (90, 50, 140)
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """A manifest of 24 images of 12 patients, with masks, splits and mpp."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(5)
    rows = []
    for i in range(COUNT):
        label = i % 2
        image, mask = _draw(rng, label)
        Image.fromarray(image).save(folder / f"{i}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{i}_mask.png")
        split = ("train", "train", "val", "test")[i // 6]
        row = {"image": f"{i}.png", "label": label, "mask": f"{i}_mask.png" if label else ""}
        rows.append(row | {"patient": f"p{i // 2}", "split": split, "mpp": 1.5})
    with (folder / "cohort.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "cohort.csv"


class Recorder:
    """A job control that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.payloads: list[object] = []
        self.checks = 0

    def progress(self, done: int, total: int, message: str = "", payload: object = None) -> None:
        self.messages.append(message)
        self.payloads.append(payload)

    def checkpoint(self) -> None:
        self.checks += 1


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
