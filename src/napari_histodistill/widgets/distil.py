"""Dock widget "Distil": let the model learn from the mask and its corrections, round by round."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QRadioButton,
    QSizePolicy,
    QSpinBox,
    QTableWidgetItem,
)

from napari_histodistill.export.source import round_name
from napari_histodistill.mil.settings import Epoch
from napari_histodistill.study import SlideLabel
from napari_histodistill.viewer.colours import ADDED_COLOUR, GONE_COLOUR, PREDICTION_COLOUR, TUMOUR_COLOUR
from napari_histodistill.viewer.distil import DistilState, Scope
from napari_histodistill.viewer.guide import NO_SLIDE
from napari_histodistill.viewer.history import FIRST_TEACHER
from napari_histodistill.viewer.layers import Role
from napari_histodistill.viewer.look import Look, look_at, look_of
from napari_histodistill.widgets.curves import Curves
from napari_histodistill.widgets.dock import ControlPanel
from napari_histodistill.widgets.parts import (
    INFO,
    WARN,
    Banner,
    WrappedLabel,
    allow,
    fold,
    narrow,
    row,
    show_progress,
    silent,
    swatch,
    table_of,
)
from napari_histodistill.widgets.settings import MoreSettings
from napari_histodistill.widgets.teacher import NOT_RUNNING, time_left

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from qtpy.QtGui import QHideEvent

    from napari_histodistill.distill.rounds import Round
    from napari_histodistill.viewer.distil import DistilControl
    from napari_histodistill.viewer.slide_view import OpenSlideView

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
DIFFERENCE_TIP: Final = "Where the prediction and the tumour mask that you correct disagree"
TABLE_HEIGHT: Final = 150
NO_MASK: Final = "The mask is what the first teacher says already"
LOOK_TIPS: Final = {
    Look.PREDICTION: "What the model says; corrected pixels show what you set",
    Look.MASK: "What you correct and what the model learns from",
    Look.BOTH: "One over the other",
}
LOOK_NOTES: Final = {
    Look.PREDICTION: "Your mask is hidden; a tool of the Correct dock brings it back.",
    Look.MASK: "The prediction is hidden.",
    Look.BOTH: "Orange: the prediction alone. Green: your mask alone. Olive: both.",
}


LAID_OUT_MS: Final = 100
"""By then what was added to the dock has its place."""


class DistilWidget(ControlPanel["DistilControl"]):
    """The "Distil" dock widget of a viewer."""

    step = (5, "Distil")
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
        self.scope.activated.connect(self._choose_scope)
        self.rounds = QSpinBox()
        self.rounds.setRange(1, 50)
        self.rounds.setToolTip("Rounds to do now; corrections that you make meanwhile go into the next one")
        form.addRow("This slide", self.label)
        form.addRow("Learn from", self.scope)
        form.addRow("Rounds", self.rounds)
        section.addLayout(form)
        self.more = fold("More settings")
        self.form = MoreSettings()
        self.form.changed.connect(self._show_meaning)
        self.meaning = Banner(INFO)
        self.more.addWidget(self.form.native)
        self.more.addWidget(self.meaning)
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
        self.looks = {look: QRadioButton(look.value) for look in Look}
        for look, colour in ((Look.PREDICTION, PREDICTION_COLOUR), (Look.MASK, TUMOUR_COLOUR), (Look.BOTH, None)):
            button = self.looks[look]
            if colour is not None:
                button.setIcon(swatch(colour))
            button.clicked.connect(partial(self._look_at, look))
            section.addWidget(button)
        self.look_note = WrappedLabel("")
        section.addWidget(self.look_note)
        self.show_difference = QCheckBox("Difference of the two")
        self.show_difference.toggled.connect(self._show_difference)
        section.addWidget(self.show_difference)
        added, removed = QLabel("new tumour"), QLabel("no longer tumour")
        for label, colour in ((added, ADDED_COLOUR), (removed, GONE_COLOUR)):
            label.setText(f"{square(colour)} {label.text()}")
        self.legend = (added, removed)
        section.addLayout(row(added, removed, stretch=1))

    def _build_rounds(self) -> None:
        section = self.section("History")
        self.table = table_of("History of the rounds", COLUMNS, COLUMN_TIPS, fitted=1, height=TABLE_HEIGHT)
        self.table.horizontalHeader().setMinimumSectionSize(40)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
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
        self.compare_button, self.compared = QPushButton("Compare"), WrappedLabel("", rich=True)
        self.compare_button.clicked.connect(self._compare)
        section.addWidget(self.compare_button)
        section.addWidget(self.compared)

    # What the user does

    def _start(self) -> None:
        self._keep_choices()
        self._do(lambda control: control.start())

    def _choose_scope(self) -> None:
        self._keep_choices()
        self._show()  # what is advised depends on it

    def _keep_choices(self) -> None:
        """Tell the control what is chosen, which outlives this dock and a look at another slide."""
        if self.control is None:
            return
        chosen = self.control.settings
        chosen.rounds, chosen.scope = self.rounds.value(), self.scope.currentData()
        self.form.keep(chosen)

    def _show_meaning(self) -> None:
        self.meaning.say(self.form.means)

    def _chosen_rounds(self) -> list[int]:
        """Numbers of the rounds that are chosen in the list, whose first row is the first teacher."""
        return sorted(index.row() for index in self.table.selectionModel().selectedRows())

    def _chosen_round(self) -> int | None:
        chosen = self._chosen_rounds()
        return chosen[0] if len(chosen) == 1 else None

    def _compare(self) -> None:
        if self.view is None:
            return
        comparison = self.view.comparison
        if comparison.rounds:
            comparison.hide()
        elif len(chosen := self._chosen_rounds()) == 2:
            comparison.compare(*chosen)
            QTimer.singleShot(LAID_OUT_MS, self._show_legend)

    def _show_legend(self) -> None:
        """Scroll to what the colours of a comparison mean."""
        self.ensureWidgetVisible(self.compared)

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

    def _look_at(self, look: Look) -> None:
        if self.view is not None:
            look_at(self.view, look)
        self._show()

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
        self._of_view.follow(view.comparison.changed, self._show)
        self._of_view.follow(view.correct.changed, self._show_look)  # a tool brings the mask back
        chosen = view.distil.settings
        self.rounds.setValue(chosen.rounds)
        self.scope.setCurrentIndex(list(Scope).index(chosen.scope))
        self.form.show_settings(chosen)

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
        for widget in (self.label, self.scope, self.rounds, self.more, *self.form.boxes):
            allow(widget, "Wait until the rounds are over, or stop them" if busy else reason)
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
        layer = None if self.view is None else self.view.layer(Role.PREDICTION)
        self.title.setText("No round has been done yet." if layer is None else f"{layer.name}.".capitalize())
        self._show_look()
        difference = None if control is None or control.prediction is None else control.prediction.difference
        with silent(self.show_difference):
            self.show_difference.setChecked(difference is not None)
        allow(self.show_difference, "" if layer is not None else "No round has been done yet", DIFFERENCE_TIP)
        for label in self.legend:
            label.setVisible(difference is not None)

    def _show_look(self) -> None:
        layer, mask = (None, None) if self.view is None else map(self.view.layer, (Role.PREDICTION, Role.PSEUDO_MASK))
        look = None if self.view is None else look_of(self.view)
        for each, button in self.looks.items():
            button.setAutoExclusive(False)  # so that none may be chosen
            button.setChecked(each is look)
            button.setAutoExclusive(True)
            missing = "There is no mask on screen" if each is Look.MASK else "No round has been done yet"
            allow(button, "" if (mask if each is Look.MASK else layer) is not None else missing, LOOK_TIPS[each])
        self.look_note.setText("" if layer is None or look is None else LOOK_NOTES[look])

    def _show_rounds(self, rounds: tuple[Round, ...], best: int = 0) -> None:
        rows: list[tuple[str, str, float | None, float | None]] = []
        if rounds:
            rows.append(("teacher", "the start", rounds[0].best_before, None))
        rows += [(str(done.number), done.outcome, done.score, done.best_before) for done in rounds]
        if self.table.rowCount() != len(rows):
            self.table.setRowCount(len(rows))
        for number, (name, outcome, score, before) in enumerate(rows):
            texts = (f"{name} ★" if number == best else name, outcome, _score(score), _score(before))
            for column, text in enumerate(texts):
                item = self.table.item(number, column)
                if item is None:
                    item = QTableWidgetItem()
                    item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                    self.table.setItem(number, column, item)
                item.setText(text)
        self._show_buttons()

    def _show_buttons(self) -> None:
        control, chosen = self.control, self._chosen_rounds()
        rounds = control is not None and bool(control.history.rounds)
        none = "Choose a round in the list first" if rounds else "No round has been done yet"
        no_choice = "" if rounds and len(chosen) == 1 else none
        no_pair = "" if rounds and len(chosen) == 2 else "Choose two rounds in the list, the second with Ctrl held"
        busy = "Wait until the rounds are over, or stop them" if control is not None and control.state.busy else ""
        following = "" if control is not None and control.pinned is not None else "No round is kept on screen"
        best = "It is the best model already" if control is not None and chosen == [control.history.best] else ""
        there = control is not None and set(chosen) <= control.history.predicted
        no_mask = (
            "" if there else NO_MASK if chosen == [FIRST_TEACHER] else "It has not predicted all of this slide yet"
        )
        no_adopting = "" if control is None else control.adopt_reason
        comparing = self.view is not None and bool(self.view.comparison.rounds)
        for button, reason, what in (
            (self.pin_button, no_choice, "Show the chosen round, whatever comes"),
            (self.take_button, no_choice or busy or best, "Make the chosen round the best: it teaches the next round"),
            (
                self.adopt_button,
                no_choice or no_adopting or no_mask,
                "Correct what the chosen round says; corrections stay",
            ),
            (
                self.follow_button,
                following,
                "Show the best round again or, where nothing tells which is best, the latest",
            ),
            (
                self.compare_button,
                "" if comparing else no_pair if rounds else none,
                "Take the comparison away" if comparing else "Show where the two chosen rounds differ",
            ),
        ):
            allow(button, reason, what)
        self.compare_button.setText("End comparing" if comparing else "Compare two rounds")
        self.compared.setText("" if self.view is None or not comparing else _legend(*self.view.comparison.rounds))


def _legend(older: int, newer: int) -> str:
    """What the colours of a comparison mean."""
    parts = []
    for number, colour in ((newer, ADDED_COLOUR), (older, GONE_COLOUR)):
        parts.append(f"{square(colour)} tumour in {round_name(number)} only")
    return "<br>".join(parts)


def square(colour: Sequence[float]) -> str:
    """A square of a colour (r, g, b, a from 0 to 1), for rich text."""
    rgb = ", ".join(str(round(255 * c)) for c in colour[:3])
    return f'<span style="color: rgb({rgb})">■</span>'


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
