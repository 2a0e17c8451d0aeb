"""The docks in a viewer's window: brought to the front with the mouse, and pictures of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from napari_histodistill.widgets.correct import CorrectWidget
from napari_histodistill.widgets.distil import DistilWidget
from napari_histodistill.widgets.export import ExportWidget
from napari_histodistill.widgets.review import ReviewWidget
from napari_histodistill.widgets.session import session_of
from napari_histodistill.widgets.slide import SlideWidget
from napari_histodistill.widgets.study import StudyWidget
from napari_histodistill.widgets.teacher import TeacherWidget
from walkthrough.hand import Hand, WaitedInVainError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.viewer.slide_view import OpenSlideView
    from walkthrough.watchdog import Watchdog

PANELS: Final = {
    "Study": StudyWidget,
    "Slide": SlideWidget,
    "Teacher": TeacherWidget,
    "Correct": CorrectWidget,
    "Distil": DistilWidget,
    "Review": ReviewWidget,
    "Export": ExportWidget,
}


class Docks:
    """A hand in a viewer, the docks by name, and the pictures taken so far.

    Parameters
    ----------
    viewer : napari.Viewer
    out : Path
        Folder for the pictures.
    watchdog : Watchdog
    """

    def __init__(self, viewer: Any, out: Path, watchdog: Watchdog) -> None:
        self.hand, self.out, self.watchdog = Hand(viewer), out, watchdog
        self.pictures: list[Path] = []
        self.session = session_of(viewer)

    @property
    def view(self) -> OpenSlideView:
        """The slide that is open."""
        view = self.session.current
        if view is None:
            raise WaitedInVainError("No slide is open.")
        return view

    def panel(self, name: str) -> Any:
        """A dock, opened from the menu if it is not, brought to the front by its tab if it lies behind."""
        kind = PANELS[name]
        found = self.hand.window.findChildren(kind)
        if not found:
            with self.watchdog.doing("docks"):
                self.hand.menu("Plugins", "HistoDistill", name)
                self.hand.wait(lambda: self.hand.window.findChildren(kind), 20, f"the dock {name}")
                self.hand.pause(0.3)
            found = self.hand.window.findChildren(kind)
        with self.watchdog.doing("docks"):
            self.hand.raise_tab(found[0], name)
        return found[0]

    def picture(self, name: str) -> None:
        """Keep the window as a PNG."""
        with self.watchdog.doing(self.watchdog.recent):  # what was begun may go on
            self.hand.pause(0.5)
        with self.watchdog.own_work():
            self.out.mkdir(parents=True, exist_ok=True)
            path = self.out / f"{len(self.pictures) + 1:02d}-{name}.png"
            self.hand.window.grab().save(str(path))
            self.pictures.append(path)
