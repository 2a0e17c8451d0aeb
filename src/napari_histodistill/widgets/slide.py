"""Dock widget "Slide": open a slide, see what it is, give it a pixel size, find its tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDoubleSpinBox,
    QFileDialog,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
)

from napari_histodistill.errors import HistodistillError, printable
from napari_histodistill.slide.metadata import checked_mpp
from napari_histodistill.slide.tissue import TissueSettings
from napari_histodistill.viewer.guide import NO_SLIDE
from napari_histodistill.viewer.work import tell
from napari_histodistill.widgets.dock import SlidePanel
from napari_histodistill.widgets.parts import (
    WARN,
    Banner,
    Facts,
    Slider,
    WrappedLabel,
    allow,
    narrow,
    row,
    show_progress,
    silent,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from napari.components import ViewerModel
    from numpy.typing import NDArray
    from psygnal import SignalInstance

    from napari_histodistill.slide import Slide
    from napari_histodistill.viewer.slide_view import OpenSlideView
    from napari_histodistill.viewer.tissue import TissueControl

LOAD_SAMPLE = "Load sample"
FACTS = ("File", "Size", "Area", "Objective", "Scanner", "Format", "Levels")
FILES = (
    "Slides (*.svs *.svslide *.tif *.tiff *.ndpi *.vms *.vmu *.scn *.mrxs *.bif *.czi *.dcm *.png *.jpg *.jpeg)"
    ";;All files (*)"
)


class SlideWidget(SlidePanel):
    """The "Slide" dock widget of a viewer."""

    step = (2, "Slide")
    page = "napari.md#slide"

    def _build(self, viewer: ViewerModel) -> None:  # noqa: ARG002
        self._build_slide()
        self._build_tissue()
        self._build_more()

    # Building

    def _build_slide(self) -> None:
        section = self.section("Slide")
        self.open_button = QPushButton("Open slide…")
        self.open_button.setToolTip("A whole-slide file, or an ordinary TIFF, PNG or JPEG")
        self.open_button.clicked.connect(self._ask_for_file)
        self.folder_button = QPushButton("Open OME-Zarr…")
        self.folder_button.setToolTip("An OME-Zarr folder")
        self.folder_button.clicked.connect(self._ask_for_folder)
        section.addLayout(row(self.open_button, self.folder_button))
        self.sample_button = QPushButton(LOAD_SAMPLE)
        self.sample_button.setToolTip(
            "A generated slide to try everything out; drawn when first asked for, some seconds"
        )
        self.sample_button.clicked.connect(self._load_sample)
        section.addWidget(self.sample_button)
        self.facts = Facts(FACTS)
        section.addWidget(self.facts)
        self.mpp_problem = Banner(WARN)
        section.addWidget(self.mpp_problem)
        self.mpp_box = QDoubleSpinBox()
        self.mpp_box.setDecimals(4)
        self.mpp_box.setRange(0, 8)
        self.mpp_box.setSingleStep(0.01)
        self.mpp_box.setSuffix(" µm")
        self.mpp_box.setSpecialValueText("unknown")
        self.mpp_box.setToolTip("Size of a full-resolution pixel: about 0.25 µm at 40x, 0.5 µm at 20x")
        self.mpp_button = QPushButton("Set")
        self.mpp_button.clicked.connect(self._set_mpp)
        section.addLayout(row(QLabel("Pixel size"), self.mpp_box, self.mpp_button, stretch=1))
        self.warnings = Banner(WARN)
        section.addWidget(self.warnings)

    def _build_tissue(self) -> None:
        section = self.section("Tissue")
        self.tissue_warning = Banner(WARN)
        section.addWidget(self.tissue_warning)
        self.find_button = QPushButton("Find tissue")
        self.find_button.clicked.connect(self._find_tissue)
        section.addWidget(self.find_button)
        self.tissue_bar = QProgressBar()
        section.addWidget(self.tissue_bar)
        self.tissue_note = WrappedLabel("")
        section.addWidget(self.tissue_note)
        self.threshold = Slider(
            "Stain needed to count as tissue",
            -0.1,
            0.2,
            0.005,
            "Right: only strongly stained areas. Left: faint ones too. 0 is the threshold found on the slide itself.",
            decimals=3,
        )
        self.threshold.changed.connect(lambda value: self._set_tissue(threshold_offset=value))
        self.smallest = Slider(
            "Leave out pieces smaller than (mm²)", 0, 1, 0.01, "Debris and dust are smaller than tissue."
        )
        self.smallest.changed.connect(lambda value: self._set_tissue(min_area_um2=value * 1e6))
        self.pen = QCheckBox("Mark pen ink")
        self.pen.toggled.connect(lambda on: self._set_tissue(pen=on))
        self.focus = QCheckBox("Mark areas out of focus")
        self.focus.toggled.connect(lambda on: self._set_tissue(focus=on))
        self.blur = Slider("Blur that counts as out of focus", 0, 1, 0.05, "Right: slight blur is marked too.")
        self.blur.changed.connect(lambda value: self._set_tissue(focus_sensitivity=value))
        for widget in (self.threshold, self.smallest, self.pen, self.focus, self.blur):
            section.addWidget(widget)

    def _build_more(self) -> None:
        section = self.section("More")
        self.icc = QCheckBox("Colours by the scanner's ICC profile")
        self.icc.setToolTip("Converts the pixels to sRGB with the profile in the file")
        self.icc.toggled.connect(self._set_icc)
        section.addWidget(self.icc)
        self.pictures = narrow(QComboBox())
        self.picture_button = QPushButton("Show")
        self.picture_button.setToolTip("Opens the picture in a window of its own")
        self.picture_button.clicked.connect(self._show_picture)
        section.addLayout(row(QLabel("Picture"), self.pictures, self.picture_button, stretch=1))
        section.addWidget(WrappedLabel("<i>Label and overview pictures can carry the patient's name.</i>", rich=True))

    # The slide

    def _begin(self, view: OpenSlideView) -> None:
        self._of_view.follow(view.moved, self._show_slide)
        self._of_view.follow(view.reopened, self._show_slide)
        self._of_view.follow(view.tissue.changed, self._show_tissue)

    def _signals_of_progress(self, view: OpenSlideView) -> Iterable[SignalInstance]:
        return (view.moved, view.tissue.changed)

    def _show(self) -> None:
        self._show_slide()
        self._show_tissue()

    def _show_slide(self) -> None:
        view = self.view
        nothing = NO_SLIDE if view is None else ""
        self.sample_button.setVisible(view is None)
        for widget in (self.mpp_box, self.threshold, self.smallest, self.pictures):
            allow(widget, nothing)
        allow(self.pen, nothing, "Pen ink is set aside: no tumour is looked for there")
        allow(self.focus, nothing, "What is out of focus is set aside: no tumour is looked for there")
        allow(self.mpp_button, nothing, "Take this pixel size; every layer of the slide moves along")
        allow(self.find_button, nothing, "Tells tissue from glass, pen ink and blur; again stops it")
        allow(self.icc, nothing)
        allow(self.picture_button, nothing)
        if view is None:
            for name in FACTS:
                self.facts.set(name, "")
            self.facts.set("File", "none open")
            for banner in (self.mpp_problem, self.warnings):
                banner.say("")
            return
        slide = view.slide
        for name, value in describe(slide).items():
            self.facts.set(name, value)
        self.mpp_box.setValue(0 if slide.mpp is None else slide.mpp[1])
        mpp_sentence = checked_mpp(slide.metadata.raw_mpp)[1]
        self.mpp_problem.say(mpp_sentence or "The pixel size is unknown: set it." if slide.mpp is None else "")
        self.warnings.say("\n".join(text for text in slide.warnings if text != mpp_sentence))
        no_profile = "" if slide.has_icc_profile else "The file has no ICC profile"
        allow(self.icc, no_profile, "Converts the pixels to sRGB with the profile in the file")
        with silent(self.icc):
            self.icc.setChecked(view.icc)
        self.pictures.clear()
        self.pictures.addItems(slide.associated_images())
        no_picture = "" if self.pictures.count() else "The file has no label or overview picture"
        allow(self.pictures, no_picture)
        allow(self.picture_button, no_picture, "Opens the picture in a window of its own")

    def _ask_for_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open slide", "", FILES)
        if path:
            self.session.open(path)

    def _load_sample(self) -> None:
        allow(self.sample_button, "The sample is being drawn: some seconds")
        self.sample_button.setText("Drawing the sample…")
        self.session.open_sample(self._sample_is_there)

    def _sample_is_there(self) -> None:
        allow(self.sample_button, "")
        self.sample_button.setText(LOAD_SAMPLE)

    def _ask_for_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Open OME-Zarr")
        if path:
            self.session.open(path)

    def _set_mpp(self) -> None:
        if self.view is None:
            return
        try:
            self.view.set_mpp(self.mpp_box.value())
        except HistodistillError as error:
            tell(error)

    def _set_icc(self, on: bool) -> None:
        if self.view is not None:
            self.view.set_icc(on)

    def _show_picture(self) -> None:
        if self.view is None:
            return
        name = self.pictures.currentText()
        try:
            picture = self.view.slide.associated_image(name)
        except HistodistillError as error:
            tell(error)
            return
        dialog = picture_dialog(picture, f"{self.view.slide.name}: {name}")
        dialog.setParent(self, dialog.windowFlags())
        dialog.show()

    # Tissue

    def _find_tissue(self) -> None:
        if self.view is None:
            return
        if self.view.tissue.busy:
            self.view.tissue.cancel()
        else:
            self.view.tissue.find()
            self.view.tissue.show()

    def _set_tissue(self, **settings: Any) -> None:
        if self.view is not None:
            self.view.tissue.set(**settings)
        self._allow_blur()

    def _show_tissue(self) -> None:
        tissue = None if self.view is None else self.view.tissue
        self.tissue_warning.say("" if tissue is None else "\n".join(tissue.warnings))
        busy = tissue is not None and tissue.busy
        self.tissue_bar.setVisible(busy)
        self.find_button.setText("Cancel" if busy else "Find tissue")
        if tissue is None:
            self.tissue_note.setText("")
            self._show_settings(TissueSettings())
            return
        show_progress(self.tissue_bar, tissue.progress)
        self.tissue_note.setText(_tissue_text(tissue))
        self._show_settings(tissue.settings)

    def _show_settings(self, settings: TissueSettings) -> None:
        self.threshold.show_value(settings.threshold_offset)
        self.smallest.show_value(settings.min_area_um2 / 1e6)
        self.blur.show_value(settings.focus_sensitivity)
        for box, on in ((self.pen, settings.pen), (self.focus, settings.focus)):
            with silent(box):
                box.setChecked(on)
        self._allow_blur()

    def _allow_blur(self) -> None:
        unmarked = "" if self.focus.isChecked() else f"Tick “{self.focus.text()}” first"
        allow(self.blur, NO_SLIDE if self.view is None else unmarked)


def describe(slide: Slide) -> dict[str, str]:
    """What the widget says about a slide, by the names in `FACTS`."""
    height, width = slide.shape
    area = ""
    if slide.mpp is not None:
        area = f"{width * slide.mpp[1] / 1000:.1f} × {height * slide.mpp[0] / 1000:.1f} mm"
    power = slide.metadata.objective_power
    downsamples = ", ".join(f"1/{level.downsample[0]:.4g}" for level in slide.levels[1:])
    return {
        "File": slide.name,
        "Size": f"{width:,} × {height:,} px".replace(",", " "),
        "Area": area,
        "Objective": "" if power is None else f"{power:g}×",
        "Scanner": "" if slide.metadata.vendor in (None, "generic-tiff") else slide.metadata.vendor,
        "Format": slide.format,
        "Levels": "full size" + (f", {downsamples}" if downsamples else " only"),
    }


def _tissue_text(tissue: TissueControl) -> str:
    if tissue.mask is None:
        return "Tissue is found from the stain, pen ink and blur are set aside. The result can be painted."
    lines = [f"Tissue {tissue.fraction:.1%} of the slide, set aside {tissue.artefact_fraction:.1%}"]
    if tissue.mask.has_edits:
        lines.append("Edited by hand: edits stay when settings change.")
    return "\n".join(lines)


def picture_dialog(picture: NDArray[np.uint8], title: str) -> QDialog:
    """A window with an RGB picture, shrunk to fit a laptop's screen."""
    dialog = QDialog()
    dialog.setWindowTitle(printable(title))
    height, width, _ = picture.shape
    image = QImage(picture.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()
    label = QLabel()
    pixmap = QPixmap.fromImage(image)
    if max(height, width) > 640:
        mode = Qt.TransformationMode.SmoothTransformation
        pixmap = pixmap.scaled(640, 640, Qt.AspectRatioMode.KeepAspectRatio, mode)
    label.setPixmap(pixmap)
    QVBoxLayout(dialog).addWidget(label)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    return dialog
