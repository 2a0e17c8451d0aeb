"""Dock widget "Study": which slides belong together, what was done on each, and how much tumour there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFileDialog, QLabel, QMenu, QProgressBar, QPushButton

from napari_histodistill.viewer.study_reasons import (
    why_not_add,
    why_not_add_open,
    why_not_open,
    why_not_relink,
    why_not_remove,
    why_not_restore,
    why_not_search,
)
from napari_histodistill.widgets.dock import SlidePanel
from napari_histodistill.widgets.dropping import TakesFiles
from napari_histodistill.widgets.parts import INFO, WARN, Banner, WrappedLabel, allow, plain_tip, row, show_progress
from napari_histodistill.widgets.slide import FILES
from napari_histodistill.widgets.study_list import SlideList

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from qtpy.QtGui import QShowEvent

    from napari_histodistill.viewer.slide_view import OpenSlideView

SURE_MS = 5000
"""How long "Really remove?" waits for the second click."""
NO_STUDY = (
    "A study keeps several slides together: masks, corrections, labels, and the models that learn from all of them. "
    "Make a new one in an empty folder, or open one. For a single slide you need none: open it in the Slide tab, and "
    "its study is made when you run the teacher."
)
NO_SLIDES = "No slide is in this study yet: add slides, or drop their files on the list below."
FOLLOWED = "This is the study of the slide on screen. Slides that you add here go into it."


class StudyWidget(TakesFiles, SlidePanel):
    """The "Study" dock widget of a viewer."""

    step = (1, "Study")
    page = "napari.md#study"

    def _build(self, viewer: ViewerModel) -> None:  # noqa: ARG002
        self.study = self.session.study
        self.setAcceptDrops(True)
        self._build_study()
        self._build_slides()
        self._build_removed()
        self.column.setAlignment(Qt.AlignmentFlag(0))  # the list takes the height there is
        self.column.setStretchFactor(self.list.parentWidget(), 1)
        self._sure = QTimer(self)
        self._sure.setSingleShot(True)
        self._sure.setInterval(SURE_MS)
        self._sure.timeout.connect(self._show_buttons)
        self._always.follow(self.study.changed, self._show)

    # Building

    def _build_study(self) -> None:
        section = self.section("Study")
        self.new_button, self.open_button, self.recent_button = (
            QPushButton(text) for text in ("New…", "Open…", "Recent")
        )
        self.new_button.setToolTip("Make a study in a new or empty folder")
        self.open_button.setToolTip("Choose the folder of a study")
        self.new_button.clicked.connect(self._ask_for_new)
        self.open_button.clicked.connect(self._ask_for_study)
        self.recent_menu = QMenu(self.recent_button)
        self.recent_menu.aboutToShow.connect(self._fill_recent)
        self.recent_button.setMenu(self.recent_menu)
        section.addLayout(row(self.new_button, self.open_button, self.recent_button))
        self.name = QLabel()
        self.name.setTextFormat(Qt.TextFormat.PlainText)
        self.name.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.name.setMinimumWidth(1)
        section.addWidget(self.name)
        self.hint, self.missing = Banner(INFO), Banner(WARN)
        section.addWidget(self.hint)
        section.addWidget(self.missing)

    def _build_slides(self) -> None:
        section = self.section("Slides")
        self.list = SlideList(self.study)
        self.list.dropped.connect(self.take)
        self.list.activated.connect(lambda _index: self._open_chosen())
        self.list.selectionModel().selectionChanged.connect(self._on_chosen)
        section.addWidget(self.list, 1)
        self.show_button, self.remove_button, self.relink_button = (
            QPushButton(text) for text in ("Open", "Remove", "Relink…")
        )
        self.show_button.clicked.connect(self._open_chosen)
        self.remove_button.clicked.connect(self._remove)
        self.relink_button.clicked.connect(self._ask_for_relink)
        self.list.delete_pressed.connect(self.remove_button.click)
        section.addLayout(row(self.show_button, self.remove_button, self.relink_button))
        self.add_button, self.add_open_button, self.search_button = (
            QPushButton(text) for text in ("Add slides…", "Add open slide", "Look in folder…")
        )
        self.add_button.clicked.connect(self._ask_for_slides)
        self.add_open_button.clicked.connect(self.study.add_open)
        self.search_button.clicked.connect(self._ask_where)
        section.addLayout(row(self.add_button, self.add_open_button))
        section.addWidget(self.search_button)
        self.bar, self.stop_button = QProgressBar(), QPushButton("Stop")
        self.stop_button.setToolTip("What was done so far stays")
        self.stop_button.clicked.connect(self.study.stop)
        section.addLayout(row(self.bar, self.stop_button, stretch=0))
        self.status = WrappedLabel("")
        section.addWidget(self.status)

    def _build_removed(self) -> None:
        self.restore_button = QPushButton("Restore")
        self.restore_menu = QMenu(self.restore_button)
        self.restore_menu.aboutToShow.connect(self._fill_removed)
        self.restore_button.setMenu(self.restore_menu)
        self.column.addWidget(self.restore_button)

    # What the user does

    def _ask_for_new(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "A new or empty folder for the study", self._near())
        if path:
            self.study.create(Path(path))

    def _ask_for_study(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Folder of a study", self._near())
        if path:
            self.study.choose(Path(path))

    def _ask_for_slides(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Slides to add", "", FILES)
        if paths:
            self._add([Path(path) for path in paths])

    def _add(self, paths: list[Path]) -> None:
        """Whoever adds slides to the study of the slide on screen has chosen it."""
        self.study.keep()
        self.study.add(paths)

    def _ask_for_relink(self) -> None:
        (chosen,) = self.list.chosen()
        path, _ = QFileDialog.getOpenFileName(self, f"Where {chosen.name} is now", "", FILES)
        if path:
            self.study.relink(chosen, Path(path))

    def _ask_where(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Where to look for the slides that have moved")
        if path:
            self.study.search(Path(path))

    def _near(self) -> str:
        return "" if self.study.folder is None else str(self.study.folder.parent)

    def _open_chosen(self) -> None:
        self.study.open(self.list.chosen())

    def _remove(self) -> None:
        """The first click asks, on the button itself; the second one does it."""
        if self._sure.isActive():
            self._sure.stop()
            self.study.remove(self.list.chosen())
        else:
            self._sure.start()
        self._show_buttons()

    def _on_chosen(self) -> None:
        self._sure.stop()
        self._show_buttons()

    def take(self, paths: list[Path]) -> None:
        """What was dropped: a study is opened, and slides are added to it, or to the one that is open."""
        studies = [path for path in paths if (path / "study.json").exists()]
        slides = [path for path in paths if path not in studies]
        if studies:
            self.study.choose(studies[0], slides)
        elif self.study.folder is None:
            self.study.tell_to_choose()
        else:
            self._add(slides)

    def _fill_recent(self) -> None:
        self.recent_menu.clear()
        for folder in self.study.recent():
            action = self.recent_menu.addAction(f"{folder.name}  ({folder.parent})".replace("&", "&&"))
            action.triggered.connect(lambda _on=False, folder=folder: self.study.choose(folder))
        if self.recent_menu.isEmpty():
            self.recent_menu.addAction("No other study was opened yet").setEnabled(False)
        if self.study.chosen:
            self.recent_menu.addSeparator()
            self.recent_menu.addAction("Leave this study").triggered.connect(lambda _on=False: self.study.leave())

    def _fill_removed(self) -> None:
        self.restore_menu.clear()
        for removed in self.study.removed:
            action = self.restore_menu.addAction(removed.name.replace("&", "&&"))
            action.triggered.connect(lambda _on=False, removed=removed: self.study.restore(removed))

    # What is shown

    def _begin(self, view: OpenSlideView) -> None:
        """The study follows the slides by itself."""

    def _show(self) -> None:
        study = self.study
        folder = study.folder
        self.name.setText("" if folder is None else f"{folder.name}   {_slides(len(study.rows))}")
        self.name.setToolTip("" if folder is None else plain_tip(str(folder)))
        self.name.setVisible(folder is not None)
        empty = folder is not None and not study.rows and not study.listing
        self.hint.say(NO_STUDY if folder is None else NO_SLIDES if empty else "" if study.chosen else FOLLOWED)
        self.missing.say(_missing([found.name for found in study.missing]))
        self.list.follow()
        self.bar.setVisible(study.busy)
        self.stop_button.setVisible(study.busy)
        show_progress(self.bar, study.progress)
        self.status.setText(study.progress.message if study.busy and study.progress is not None else study.note)
        self.status.setVisible(bool(self.status.text()))
        self.restore_button.setVisible(bool(study.removed))
        self.restore_button.setText(f"Restore a removed slide ({len(study.removed)})")
        self._show_buttons()

    def _show_buttons(self) -> None:
        study, chosen = self.study, self.list.chosen()
        self.remove_button.setText("Really remove?" if self._sure.isActive() else "Remove")
        kept = "Take it out of the study (Del); what was done on it is kept aside and can be restored"
        for button, reason, what in (
            (self.show_button, why_not_open(study, chosen), "Show it in the viewer, as it was left (Enter)"),
            (self.remove_button, why_not_remove(study, chosen), kept),
            (self.relink_button, why_not_relink(study, chosen), "Say where the slide is now; its content is compared"),
            (self.add_button, why_not_add(study), "Choose one or more slide files; or drop them on the list"),
            (
                self.add_open_button,
                why_not_add_open(study),
                "Keep the work on what is open in this study from now on; what was done before stays where it is",
            ),
            (self.search_button, why_not_search(study), "Find every missing slide in a folder, by content"),
            (self.restore_button, why_not_restore(study), "Put a slide back, with what was done on it"),
        ):
            allow(button, reason and plain_tip(reason), plain_tip(what))  # a reason may name a file
        self.search_button.setVisible(bool(study.missing))

    # Qt's events

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Slides may have moved while nobody looked."""
        super().showEvent(event)
        self.study.refresh()


def _slides(number: int) -> str:
    return f"{number} slide{'s' * (number != 1)}"


def _missing(names: list[str]) -> str:
    if not names:
        return ""
    if len(names) == 1:
        return f"{names[0]} is not where it was: choose it and relink it, or look in a folder."
    return f"{len(names)} slides are not where they were: look in the folder that they were moved to, or relink them."
