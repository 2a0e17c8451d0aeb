"""Dock widget "Teacher": choose a model and a study, run it over the slide, set the threshold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QMessageBox,
    QProgressBar,
    QPushButton,
)

from napari_histodistill.nets.card import bundled_models
from napari_histodistill.viewer.guide import NO_SLIDE
from napari_histodistill.viewer.layers import Role
from napari_histodistill.viewer.teacher import TeacherState
from napari_histodistill.widgets.correct import CorrectWidget
from napari_histodistill.widgets.dock import ControlPanel
from napari_histodistill.widgets.parts import (
    ERROR,
    INFO,
    WARN,
    Banner,
    Facts,
    Slider,
    WrappedLabel,
    allow,
    fold,
    plain_tip,
    row,
    show_progress,
    silent,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_histodistill.nets import ModelCard
    from napari_histodistill.viewer.slide_view import OpenSlideView
    from napari_histodistill.viewer.teacher import TeacherControl

DEVICES: Final = {"Automatic": "auto", "Processor (CPU)": "cpu", "NVIDIA (CUDA)": "cuda", "Apple (MPS)": "mps"}
MODEL_NAMES: Final = {"bundled": "Bundled teacher", "bundled-student": "Bundled student (distilled)"}
FIGURES: Final = ("Tumour", "Share of tissue", "Mean probability", "Corrections")
NOT_RUNNING: Final = "Nothing is running"
CORRECT_DOCK: Final = "Correct (HistoDistill)"
"""As napari's menu calls it, so that the menu finds it and opens no second one."""
RUN_TEXTS: Final = {
    TeacherState.PARTIAL: "Resume",
    TeacherState.DONE: "Run again",
    TeacherState.STALE: "Run again",
}


