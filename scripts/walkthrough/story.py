"""The story: open a slide, find tissue, run the teacher, correct, distil, look, review, export; pictures of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.study import SlideLabel
from napari_histodistill.viewer.correct import Tool
from napari_histodistill.viewer.layers import Role
from napari_histodistill.viewer.look import Look
from napari_histodistill.viewer.teacher import TeacherState
from napari_histodistill.widgets.correct import TOOLS
from napari_histodistill.widgets.distil import LABELS
from napari_histodistill.widgets.export import FORMATS
from walkthrough.docks import Docks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_histodistill.slide.labels import LabelValue
    from walkthrough.hand import Place
    from walkthrough.watchdog import Watchdog

TUMOUR, NORMAL = "Tumour", "Normal"
Stroke = tuple[str, "list[Place]"]


@dataclass(frozen=True)
class Plan:
    """What is done on a slide, and how long it may take.

    Attributes
    ----------
    slide : Path
    zoom : (Place, int)
        Where the wheel is turned, and by how many notches, before painting.
    before, meanwhile : list of Stroke
        Painted before the model learns, and while it does.
    rounds, epochs, tiles : int or None
        Typed into the Distil dock; None leaves the default.
    patience_s : float
        For the teacher, and for all rounds.
    while_learning : callable, optional
        Done once rounds are under way, for instance a measurement.
    """

    slide: Path
    zoom: tuple[Place, int]
    before: list[Stroke]
    meanwhile: list[Stroke]
    rounds: int | None = None
    epochs: int | None = None
    tiles: int | None = None
    patience_s: float = 900
    while_learning: Callable[[], None] | None = None


class Story(Docks):
    """Goes through a plan in a viewer, with the mouse.

    Parameters
    ----------
    viewer : napari.Viewer
    plan : Plan
    out : Path
        Folder for the pictures.
    watchdog : Watchdog
    """

    def __init__(self, viewer: Any, plan: Plan, out: Path, watchdog: Watchdog) -> None:
        super().__init__(viewer, out, watchdog)
        self.plan = plan
        self.titles: list[str] = []
        self.figures: dict[str, Any] = {}
        self._painted: NDArray[np.uint8] | None = None

    # The steps

    def tell(self) -> None:
        """All of it."""
        self.open_and_find_tissue()
        self.run_teacher()
        self.correct()
        self.distil()
        self.look_at_rounds()
        self.study()
        self.review()
        self.export()
        self.check_corrections()

    def open_and_find_tissue(self) -> None:
        """Slide dock."""
        panel = self.panel("Slide")
        with self.watchdog.doing("open"):
            self.hand.answer_file_dialog(self.plan.slide)
            self.hand.click(panel.open_button)
            self.hand.wait(lambda: self.session.current is not None, 30, "the slide to open")
            self.hand.pause(1)
        self.picture("slide")
        with self.watchdog.doing("layers"):
            self.hand.click(panel.find_button)
            self.hand.wait(lambda: self.view.tissue.mask is not None, 120, "tissue")
        self.picture("tissue")

    def run_teacher(self) -> None:
        """Teacher dock."""
        panel = self.panel("Teacher")
        with self.watchdog.doing("layers"):
            self.hand.click(panel.run_button)
            seconds = self.hand.wait(
                lambda: self.view.teacher.state is TeacherState.DONE, self.plan.patience_s, "the teacher"
            )
        self.figures["teacher_s"] = seconds
        self.picture("teacher")

    def correct(self) -> None:
        """Correct dock: look at a place, paint."""
        panel = self.panel("Correct")
        with self.watchdog.doing("look"):
            self.hand.zoom(*self.plan.zoom)
            self.hand.click(panel.tools.button(list(TOOLS).index(Tool.MOVE)))
            self.hand.drag([(0.5, 0.5), (0.52, 0.5), (0.54, 0.52), (0.5, 0.5)])
        self._paint(self.plan.before)
        self.picture("corrected")

    def _paint(self, strokes: list[Stroke]) -> None:
        panel = self.panel("Correct")
        for value, places in strokes:
            button = next(b for b in panel.values.buttons() if b.text() == value)
            with self.watchdog.doing("paint"):
                self.hand.click(button)
                self.hand.drag(places)
        with self.watchdog.own_work():
            self._painted = self._hand_set().copy()

    def distil(self) -> None:
        """Distil dock: label, settings, start, paint on, see previews and rounds come."""
        panel = self.panel("Distil")
        self.hand.choose(panel.label, _name_of(SlideLabel.TUMOUR))
        self.hand.click(panel.more.toggleButton())
        self.hand.pause(0.5)
        for box, number in (
            (panel.rounds, self.plan.rounds),
            (panel.form.epochs.native, self.plan.epochs),
            (panel.form.most_tiles.native, self.plan.tiles),
        ):
            if number is not None:
                self.hand.type_number(box, number)
        self.hand.reveal(panel.more)
        self.picture("distil")
        self.hand.click(panel.more.toggleButton())
        self.hand.pause(0.4)
        with self.watchdog.doing("learn"):
            self.hand.click(panel.start_button)
            self.figures["first_refresh_s"] = self.hand.wait(self._has_tiles, self.plan.patience_s, "a preview")
            self._note_title()
        self.picture("preview")
        self._note_title()
        self._paint(self.plan.meanwhile)
        self.picture("painting-on")
        self.panel("Distil")
        if self.plan.while_learning is not None:
            self.plan.while_learning()
        with self.watchdog.doing("learn"):
            self.hand.wait(lambda: self._rounds(1), self.plan.patience_s, "the first round")
            self.hand.wait(self._has_tiles, self.plan.patience_s, "its tiles")
        with self.watchdog.doing("layers"):
            self.hand.click(panel.looks[Look.PREDICTION])
        self.picture("first-round")
        with self.watchdog.doing("layers"):
            self.hand.click(panel.looks[Look.BOTH])
        self.picture("both")
        with self.watchdog.doing("layers"):
            self.hand.click(panel.looks[Look.PREDICTION])
        self._note_title()
        with self.watchdog.doing("learn"):
            self.hand.wait(lambda: not self.view.distil.state.busy, self.plan.patience_s, "the rounds to end")
            self.hand.pause(1)
        self._note_title()
        done = self.view.distil.history.rounds
        self.figures["rounds"] = [str(each) for each in done]
        self.figures["rounds_promoted"] = sum(each.outcome == "promoted" for each in done)

    def look_at_rounds(self) -> None:
        """Distil dock: difference, pin a round, follow again."""
        panel = self.panel("Distil")
        with self.watchdog.doing("layers"):
            self.hand.click(panel.show_difference)
        self.hand.reveal(panel.pin_button)
        self.picture("difference")
        with self.watchdog.doing("learn"):
            self.hand.click(panel.show_difference)
            self.hand.choose_row(panel.table, 1)  # the first is the teacher
            self.hand.click(panel.pin_button)
        self._note_title()
        self.picture("pinned")
        with self.watchdog.doing("learn"):
            self.hand.click(panel.follow_button)
        self._note_title()
        with self.watchdog.doing("layers"):
            self.hand.choose_rows(panel.table, 0, len(self.view.distil.history.rounds))
            self.hand.click(panel.compare_button)
        self.hand.reveal(panel.compared)
        self.picture("compared")
        with self.watchdog.doing("layers"):
            self.hand.click(panel.compare_button)

    def study(self) -> None:
        """Study dock: the slide in its list, with what was done on it."""
        panel = self.panel("Study")
        with self.watchdog.doing("study"):
            self.hand.wait(lambda: panel.study.thumbnails, 30, "the picture of the slide")
            self.hand.click_in(panel.list, panel.list.visualRect(panel.list.slides.index(0)).center())
        self.picture("study")

    def review(self) -> None:
        """Review dock: fly to a place, draw patches, say of one that it is right, back to the slide."""
        panel = self.panel("Review")
        with self.watchdog.doing("review"):
            self.hand.click(panel.next_button)
            self.hand.wait(lambda: not self.view.review.busy, 60, "places to look at")
        self.picture("where-next")
        with self.watchdog.doing("review"):
            self.hand.click(panel.draw_button)
            self.hand.wait(lambda: self.view.audit.patch is not None, 60, "patches")
            self.hand.reveal(panel.as_shown)
        self.picture("patch")
        with self.watchdog.doing("review"):
            self.hand.click(panel.as_shown)
            self.hand.wait(lambda: self.view.audit.audit.labelled, 30, "the label")
            self.hand.click(panel.label_button)
            self.hand.wait(lambda: not self.view.audit.busy, 60, "the figures")
        self.hand.reveal(panel.table)
        self.picture("reviewed")

    def export(self) -> None:
        """Export dock: the mask as OME-TIFF."""
        panel = self.panel("Export")
        name = next(name for name, (format_, _) in FORMATS.items() if format_ == "ome-tiff")
        self.hand.choose(panel.formats, name)
        with self.watchdog.doing("export"):
            self.hand.click(panel.export_button)
            self.hand.wait(lambda: self.view.export.written, self.plan.patience_s, "the export")
        self.picture("exported")

    # What must be true

    def check_corrections(self) -> None:
        """Count corrected pixels that are another than was painted, on screen, in the prediction or in the file."""
        import tifffile

        hand, painted = self._hand_set(), self._painted
        prediction = self.view.distil.prediction
        assert painted is not None
        assert prediction is not None
        said = painted > 0
        exported = tifffile.imread(self.view.export.written[0])
        counts = {
            "in_mask": int((hand[said] != painted[said]).sum()),
            "in_prediction": int((prediction.data[said] != painted[said] - 1).sum()),
            "in_export": int((exported[said] != painted[said] - 1).sum()),
        }
        self.figures["corrected_pixels"] = int(said.sum())
        self.figures["corrected_pixels_changed"] = sum(counts.values())
        self.figures["corrected_pixels_changed_where"] = counts

    def _hand_set(self) -> NDArray[LabelValue]:
        """What a person set: 0 for nothing, else the value plus one."""
        result = self.view.teacher.result
        assert result is not None
        return result.mask.hand

    def _has_tiles(self) -> bool:
        prediction = self.view.distil.prediction
        if prediction is None or prediction.layer is None:
            return False
        return bool(prediction.data[self._hand_set() == 0].any())  # corrections are laid over what has not landed yet

    def _rounds(self, number: int) -> bool:
        return len(self.view.distil.history.rounds) >= number or not self.view.distil.state.busy

    def _note_title(self) -> None:
        layer = self.view.layer(Role.PREDICTION)
        if layer is not None and layer.name not in self.titles[-1:]:
            self.titles.append(layer.name)


def _name_of(label: SlideLabel) -> str:
    return next(name for name, value in LABELS.items() if value is label)
