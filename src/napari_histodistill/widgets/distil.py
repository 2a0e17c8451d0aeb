"""Dock widget "Distil": let the model learn from the mask and its corrections, round by round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)
from superqt import QCollapsible

from napari_histodistill.distill import RECIPES
from napari_histodistill.mil.settings import Epoch
from napari_histodistill.study import SlideLabel
from napari_histodistill.viewer.colours import ADDED_COLOUR, GONE_COLOUR, PREDICTION_COLOUR, TUMOUR_COLOUR
from napari_histodistill.viewer.distil import DistilState, Scope
from napari_histodistill.viewer.guide import NO_SLIDE
from napari_histodistill.viewer.layers import Role
from napari_histodistill.widgets.curves import Curves
from napari_histodistill.widgets.dock import ControlPanel
from napari_histodistill.widgets.parts import (
    INFO,
    WARN,
    Banner,
    WrappedLabel,
    allow,
    narrow,
    row,
    show_progress,
    silent,
    swatch,
)
from napari_histodistill.widgets.teacher import DEVICES, NOT_RUNNING, time_left

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from qtpy.QtGui import QHideEvent

    from napari_histodistill.distill.rounds import Round
    from napari_histodistill.viewer.distil import DistilControl
    from napari_histodistill.viewer.slides import OpenSlideView

LABELS: Final = {
    "not said yet": SlideLabel.UNKNOWN,
    "holds tumour": SlideLabel.TUMOUR,
    "is normal": SlideLabel.NORMAL,
}
COLUMNS: Final = ("Round", "Outcome", "Score", "Before")
COLUMN_TIPS: Final = (
    "Number of the round; ★ marks the best model",
    "promoted: better than the best before, on evidence. not better: the best before stays. unverified: nothing tells",
    "How well the round's model does on corrections that it did not learn from; a dash without such evidence",
    "The same of the best model before the round",
)
PREDICTION_TIP: Final = "What the model says; corrected pixels show what you set"
DIFFERENCE_TIP: Final = "Where the prediction and the tumour mask that you correct disagree"
TABLE_HEIGHT: Final = 150


class DistilWidget(ControlPanel["DistilControl"]):
    """The "Distil" dock widget of a viewer."""

    step = (4, "Distil")
    page = "napari.md#distilling"

    def _build(self, viewer: ViewerModel) -> None:  # noqa: ARG002
        self._build_choices()
        self._build_run()
        self._build_shown()
        self._build_rounds()

    def _control_of(self, view: OpenSlideView) -> DistilControl:
        return view.distil

    # Building

    def _build_choices(self) -> None:
        section = self.section("Learn")
        self.reason, self.advice = Banner(INFO), Banner(WARN)
        section.addWidget(self.reason)
        section.addWidget(self.advice)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.label = narrow(QComboBox())
        self.label.setToolTip("What is known of the slide as a whole; kept in the study")
        for text, value in LABELS.items():
            self.label.addItem(text, value)
        self.label.activated.connect(lambda: self._do(lambda control: control.set_label(self.label.currentData())))
        self.scope = narrow(QComboBox())
        self.scope.setToolTip("Where the model learns; the prediction is refreshed for the whole of this slide")
        for scope in Scope:
            self.scope.addItem(scope.value, scope)
        self.rounds = QSpinBox()
        self.rounds.setRange(1, 50)
        self.rounds.setToolTip("Rounds to do now; corrections that you make meanwhile go into the next one")
        form.addRow("This slide", self.label)
        form.addRow("Learn from", self.scope)
        form.addRow("Rounds", self.rounds)
        section.addLayout(form)
        self.more = QCollapsible("More settings")
        inside = QWidget()
        inner = QFormLayout(inside)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.epochs, self.tiles = QSpinBox(), QSpinBox()
        self.epochs.setRange(1, 100)
        self.epochs.setToolTip("Passes over the training tiles in a round")
        self.tiles.setRange(20, 5000)
        self.tiles.setSingleStep(50)
        self.tiles.setToolTip("At most this many tiles are learnt from in a round; those with corrections come first")
        self.weight = QDoubleSpinBox()
        self.weight.setRange(1, 15)
        self.weight.setToolTip("How much a corrected pixel counts beside one that the model labelled itself")
        self.recipe = narrow(QComboBox())
        self.recipe.addItems(list(RECIPES))
        self.recipe.setToolTip("default: the best found; paper: as He, Li and Zemp (2024) did it, slow on a CPU")
        self.devices = narrow(QComboBox())
        for name, device in DEVICES.items():
            self.devices.addItem(name, device)
        for name, widget in (
            ("Epochs", self.epochs),
            ("Tiles", self.tiles),
            ("Your weight", self.weight),
            ("Recipe", self.recipe),
            ("Compute on", self.devices),
        ):
            inner.addRow(name, widget)
        self.more.addWidget(inside)
        section.addWidget(self.more)

    def _build_run(self) -> None:
        section = self.section("Rounds")
        self.start_button, self.pause_button, self.stop_button = (
            QPushButton(text) for text in ("Start", "Pause", "Stop")
        )
        self.start_button.clicked.connect(self._start)
        self.pause_button.clicked.connect(lambda: self._do(lambda control: control.pause()))
        self.stop_button.clicked.connect(lambda: self._do(lambda control: control.stop()))
        section.addLayout(row(self.start_button, self.pause_button, self.stop_button))
        self.bar = QProgressBar()
        self.status = WrappedLabel("")
        section.addWidget(self.bar)
        section.addWidget(self.status)
        self.curves = Curves()
        section.addWidget(self.curves)

    def _build_shown(self) -> None:
        section = self.section("Shown")
        self.title = WrappedLabel("")
        section.addWidget(self.title)
        self.show_prediction = QCheckBox("Prediction")
        self.show_prediction.setIcon(swatch(PREDICTION_COLOUR))
        self.show_prediction.toggled.connect(lambda on: self._show_layer(Role.PREDICTION, on))
        self.show_mask = QCheckBox("Tumour mask, which you correct")
        self.show_mask.setIcon(swatch(TUMOUR_COLOUR))
        self.show_mask.toggled.connect(lambda on: self._show_layer(Role.PSEUDO_MASK, on))
        self.show_difference = QCheckBox("Difference of the two")
        self.show_difference.toggled.connect(self._show_difference)
        section.addWidget(self.show_prediction)
        section.addWidget(self.show_mask)
        section.addWidget(self.show_difference)
        added, removed = QLabel("new tumour"), QLabel("no longer tumour")
        for label, colour in ((added, ADDED_COLOUR), (removed, GONE_COLOUR)):
            rgb = ", ".join(str(round(255 * c)) for c in colour[:3])
            label.setText(f'<span style="color: rgb({rgb})">■</span> {label.text()}')
        self.legend = (added, removed)
        section.addLayout(row(added, removed, stretch=1))

    def _build_rounds(self) -> None:
        section = self.section("History")
        self.table = QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels(COLUMNS)
        self.table.verticalHeader().hide()
        for column, tip in enumerate(COLUMN_TIPS):
            self.table.horizontalHeaderItem(column).setToolTip(tip)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.horizontalHeader().setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.table.horizontalHeader().setMinimumSectionSize(40)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setFixedHeight(TABLE_HEIGHT)
        self.table.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.table.itemSelectionChanged.connect(self._show_buttons)
        section.addWidget(self.table)
        self.pin_button, self.follow_button, self.take_button, self.adopt_button = (
            QPushButton(text) for text in ("Pin", "Follow", "Take as best", "Use as mask")
        )
        self.pin_button.clicked.connect(self._pin)
        self.follow_button.clicked.connect(lambda: self._do(lambda control: control.pin(None)))
        self.take_button.clicked.connect(self._take)
        self.adopt_button.clicked.connect(self._adopt)
        section.addLayout(row(self.pin_button, self.follow_button))
        section.addLayout(row(self.take_button, self.adopt_button))

    # What the user does

    def _start(self) -> None:
        self._keep_choices()
        self._do(lambda control: control.start())

    def _keep_choices(self) -> None:
        """Tell the control what is chosen, which outlives this dock and a look at another slide."""
        if self.control is None:
            return
        chosen = self.control.settings
        chosen.rounds, chosen.epochs = self.rounds.value(), self.epochs.value()
        chosen.scope, chosen.most_tiles = self.scope.currentData(), self.tiles.value()
        chosen.correction_weight, chosen.recipe = self.weight.value(), self.recipe.currentText()
        chosen.device = self.devices.currentData()

    def _chosen_round(self) -> int | None:
        rows = self.table.selectionModel().selectedRows()
        return rows[0].row() + 1 if rows else None

    def _pin(self) -> None:
        number = self._chosen_round()
        if self.control is not None and number is not None:
            self.control.pin(number)

    def _adopt(self) -> None:
        number = self._chosen_round()
        if number is not None:
            self._do(lambda control: control.adopt(number))

    def _take(self) -> None:
        number = self._chosen_round()
        if self.control is not None and number is not None:
            self.control.take(number)

    def _show_layer(self, role: Role, on: bool) -> None:
        layer = None if self.view is None else self.view.layer(role)
        if layer is not None:
            layer.visible = on

    def _show_difference(self, on: bool) -> None:
        if self.control is not None and self.control.prediction is not None:
            self.control.prediction.show_difference(on)
        self._show()

    # What is shown

    def _on_current(self, view: OpenSlideView | None) -> None:
        self._keep_choices()
        super()._on_current(view)

    def _begin(self, view: OpenSlideView) -> None:
        self._of_view.follow(view.distil.changed, self._show)
        chosen = view.distil.settings
        self.rounds.setValue(chosen.rounds)
        self.epochs.setValue(chosen.epochs)
        self.tiles.setValue(chosen.most_tiles)
        self.weight.setValue(chosen.correction_weight)
        self.scope.setCurrentIndex(list(Scope).index(chosen.scope))
        self.recipe.setCurrentText(chosen.recipe)
        self.devices.setCurrentIndex(list(DEVICES.values()).index(chosen.device))

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Keep what is chosen: the dock may be about to close."""
        self._keep_choices()
        super().hideEvent(event)

    def _show(self) -> None:
        control = self.control
        state = None if control is None else control.state
        busy = state is not None and state.busy
        reason = NO_SLIDE if control is None else control.reason
        self.reason.say("" if busy else reason)
        self.advice.say("" if control is None or reason or busy else control.advice)
        for widget in (self.label, self.scope, self.rounds, self.more):
            widget.setEnabled(not busy and not reason)
        allow(
            self.start_button,
            "It is learning already" if busy else reason,
            "Learn in the background; you can go on painting",
        )
        self.start_button.setText("Go on" if control is not None and control.history.rounds else "Start")
        idle = "" if busy and state is not DistilState.STOPPING else NOT_RUNNING
        allow(self.pause_button, idle, "Hold the work, or let it go on")
        self.pause_button.setText("Go on" if state is DistilState.PAUSED else "Pause")
        allow(self.stop_button, idle, "End now: the round that is under way changes nothing")
        self.bar.setVisible(busy)
        if control is None or state is None:
            self.status.setText("")
            self._show_layers(None)
            self._show_rounds(())
            return
        self.label.setCurrentIndex(self.label.findData(control.history.label))
        progress = control.progress
        show_progress(self.bar, progress)
        parts = [state.value]
        if progress is not None and busy:
            news = progress.payload  # the figures of an epoch are in the curves
            message = f"epoch {news.number} done" if isinstance(news, Epoch) else progress.message
            parts += [text for text in (message, time_left(progress.eta)) if text]
        self.status.setText(" · ".join(parts) if busy else "")
        self.curves.show_epochs(control.epochs)
        self._show_layers(control)
        self._show_rounds(control.history.rounds, control.history.best)

    def _show_layers(self, control: DistilControl | None) -> None:
        layer, mask = (None, None) if self.view is None else map(self.view.layer, (Role.PREDICTION, Role.PSEUDO_MASK))
        self.title.setText("No round has been done yet." if layer is None else f"{layer.name}.".capitalize())
        difference = None if control is None or control.prediction is None else control.prediction.difference
        no_round = "" if layer is not None else "No round has been done yet"
        no_mask = "" if mask is not None else "There is no mask on screen"
        for box, on, missing, tip in (
            (self.show_prediction, layer is not None and layer.visible, no_round, PREDICTION_TIP),
            (self.show_mask, mask is not None and mask.visible, no_mask, "Hide it to see the prediction alone"),
            (self.show_difference, difference is not None, no_round, DIFFERENCE_TIP),
        ):
            with silent(box):
                box.setChecked(on)
            allow(box, missing, tip)
        for label in self.legend:
            label.setVisible(difference is not None)

    def _show_rounds(self, rounds: tuple[Round, ...], best: int = 0) -> None:
        if self.table.rowCount() != len(rounds):
            self.table.setRowCount(len(rounds))
        for i, done in enumerate(rounds):
            name = f"{done.number} ★" if done.number == best else str(done.number)
            texts = (name, done.outcome, _score(done.score), _score(done.best_before))
            for column, text in enumerate(texts):
                item = self.table.item(i, column)
                if item is None:
                    item = QTableWidgetItem()
                    item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                    self.table.setItem(i, column, item)
                item.setText(text)
        self._show_buttons()

    def _show_buttons(self) -> None:
        control = self.control
        rounds = control is not None and bool(control.history.rounds)
        none = "Choose a round in the list first" if rounds else "No round has been done yet"
        no_choice = "" if control is not None and self._chosen_round() is not None else none
        busy = "Wait until the rounds are over, or stop them" if control is not None and control.state.busy else ""
        following = "" if control is not None and control.pinned is not None else "No round is kept on screen"
        for button, reason, what in (
            (self.pin_button, no_choice, "Show the chosen round, whatever comes"),
            (self.take_button, no_choice or busy, "Make the chosen round the best model: it teaches the next round"),
            (self.adopt_button, no_choice or busy, "Go on correcting what the chosen round says; corrections stay"),
            (
                self.follow_button,
                following,
                "Show the best round again or, where nothing tells which is best, the latest",
            ),
        ):
            button.setEnabled(not reason)
            button.setToolTip(reason or what)


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