class TeacherWidget(ControlPanel["TeacherControl"]):
    """The "Teacher" dock widget of a viewer."""

    step = (3, "Teacher")
    page = "napari.md#teacher"

    def _build(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._build_model()
        self._build_run()
        self._build_result()
        self._build_corrections()

    def _control_of(self, view: OpenSlideView) -> TeacherControl:
        return view.teacher

    # Building

    def _build_model(self) -> None:
        section = self.section("Model")
        self.models = QComboBox()
        for name in bundled_models():
            self.models.addItem(MODEL_NAMES[name], name)
        self.models.setToolTip("The model that comes with this plugin, or a folder with model.json")
        self.models.activated.connect(lambda: self._do(lambda teacher: teacher.choose_model(self.models.currentData())))
        self.model_button = QPushButton("Folder…")
        self.model_button.clicked.connect(self._ask_for_model)
        section.addLayout(row(self.models, self.model_button, stretch=0))
        self.scope = Banner(INFO)
        section.addWidget(self.scope)
        self.about = WrappedLabel("")
        details = fold("About this model")
        details.addWidget(self.about)
        section.addWidget(details)

    def _build_run(self) -> None:
        section = self.section("Run")
        self.problem = Banner(ERROR)
        section.addWidget(self.problem)
        self.he_warning = Banner(WARN)
        section.addWidget(self.he_warning)
        self.folder = QLineEdit()
        self.folder.setReadOnly(True)
        self.folder.setToolTip("Results and corrections are kept in this folder")
        self.folder_button = QPushButton("Change…")
        self.folder_button.clicked.connect(self._ask_for_study)
        section.addLayout(row(QLabel("Study"), self.folder, self.folder_button, stretch=1))
        self.devices = QComboBox()
        self.devices.setToolTip("The processor, or a graphics card where there is one, which is faster")
        for name, device in DEVICES.items():
            self.devices.addItem(name, device)
        self.devices.currentIndexChanged.connect(
            lambda: self._do(lambda teacher: teacher.choose_device(self.devices.currentData()))
        )
        section.addLayout(row(QLabel("Compute on"), self.devices, stretch=1))
        self.run_button, self.pause_button, self.cancel_button = (
            QPushButton(text) for text in ("Run", "Pause", "Cancel")
        )
        self.run_button.clicked.connect(
            lambda: self._do(lambda teacher: teacher.run(resume=teacher.state is TeacherState.PARTIAL))
        )
        self.pause_button.clicked.connect(lambda: self._do(lambda teacher: teacher.pause()))
        self.cancel_button.clicked.connect(lambda: self._do(lambda teacher: teacher.cancel()))
        section.addLayout(row(self.run_button, self.pause_button, self.cancel_button, stretch=0))
        self.bar = QProgressBar()
        section.addWidget(self.bar)
        self.status = WrappedLabel("")
        section.addWidget(self.status)

    def _build_result(self) -> None:
        section = self.section("Result")
        self.show_mask, self.show_probability = QCheckBox("Tumour mask"), QCheckBox("Probability")
        self.show_mask.toggled.connect(lambda on: self._show_layer(Role.PSEUDO_MASK, on))
        self.show_probability.toggled.connect(lambda on: self._show_layer(Role.PROBABILITY, on))
        section.addLayout(row(QLabel("Show"), self.show_mask, self.show_probability))
        self.threshold = Slider(
            "Tumour where the probability is at least",
            0.01,
            0.99,
            0.01,
            "Left: more counts as tumour. Right: only what is certain.",
        )
        self.threshold.changed.connect(lambda value: self._do(lambda teacher: teacher.set_mask(threshold=value)))
        self.smoothing = Slider(
            "Smooth over (µm)", 0, 100, 1, "Evens out the mask: small spots go, outlines get rounder.", decimals=0
        )
        self.smoothing.changed.connect(lambda um: self._do(lambda teacher: teacher.set_mask(smoothing_um=um)))
        self.support = Slider(
            "Support by the surroundings",
            0,
            0.95,
            0.01,
            "Tumour needs this score around it: lone spots in tissue that looks normal go. 0: none needed.",
        )
        self.support.changed.connect(lambda score: self._do(lambda teacher: teacher.set_mask(support=score)))
        self.figures = Facts(FIGURES)
        for widget in (self.threshold, self.smoothing, self.support, self.figures):
            section.addWidget(widget)

    def _build_corrections(self) -> None:
        self.correct_button = QPushButton("Correct the mask…")
        self.correct_button.setToolTip("Opens the Correct widget: brush, lasso, undo, outlines")
        self.correct_button.clicked.connect(self._open_correct)
        self.column.addWidget(self.correct_button)

    # What the user does

    def _ask_for_model(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Folder of a model")
        if path:
            self._do(lambda teacher: teacher.choose_model(path))

    def _ask_for_study(self) -> None:
        teacher = self.control
        if teacher is None:
            return
        start = teacher.study_folder if teacher.study_folder.exists() else teacher.study_folder.parent
        path = QFileDialog.getExistingDirectory(self, "Study folder: a new one, or one with results", str(start))
        if path:
            teacher.choose_study(Path(path))

    def _show_layer(self, role: Role, on: bool) -> None:
        teacher = self.control
        if self.view is None or teacher is None or teacher.result is None:
            return
        if on and self.view.layer(role) is None:
            teacher.result.show()
        layer = self.view.layer(role)
        if layer is not None:
            layer.visible = on

    def _open_correct(self) -> None:
        """Show the Correct dock: the one that is open, else one of the name that napari's menu gives it."""
        window = self.window() if self.dock is None else self.dock.parent()  # a dock may be in a window of its own
        there = window.findChildren(CorrectWidget)
        panel = there[0] if there else CorrectWidget(self._viewer)
        dock = panel.dock if there else self._viewer.window.add_dock_widget(panel, name=CORRECT_DOCK)
        if dock is not None:
            dock.show()
            dock.raise_()  # one that is open already may lie behind another tab

    # What is shown

    def _begin(self, view: OpenSlideView) -> None:
        view.teacher.ask = ask
        self._of_view.follow(view.teacher.changed, self._show)

    def _show(self) -> None:
        teacher = self.control
        self._show_model(teacher)
        self._show_run(teacher)
        self._show_result(teacher)

    def _show_model(self, teacher: TeacherControl | None) -> None:
        for widget in (self.models, self.model_button):
            allow(widget, _why_fixed(teacher))
        if teacher is None or teacher.card is None:
            self.scope.say(NO_SLIDE if teacher is None else "")
            self.about.setText("")
            return
        if self.models.findData(teacher.model) < 0:
            self.models.addItem(Path(teacher.model).name, teacher.model)
        self.models.setCurrentIndex(self.models.findData(teacher.model))
        seen = teacher.result is not None  # by now; the sentences are still under "About this model"
        self.scope.say(" ".join(teacher.card.scope[:1] if seen else teacher.card.scope))
        self.about.setText(about(teacher.card))

    def _show_run(self, teacher: TeacherControl | None) -> None:
        state = None if teacher is None else teacher.state
        busy = state is not None and state.busy
        ready = teacher is not None and state is not TeacherState.NO_MPP and not teacher.problem
        for widget in (self.folder_button, self.devices):
            allow(widget, _why_fixed(teacher))
        missing = NO_SLIDE if teacher is None or state is None else teacher.problem or ("" if ready else state.value)
        allow(self.run_button, "The teacher is at work" if busy else missing, "Find tumour on the whole slide")
        self.run_button.setText(RUN_TEXTS.get(state, "Run") if state is not None else "Run")
        can_pause = state in {TeacherState.RUNNING, TeacherState.PAUSED}
        allow(self.pause_button, "" if can_pause else NOT_RUNNING, "Hold the work, or let it go on")
        self.pause_button.setText("Go on" if state is TeacherState.PAUSED else "Pause")
        can_cancel = busy and state is not TeacherState.STOPPING
        allow(self.cancel_button, "" if can_cancel else NOT_RUNNING, "Stop; what was computed is kept for Resume")
        self.bar.setVisible(busy)
        self.problem.say("" if teacher is None else teacher.problem)
        not_he = self.view is not None and self.view.tissue.looks_like_he is False
        self.he_warning.say("This slide does not look like H&E: the result would mean nothing." if not_he else "")
        if teacher is None or state is None:
            self.folder.setText("")
            self.status.setText("")
            return
        self.folder.setText(str(teacher.study_folder))
        self.folder.setToolTip(plain_tip(f"Results and corrections are kept in {teacher.study_folder}"))
        self.devices.setCurrentIndex(self.devices.findData(teacher.device))
        progress = teacher.progress
        show_progress(self.bar, progress)
        parts = [state.value]
        if progress is not None and busy:
            parts += [text for text in (progress.message, time_left(progress.eta)) if text]
        self.status.setText(" · ".join(parts))

    def _show_result(self, teacher: TeacherControl | None) -> None:
        result = None if teacher is None else teacher.result
        none = "" if result is not None else "There is no result yet: run the teacher"
        allow(self.show_mask, none, "Tumour in green, what is ignored in grey")
        allow(self.show_probability, none, "What the model says, from yellow to red")
        allow(self.correct_button, none, "Opens the Correct widget: brush, lasso, undo, outlines")
        for slider in (self.threshold, self.smoothing, self.support):
            allow(slider, NO_SLIDE if teacher is None else "")
        if teacher is not None:
            self.threshold.show_value(teacher.mask_settings.threshold)
            self.smoothing.show_value(teacher.mask_settings.smoothing_um)
            self.support.show_value(teacher.mask_settings.support)
        for box, role in ((self.show_mask, Role.PSEUDO_MASK), (self.show_probability, Role.PROBABILITY)):
            layer = None if self.view is None else self.view.layer(role)
            with silent(box):
                box.setChecked(layer is not None and layer.visible)
        if result is None:
            for name in FIGURES:
                self.figures.set(name, "")
            return
        figures = result.figures
        self.figures.set("Tumour", f"{figures.tumour_mm2:.3f} mm²")
        self.figures.set("Share of tissue", f"{figures.tumour_percent:.1f} % of {figures.tissue_mm2:.1f} mm²")
        self.figures.set("Mean probability", f"{figures.mean_probability:.2f}")
        self.figures.set("Corrections", result.saved_state)


def ask(question: str) -> bool:
    """Ask in a window of its own: the dock may be closed by the time that tissue is found."""
    answer = QMessageBox.question(QApplication.activeWindow(), "HistoDistill", question)
    return bool(answer == QMessageBox.StandardButton.Yes)


def _why_fixed(teacher: TeacherControl | None) -> str:
    if teacher is None:
        return NO_SLIDE
    return "The teacher is at work: wait for it, or cancel it" if teacher.state.busy else ""


def about(card: ModelCard) -> str:
    """What a model was trained on and how well it does, for people."""
    training = card.training
    lines = [" ".join(card.scope), f"{card.name}: {card.organ}, {card.stain}, read at {card.mpp:g} µm/px."]
    lines += [text for text in (training.data, training.labels, training.terms, training.citation) if text]
    for data, figures in card.figures.items():
        if isinstance(figures, dict):
            numbers = ", ".join(f"{name} {value:.2f}" for name, value in figures.items() if isinstance(value, float))
            lines.append(f"{data}: {numbers}")
    return "\n\n".join(lines)


def time_left(seconds: float | None) -> str:
    """How long it will take, in words; empty if unknown."""
    if seconds is None:
        return ""
    if seconds < 60:
        return "less than a minute left"
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes < 90 else f"about {seconds / 3600:.1f} h left"
