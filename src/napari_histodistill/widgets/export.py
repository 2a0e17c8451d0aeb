"""Dock widget "Export": files for other tools, files of other tools into the study, copies as plain layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
)

from napari_histodistill.errors import HistodistillError
from napari_histodistill.export import ExportOptions, read_classes
from napari_histodistill.viewer.export import ExportState
from napari_histodistill.viewer.guide import NO_SLIDE
from napari_histodistill.viewer.work import tell
from napari_histodistill.widgets.dock import ControlPanel
from napari_histodistill.widgets.parts import INFO, Banner, WrappedLabel, allow, narrow, plain_tip, row, show_progress

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QWidget

    from napari_histodistill.viewer.export import ExportControl
    from napari_histodistill.viewer.slide_view import OpenSlideView

WHAT_TIP: Final = "The tumour mask as it is on screen, or only what you set by hand"
WHAT: Final = {"Mask with corrections": "pseudo", "Corrections only": "corrections"}
FORMATS: Final = {
    "Outlines for QuPath (GeoJSON)": (
        "geojson",
        "Polygons with area and mean probability, imported in place",
    ),
    "Outlines for ASAP (XML)": ("asap-xml", "Polygons; holes are polygons of the group Exclude"),
    "Mask as OME-TIFF": ("ome-tiff", "Label values in a tiled pyramid: QuPath, Fiji, OpenSlide"),
    "Mask and probability as OME-Zarr": ("ome-zarr", "Labels and probability in a folder: napari, OMERO, Python"),
    "Pictures (PNG)": ("png", "The slide with the mask laid over it, the mask's values, the probability"),
    "Numbers (CSV)": ("csv", "Areas of the whole slide, and a line for every region"),
}
OUTLINED: Final = {"geojson", "asap-xml", "csv"}
FILES: Final = "Annotations and masks (*.geojson *.json *.xml *.png *.tif *.tiff);;All files (*)"


class ExportWidget(ControlPanel["ExportControl"]):
    """The "Export" dock widget of a viewer."""

    step = (6, "Export")
    page = "export.md"

    def _build(self, viewer: ViewerModel) -> None:  # noqa: ARG002
        self.problem = Banner(INFO)
        self.column.addWidget(self.problem)
        self._build_work()
        self._build_out()
        self._build_in()
        self._build_copy()

    def _control_of(self, view: OpenSlideView) -> ExportControl:
        return view.export

    # Building

    def _build_out(self) -> None:
        section = self.section("Save files")
        self.what, self.formats = _choice(WHAT, WHAT_TIP), _choice({}, "For which program; what it holds stands below")
        for name, (format_, tip) in FORMATS.items():
            self.formats.addItem(name, format_)
            self.formats.setItemData(self.formats.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        section.addLayout(row(QLabel("What"), self.what, stretch=1))
        section.addLayout(row(QLabel("As"), self.formats, stretch=1))
        self.hint = WrappedLabel("", rich=True)
        section.addWidget(self.hint)
        self.tolerance = _number("nothing", "µm", "Lines may miss the outline of the mask by this much")
        self.tolerance_label = QLabel("Simplify by up to")
        self.mpp = _number("as the mask", "µm per pixel", "Size of a pixel of the pictures")
        self.mpp_label = QLabel("Pixels of")
        section.addLayout(row(self.tolerance_label, self.tolerance, stretch=1))
        section.addLayout(row(self.mpp_label, self.mpp, stretch=1))
        self.folder = QLineEdit()
        self.folder.setReadOnly(True)
        self.folder_button = QPushButton("Change…")
        section.addLayout(row(QLabel("Into"), self.folder, self.folder_button, stretch=1))
        self.export_button, self.show_button = QPushButton("Export"), QPushButton("Show files")
        section.addLayout(row(self.export_button, self.show_button))
        self.what.currentIndexChanged.connect(self._choose)
        self.formats.currentIndexChanged.connect(self._choose)
        self.tolerance.valueChanged.connect(self._choose)
        self.mpp.valueChanged.connect(self._choose)
        self.folder_button.clicked.connect(self._ask_for_folder)
        self.export_button.clicked.connect(lambda: self._do(lambda control: control.run()))
        self.show_button.clicked.connect(self._show_files)

    def _build_in(self) -> None:
        section = self.section("Import")
        self.kind = _choice(
            {"As corrections": "corrections", "In place of the mask": "pseudo"},
            "Laid over what you corrected, or as the mask itself, with your corrections on top",
        )
        self.import_mpp = _number("as the file says", "µm per pixel", "Size of the pixels of a mask image")
        section.addLayout(row(QLabel("Take it in"), self.kind, stretch=1))
        section.addLayout(row(QLabel("Pixels of a mask"), self.import_mpp, stretch=1))
        self.classes = QLineEdit()
        self.classes.setPlaceholderText("Stroma=normal")
        self.classes.setToolTip(
            "What class names of the file mean: tumour, normal, ignore or outside. For instance Stroma=normal, "
            "Gland=tumour. Usual ones are known"
        )
        section.addLayout(row(QLabel("Classes mean"), self.classes, stretch=1))
        self.import_button, self.import_folder_button = QPushButton("Import…"), QPushButton("OME-Zarr…")
        self.import_button.setToolTip("GeoJSON, ASAP XML, or a mask as PNG or TIFF; shown before it is written")
        self.import_folder_button.setToolTip("A mask in an OME-Zarr folder; shown before it is written")
        self.undo_button = QPushButton("Undo")
        section.addLayout(row(self.import_button, self.import_folder_button))
        section.addWidget(self.undo_button)
        self.undo_button.clicked.connect(lambda: self._do(lambda control: control.undo()))
        self.import_button.clicked.connect(self._ask_for_file)
        self.import_folder_button.clicked.connect(self._ask_for_zarr)

    def _build_copy(self) -> None:
        section = self.section("Copy as a plain layer")
        self.copy_what = _choice(WHAT, WHAT_TIP)
        self.copy_mpp = _number("as the mask", "µm per pixel", "Size of the copy's pixels")
        self.visible_only = QCheckBox("Only what is on screen")
        self.copy_button = QPushButton("Copy as layer")
        self.copy_button.setToolTip("A Labels layer for other plugins; what is done to it is not kept in the study")
        section.addLayout(row(QLabel("What"), self.copy_what, stretch=1))
        section.addLayout(row(QLabel("Pixels of"), self.copy_mpp, stretch=1))
        section.addWidget(self.visible_only)
        section.addWidget(self.copy_button)
        self.copy_button.clicked.connect(self._copy)

    def _build_work(self) -> None:
        self.bar = QProgressBar()
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.clicked.connect(lambda: self._do(lambda control: control.cancel()))
        self.column.addLayout(row(self.bar, self.cancel_button, stretch=0))
        self.status = WrappedLabel("")
        self.column.addWidget(self.status)
        self.apply_button, self.discard_button = QPushButton("Apply"), QPushButton("Discard")
        self.apply_button.clicked.connect(lambda: self._do(lambda control: control.apply()))
        self.discard_button.clicked.connect(lambda: self._do(lambda control: control.discard()))
        self.column.addLayout(row(self.apply_button, self.discard_button))

    # What the user does

    def _choose(self, _value: object = None) -> None:
        if self.control is not None:
            options = ExportOptions(self.tolerance.value() or None, self.mpp.value() or None)
            self.control.choose(what=self.what.currentData(), format_=self.formats.currentData(), options=options)

    def _ask_for_folder(self) -> None:
        if self.control is not None:
            path = QFileDialog.getExistingDirectory(self, "Folder for the files", str(self.control.place or ""))
            if path:
                self.control.choose_folder(Path(path))

    def _show_files(self) -> None:
        if self.control is not None and self.control.written:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.control.written[0].parent)))

    def _ask_for_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Annotations or a mask", "", FILES)
        self._read(path)

    def _ask_for_zarr(self) -> None:
        self._read(QFileDialog.getExistingDirectory(self, "OME-Zarr folder of a mask"))

    def _read(self, path: str) -> None:
        if path and self.control is not None:
            try:
                classes = read_classes(self.classes.text().split(","))
            except HistodistillError as error:
                tell(error)
                return
            self.control.read_file(Path(path), self.kind.currentData(), self.import_mpp.value() or None, classes)

    def _copy(self) -> None:
        if self.control is not None:
            self.control.copy_as_layer(
                self.copy_what.currentData(), self.copy_mpp.value() or None, visible_only=self.visible_only.isChecked()
            )

    # What is shown

    def _begin(self, view: OpenSlideView) -> None:
        self._of_view.follow(view.export.changed, self._show)
        self._choose()

    def _show(self) -> None:
        control = self.control
        state = None if control is None else control.state
        problem = NO_SLIDE if control is None else control.problem
        busy = state is not None and state.busy
        occupied = problem or ("Files are being read or written: a moment, or cancel it" if busy else "")
        self.problem.say(problem)
        for widget in (
            self.what, self.formats, self.tolerance, self.mpp, self.folder_button, self.export_button, self.kind,
            self.import_mpp, self.classes, self.import_button, self.import_folder_button, self.copy_what, self.copy_mpp,
            self.visible_only, self.copy_button,
        ):  # fmt: skip
            allow(widget, occupied)
        undo_text = "" if control is None else control.undo_text
        self.undo_button.setVisible(bool(undo_text))
        self.undo_button.setText("Undo the import")
        allow(self.undo_button, occupied, plain_tip(f"Take back the {undo_text}"))
        written = control is not None and bool(control.written)
        allow(self.show_button, "" if written else "Nothing has been exported yet", "Open the folder of the files")
        for button in (self.apply_button, self.discard_button):
            button.setVisible(control is not None and control.preview is not None)
            allow(button, occupied)
        format_ = self.formats.currentData()
        self.hint.setText(f"<i>{FORMATS[self.formats.currentText()][1]}.</i>")
        _set_visible(format_ in OUTLINED, self.tolerance, self.tolerance_label)
        _set_visible(format_ == "png", self.mpp, self.mpp_label)
        place = None if control is None else control.place
        self.folder.setText("" if place is None else str(place))
        self.folder.setToolTip(plain_tip(self.folder.text()))
        _set_visible(busy, self.bar, self.cancel_button)
        if control is None or state is None:
            self.status.setVisible(False)
            return
        show_progress(self.bar, control.progress)
        told = [state.value if busy or state is ExportState.PREVIEW else "", control.message]
        self.status.setText("\n".join(text for text in told if text))
        self.status.setVisible(bool(self.status.text()))


def _choice(entries: dict[str, str], tip: str) -> QComboBox:
    """A box to choose from, no wider than the panel."""
    box = narrow(QComboBox())
    box.setToolTip(tip)
    for name, value in entries.items():
        box.addItem(name, value)
    return box


def _number(nothing: str, unit: str, tip: str) -> QDoubleSpinBox:
    """A box for a number above 0 with its unit; 0 is shown as ``nothing``."""
    box = QDoubleSpinBox()
    box.setRange(0, 1000)
    box.setDecimals(2)
    box.setSingleStep(0.5)
    box.setSuffix(f" {unit}")
    box.setSpecialValueText(nothing)
    box.setToolTip(f"{tip}; 0: {nothing}")
    box.setMinimumWidth(90)
    return box


def _set_visible(visible: bool, *widgets: QWidget) -> None:
    for widget in widgets:
        widget.setVisible(visible)
