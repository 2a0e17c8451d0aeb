"""``python -m walkthrough.tutorial``: docs/tutorial.md, word for word, in the napari that is installed.

The page is the script. What it prints in bold is clicked, in its order; what it says behind a bold name is chosen or
typed (``**Rounds**: 2``); where it shows a picture one is taken. A name that the window does not show ends it. At the
end the picture that was exported is compared with the one on the page.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image
from qtpy.QtCore import QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QComboBox, QLabel, QTabBar, QWidget

from napari_histodistill.viewer.teacher import TeacherState
from napari_histodistill.widgets.parts import Panel, Slider
from walkthrough.docks import Docks
from walkthrough.hand import LEFT, WaitedInVainError
from walkthrough.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from walkthrough.hand import Place

TUTORIAL: Final = Path(__file__).parents[2] / "docs" / "tutorial.md"
BY_HAND: Final = "## The same without a window"
"""Heading of the page at which the window is done with."""
SCREEN: Final = (1366, 840)
ZOOM: Final[tuple[Place, int]] = ((0.45, 0.5), 3)
STROKES: Final[dict[str, list[list[list[Place]]]]] = {
    "Tumour": [
        [[(0.50, 0.655), (0.52, 0.67)], [(0.59, 0.53), (0.63, 0.53)], [(0.62, 0.60), (0.68, 0.595), (0.72, 0.60)]],
        [[(0.42, 0.72), (0.44, 0.70)], [(0.95, 0.25), (0.97, 0.27)]],
    ],
    "Normal": [
        [[(0.73, 0.45), (0.74, 0.48), (0.74, 0.51)], [(0.20, 0.30), (0.22, 0.33), (0.23, 0.36), (0.23, 0.40)]],
    ],
}
"""What is painted each time that a value is chosen: on hollows that the mask leaves out, and on what is no tumour."""
PATIENCE_S: Final = 900.0
ALIKE: Final = 0.99
"""Share of the pixels that must look the same in the exported picture and in that of the page."""


@dataclass(frozen=True)
class Step:
    """A name that the page prints in bold, with what it says to choose or type; or a picture that it shows."""

    name: str
    choice: str = ""
    picture: bool = False


def steps_of(page: str) -> Iterator[Step]:
    """What a page has one do.

    Parameters
    ----------
    page : str
        Markdown.

    Yields
    ------
    Step

    Examples
    --------
    >>> [(step.name, step.choice) for step in steps_of("Set **Rounds**: 2, **As**: *Pictures*, press **Run**.")]
    [('Rounds', '2'), ('As', 'Pictures'), ('Run', '')]
    """
    bold, picture = r"\*\*([^*]+)\*\*(?:: (?:\*([^*]+)\*|([\d.]+\d|\d)))?", r"\]\(images/tutorial/([\w-]+)\.jpg\)"
    for found in re.finditer(f"{bold}|{picture}", page.partition(BY_HAND)[0]):
        name, chosen, typed, shown = found.groups()
        yield Step(shown, picture=True) if shown else Step(name, chosen or typed or "")


class Tutorial(Docks):
    """Follows the page in a viewer; see `Docks` for the parameters."""

    def __init__(self, viewer: Any, out: Path, watchdog: Watchdog) -> None:
        super().__init__(viewer, out, watchdog)
        self.exported: Path | None = None
        self._strokes = {name: iter(strokes) for name, strokes in STROKES.items()}
        self._first: dict[str, Callable[[], None]] = {
            "Pin": lambda: self.hand.choose_row(self.panel("Distil").table, 1),  # the first is the teacher
        }
        self._then: dict[str, Callable[[], None]] = {
            "Load sample": lambda: self._wait(lambda: self.session.current is not None, "the sample"),
            "Find tissue": lambda: self._wait(lambda: self.view.tissue.mask is not None, "tissue"),
            "Run": lambda: self._wait(lambda: self.view.teacher.state is TeacherState.DONE, "the teacher"),
            "Correct the mask…": lambda: self.hand.zoom(*ZOOM),
            "Tumour": lambda: self._paint("Tumour"),
            "Normal": lambda: self._paint("Normal"),
            "Start": lambda: self._wait(self._previewed, "a preview"),
            "Distil": self._when_rounds_are_over,
            "Export": self._when_exported,
        }

    def follow(self, page: str) -> None:
        """Do what a page says.

        Raises
        ------
        WaitedInVainError
            If it names what is not there, or what it promises does not come.
        """
        self.hand.window.resize(*SCREEN)
        self.hand.pause(1)
        for step in steps_of(page):
            print(
                f"  {'picture of ' if step.picture else ''}{step.name}{step.choice and ': '}{step.choice}", flush=True
            )
            if not step.picture:
                self._do(step)
            elif step.name != "mask":  # which is the exported file
                self.picture(step.name)

    def _do(self, step: Step) -> None:
        if step.name in self._first:
            self._first[step.name]()
        if " > " in step.name:
            self.hand.menu(*step.name.split(" > "))
            self._wait(lambda: self._front(step.name.rpartition(" > ")[2]), "the dock")
        elif step.choice:
            self._set(step)
        else:
            self._click(step.name)
        if step.name in self._then:
            self._then[step.name]()

    # With eyes and hand

    def _front(self, name: str) -> bool:
        return any(panel.step[1] == name for panel in self._seen(Panel))

    def _seen(self, *kinds: type[QWidget]) -> list[Any]:
        """Widgets that are on screen or, within a dock that is, a scroll away."""
        window = self.hand.window
        panels = [panel for panel in window.findChildren(Panel) if not panel.visibleRegion().isEmpty()]
        places = [window, *panels] if QTabBar in kinds or Panel in kinds else panels
        found = [widget for place in places for kind in kinds for widget in place.findChildren(kind)]
        return [widget for widget in found if widget.isVisible()]

    def _click(self, name: str) -> None:
        button = _one(self._seen(QAbstractButton), name)
        if button is not None:
            self.hand.click(button)
            return
        for bar in self._seen(QTabBar):
            for index in range(bar.count()):
                if bar.tabText(index) == name:
                    QTest.mouseClick(bar, LEFT, pos=bar.tabRect(index).center())
                    self.hand.pause(0.3)
                    return
        raise WaitedInVainError(f"The window shows no button and no tab {name!r}.")

    def _set(self, step: Step) -> None:
        """Choose or type what stands behind a name, in the box at its right; drag a slider there and back."""
        slider = next((each for each in self._seen(Slider) if each.name.text() == step.name), None)
        if slider is not None:
            self.hand.slide(slider.slider, 0.3)
            self.hand.pause(1)
            self.hand.type_number(slider.slider, float(step.choice))
            return
        label = _one(self._seen(QLabel), step.name)
        if label is None:
            raise WaitedInVainError(f"The window shows no {step.name!r}.")
        box = _beside(label, self._seen(QComboBox, QAbstractSpinBox))
        if isinstance(box, QComboBox):
            self.hand.choose(box, step.choice)
        else:
            self.hand.type_number(box, float(step.choice))

    def _paint(self, value: str) -> None:
        for stroke in next(self._strokes[value]):
            self.hand.drag(stroke)

    # What the page says will come

    def _wait(self, condition: Callable[[], Any], what: str) -> None:
        self.hand.wait(condition, PATIENCE_S, what)
        self.hand.pause(1)

    def _previewed(self) -> bool:
        prediction = self.view.distil.prediction
        result = self.view.teacher.result
        if prediction is None or prediction.layer is None or result is None:
            return False
        return bool(prediction.data[result.mask.hand == 0].any())  # corrections are laid over what has not come yet

    def _when_rounds_are_over(self) -> None:
        distil = self.view.distil
        self._wait(lambda: distil.history.rounds and not distil.state.busy, "the rounds")
        self._home()

    def _home(self) -> None:
        """The house among napari's buttons: the whole slide."""
        button = self.hand.viewer.window._qt_viewer.viewerButtons.resetViewButton  # noqa: SLF001 - no public name
        QTest.mouseClick(button, LEFT)
        self.hand.pause(0.5)

    def _when_exported(self) -> None:
        self._wait(lambda: self.view.export.written, "the export")
        self.exported = next(path for path in self.view.export.written if path.name.endswith("overlay.png"))


def _one(widgets: Iterable[Any], text: str) -> Any:
    """The first of some widgets that shows a text; a heading is bold."""
    return next((widget for widget in widgets if text in (widget.text(), re.sub("<.*?>", "", widget.text()))), None)


def _beside(label: QLabel, boxes: Iterable[Any]) -> Any:
    """The box nearest to the right of a label, as one sees it."""
    at = label.mapToGlobal(label.rect().center())
    lines = [(box, box.mapToGlobal(box.rect().center())) for box in boxes]
    right = [(place.x() - at.x(), box) for box, place in lines if place.x() > at.x() and abs(place.y() - at.y()) < 15]
    if not right:
        raise WaitedInVainError(f"There is nothing to set beside {label.text()!r}.")
    return min(right, key=lambda found: found[0])[1]


def alike(exported: Path, shown: Path) -> float:
    """Share of the pixels that look the same in two pictures of one slide, the second smaller and a JPEG.

    A filled area changes red, green or blue by up to 60 of 255; noise of JPEG is far below 40 once it is blurred.
    """
    from PIL import ImageFilter

    on_page = Image.open(shown).convert("RGB")
    new = Image.open(exported).convert("RGB").resize(on_page.size, Image.Resampling.LANCZOS)
    first, second = (np.asarray(each.filter(ImageFilter.BoxBlur(2)), np.int16) for each in (new, on_page))
    return float((np.abs(first - second).max(axis=-1) < 25).mean())


def in_napari(do: Callable[[Any], None]) -> None:
    """Start napari as its command does, and do something once its window is there; then close it."""
    import napari
    from napari.__main__ import main as napari_command
    from napari.qt import get_qapp

    get_qapp()
    failures: list[BaseException] = []
    timer = QTimer()

    def begin() -> None:
        viewer = napari.current_viewer()
        if viewer is None or not viewer.window._qt_window.isVisible():  # noqa: SLF001 - no public name
            return
        timer.stop()
        try:
            do(viewer)
        except Exception as error:  # noqa: BLE001 - Qt would swallow it
            failures.append(error)
        finally:
            viewer.close()
            QApplication.quit()

    timer.timeout.connect(begin)
    timer.start(200)
    sys.argv = ["napari"]
    napari_command()
    if failures:
        raise failures[0]


def main() -> None:
    """Follow the page in folders of its own, and say whether it ends with the mask that it shows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/tutorial"))
    parser.add_argument("--home", type=Path, help="an empty folder for the study, which is thrown away without this")
    arguments = parser.parse_args()
    out = arguments.out.resolve()

    def do(viewer: Any) -> None:
        watchdog = Watchdog()
        tutorial = Tutorial(viewer, out, watchdog)
        try:
            tutorial.follow(TUTORIAL.read_text(encoding="utf-8"))
        finally:
            tutorial.picture("end")
            watchdog.stop()
        if tutorial.exported is None:
            raise WaitedInVainError("The page has nothing exported.")
        share = alike(tutorial.exported, TUTORIAL.parent / "images" / "tutorial" / "mask.jpg")
        print(f"{tutorial.exported.name}: {share:.1%} of the pixels look as on the page.")
        if share < ALIKE:
            raise WaitedInVainError("The page ends with another mask than it shows.")

    with ExitStack() as stack:
        home = arguments.home or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tutorial-")))
        as_on_a_clean_machine(home.resolve())
        in_napari(do)


def as_on_a_clean_machine(home: Path) -> None:
    """Have cache, settings and documents of this process in a folder of their own."""
    for name, folder in (
        ("HISTODISTILL_CACHE", "cache"),
        ("HISTODISTILL_CONFIG", "config"),
        ("NAPARI_CONFIG", "napari.yaml"),
        ("XDG_DOCUMENTS_DIR", "Documents"),
    ):
        os.environ[name] = str(home / folder)


if __name__ == "__main__":
    main()
