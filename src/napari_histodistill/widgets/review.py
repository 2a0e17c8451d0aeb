"""Dock widget "Review": where to look next, and whether the prediction is good enough."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QProgressBar,
    QPushButton,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histodistill.predict.audit import DRAWS, AuditFigures
from napari_histodistill.predict.uncertainty import SMOOTHING_UM, WINDOW_UM
from napari_histodistill.slide.labels import IGNORE, NORMAL, TUMOUR
from napari_histodistill.study.audit import SQUARE_UM
from napari_histodistill.viewer.audit import ALL_NORMAL, ALL_TUMOUR, AS_SHOWN, MORE
from napari_histodistill.viewer.colours import IGNORE_COLOUR, NORMAL_COLOUR, TUMOUR_COLOUR, UNCERTAINTY_COLOUR
from napari_histodistill.viewer.guide import NO_SLIDE
from napari_histodistill.viewer.layers import Role
from napari_histodistill.viewer.review import KEYS
from napari_histodistill.widgets.dock import ControlPanel, bind_keys
from napari_histodistill.widgets.parts import (
    INFO,
    Banner,
    WrappedLabel,
    allow,
    row,
    silent,
    swatch,
    table_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.components import ViewerModel
    from psygnal import SignalInstance

    from napari_histodistill.predict.audit import Audited
    from napari_histodistill.viewer.audit import AuditControl
    from napari_histodistill.viewer.review import ReviewControl
    from napari_histodistill.viewer.slide_view import OpenSlideView

COLUMNS: Final = ("Prediction", "Dice", "Tumour, mm²")
COLUMN_TIPS: Final = (
    "The teacher and every round. *: it may have learnt from the patches. ↑ ↓: surely other than the line above",
    "Of tumour, estimated for the whole slide, with its 95% interval",
    "Area of tumour, estimated for the whole slide, with its 95% interval",
)
TABLE_HEIGHT: Final = 140
NO_FIGURES: Final = AuditFigures(0, 0, 0.0, 0, ())
"""What is shown before the first look at a slide."""
HOW: Final = (
    f"Tissue is drawn at random, {DRAWS} patches of 133 µm. You say of each what it holds, which gives a fair figure "
    f"for the whole slide. The squares of {SQUARE_UM:.0f} µm around them, {DRAWS * (SQUARE_UM / 1000) ** 2:.1f} mm² "
    "at most, are kept from training."
)


class ReviewWidget(ControlPanel["ReviewControl"]):
    """The "Review" dock widget of a viewer."""

    step = (5, "Review")
    page = "napari.md#review"

    def _build(self, viewer: ViewerModel) -> None:
        self._build_tour()
        self._build_audit()
        self._build_figures()
        actions = {key: partial(_on_review, action) for key, (_, action) in KEYS.items()}
        bind_keys(viewer, self.session, {**actions, "Y": _accept})

    def _control_of(self, view: OpenSlideView) -> ReviewControl:
        return view.review

    @property
    def audit(self) -> AuditControl | None:
        """The audit of the current slide."""
        return None if self.view is None else self.view.audit

    # Building

    def _build_tour(self) -> None:
        section = self.section("Where to look next")
        self.reason = Banner(INFO)
        section.addWidget(self.reason)
        self.show_uncertainty = QCheckBox("Uncertainty")
        self.show_uncertainty.setIcon(swatch(UNCERTAINTY_COLOUR))
        self.show_uncertainty.setToolTip(
            "Entropy of the probability, and how far teacher and student are apart, whichever is more; smoothed by "
            f"{SMOOTHING_UM:g} µm. From clear (certain) through violet and red to yellow (a toss-up)"
        )
        self.show_uncertainty.toggled.connect(lambda on: self._do(lambda control: control.show_uncertainty(on)))
        section.addWidget(self.show_uncertainty)
        self.next_button = self._button("Next (J)", lambda control: control.next())
        self.skip_button = self._button("Skip (Shift+J)", lambda control: control.skip())
        self.back_button = self._button("Back (Ctrl+J)", lambda control: control.back())
        section.addWidget(self.next_button)
        section.addLayout(row(self.skip_button, self.back_button))
        self.place = WrappedLabel("")
        section.addWidget(self.place)
        self.anew_button = self._button("Open all places again", lambda control: control.begin_anew())
        self.anew_button.setToolTip("Also those that were skipped")
        section.addWidget(self.anew_button)

    def _button(self, text: str, action: Callable[[ReviewControl], None]) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(lambda: self._do(action))
        return button

    def _build_audit(self) -> None:
        section = self.section("Is it good enough?")
        self.how = WrappedLabel(HOW)
        section.addWidget(self.how)
        self.draw_button = QPushButton()
        self.draw_button.clicked.connect(self._draw)
        self.label_button = QPushButton("Label patches")
        self.label_button.clicked.connect(self._label)
        section.addLayout(row(self.draw_button, self.label_button))
        self.bar = QProgressBar()
        self.bar.setFormat("%v of %m labelled")
        section.addWidget(self.bar)
        self.question = WrappedLabel("In the square: is what is outlined right? Green is tumour, light blue normal.")
        self.labelling = QWidget()
        inside = QVBoxLayout(self.labelling)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(5)
        self.as_shown = self._answer("As shown is right (Y)", AS_SHOWN)
        self.all_tumour = self._answer("All tumour", ALL_TUMOUR)
        self.all_normal = self._answer("All normal", ALL_NORMAL)
        self.paints = []
        for name, value, colour, tip in (
            ("Tumour", TUMOUR, TUMOUR_COLOUR, "Paint tumour in the square (T)"),
            ("Normal", NORMAL, NORMAL_COLOUR, "Paint normal tissue in the square (N)"),
            ("Unsure", IGNORE, IGNORE_COLOUR, "Paint what cannot be told: it does not count (I)"),
        ):
            button = QPushButton(name)
            button.setIcon(swatch(colour))
            button.setToolTip(tip)
            button.clicked.connect(partial(self._paint, value))
            self.paints.append(button)
        self.again_button = QPushButton("The one before")
        self.again_button.setToolTip("Show the patch that was labelled before, to label it again")
        self.again_button.clicked.connect(lambda: self._audit(lambda audit: audit.go_back()))
        inside.addWidget(self.question)
        inside.addWidget(self.as_shown)
        inside.addLayout(row(self.all_tumour, self.all_normal))
        inside.addWidget(WrappedLabel("If not, paint first:"))
        inside.addLayout(row(*self.paints))
        inside.addWidget(self.again_button)
        section.addWidget(self.labelling)

    def _answer(self, text: str, how: str) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(f"Keep it: {how}, where there is tissue; on to the next patch")
        button.clicked.connect(lambda: self._audit(lambda audit: audit.label(how)))
        return button

    def _build_figures(self) -> None:
        section = self.section("What that tells")
        self._figures: AuditFigures | None = NO_FIGURES
        self.table = table_of("Dice and area by prediction", COLUMNS, COLUMN_TIPS, fitted=0, height=TABLE_HEIGHT)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        section.addWidget(self.table)
        self.verdict = WrappedLabel("")
        self.biased = WrappedLabel("")
        section.addWidget(self.verdict)
        section.addWidget(self.biased)
        section.addStretch(1)  # takes the height that is left, from all sections

    # What the user does

    def _audit(self, action: Callable[[AuditControl], None]) -> None:
        audit = self.audit
        if audit is not None:
            action(audit)

    def _draw(self) -> None:
        self._audit(lambda audit: audit.draw() if audit.audit is None else audit.more())

    def _label(self) -> None:
        self._audit(lambda audit: audit.label_next() if audit.patch is None else audit.stop())

    def _paint(self, value: int) -> None:
        self._audit(lambda audit: audit.paint(value))

    # What is shown

    def _begin(self, view: OpenSlideView) -> None:
        slide = view.layer(Role.SLIDE)
        if slide is not None:  # napari has a Y of its own for images
            bind_keys(slide, self.session, {"Y": _accept})
        self._of_view.follow(view.review.changed, self._show)
        self._of_view.follow(view.audit.changed, self._show)
        view.audit.refresh()

    def _signals_of_progress(self, view: OpenSlideView) -> Iterable[SignalInstance]:
        return (view.review.changed, view.audit.changed)

    def _show(self) -> None:
        control, audit = self.control, self.audit
        reason = NO_SLIDE if control is None else control.reason
        self.reason.say(reason)
        self._show_tour(control, reason)
        self._show_audit(audit, reason)
        self._show_figures(audit)

    def _show_tour(self, control: ReviewControl | None, reason: str) -> None:
        with silent(self.show_uncertainty):
            self.show_uncertainty.setChecked(control is not None and control.shows_uncertainty)
        allow(self.show_uncertainty, reason)
        started = control is not None and control.place is not None
        for button, why, what in (
            (self.next_button, reason, f"Fly to the most uncertain {WINDOW_UM:g} µm that you have not seen (J)"),
            (
                self.skip_button,
                reason or ("" if started else "No place is shown yet"),
                "Close this place for good, also for later rounds, and go on (Shift+J)",
            ),
            (
                self.back_button,
                "" if control is not None and control.can_go_back else "There is no place before this one",
                "Fly to the place before (Ctrl+J)",
            ),
        ):
            allow(button, why, what)
        self.place.setText("" if control is None or reason else where(control))
        self.place.setVisible(bool(self.place.text()))
        self.anew_button.setVisible(control is not None and (control.skipped > 0 or control.left == 0))

    def _show_audit(self, audit: AuditControl | None, reason: str) -> None:
        drawn = audit is not None and audit.audit is not None
        labelling = audit is not None and audit.patch is not None
        why_not_drawn = reason if audit is None else audit.draw_reason
        self.draw_button.setText(f"Draw {MORE} more" if drawn else f"Draw {DRAWS} patches")
        drawing = "More patches make the intervals narrower" if drawn else "Half of them where tumour is predicted"
        allow(self.draw_button, why_not_drawn, drawing)
        waiting = [] if audit is None else audit.unlabelled
        none = "All patches are labelled" if drawn else "Draw patches first"
        why = reason or ("" if labelling or waiting else none)
        self.label_button.setText("Stop" if labelling else "Label patches")
        allow(self.label_button, why, "Show one patch after another; what is labelled is kept")
        self.bar.setVisible(drawn)
        if audit is not None and audit.audit is not None:
            self.bar.setRange(0, len(audit.audit.active))
            self.bar.setValue(len(audit.audit.labelled))
        self.how.setText(HOW if not drawn or audit is None or audit.audit is None else held(audit.audit.held_share))
        self.labelling.setVisible(labelling)
        before = audit is not None and audit.can_go_back
        allow(self.again_button, "" if before else "No patch was labelled since the slide was opened")

    def _show_figures(self, audit: AuditControl | None) -> None:
        figures = None if audit is None else audit.figures
        if figures is self._figures:
            return
        self._figures = figures
        predictions = () if figures is None else figures.predictions
        self.table.setRowCount(len(predictions))
        for line, one in enumerate(predictions):
            title = "" if audit is None else audit.title_of(one.prediction)
            for column, text in enumerate(cells(one, title)):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                item.setToolTip(text)
                self.table.setItem(line, column, item)
        self.table.setVisible(bool(predictions))
        for label, text in (
            (self.verdict, "" if figures is None else verdict(figures)),
            (self.biased, "" if figures is None else on_corrections(figures)),
        ):
            label.setText(text)
            label.setVisible(bool(text))


def where(control: ReviewControl) -> str:
    """Where the tour stands, in words."""
    if control.busy:
        return "Looking where the model is uncertain…"
    parts = [] if control.place is None else [f"{control.place.why.value} ({control.place.uncertainty:.0%})."]
    if control.left is not None:
        parts.append(f"{control.left} more to see." if control.left else "Nothing else is uncertain enough to look at.")
    if control.skipped:
        parts.append(f"{control.skipped} skipped.")
    if not parts:
        parts.append("The frame will show where to look. Correct what is wrong there, then go on.")
    return " ".join(parts)


def held(share: float) -> str:
    """What the audit costs, in words."""
    return f"The squares around the patches, {share:.0%} of the tissue, are kept from training."


def cells(one: Audited, title: str) -> tuple[str, str, str]:
    """A line of the table."""
    name = f"{title} *" if one.may_have_learnt else title
    if one.estimate is None:
        return name, "–", "–"
    if one.change is not None:
        name += " ↑" if one.change[1][0] > 0 else " ↓" if one.change[1][1] < 0 else ""
    low, high = one.estimate.dice_95
    least, most = one.estimate.area_95
    return (
        name,
        f"{one.estimate.dice:.2f} ({low:.2f}–{high:.2f})",
        f"{one.estimate.area:.2f} ({least:.2f}–{most:.2f})",
    )


def verdict(figures: AuditFigures) -> str:
    """How far the figures reach, in words."""
    if not figures.drawn:
        return ""
    if all(one.estimate is None for one in figures.predictions):
        return "There are figures once five patches are labelled where tumour is predicted, and five elsewhere."
    text = "In brackets: 95% intervals. They narrow with more patches."
    if any(one.may_have_learnt for one in figures.predictions):
        text += " * made before the patches were drawn: it may have learnt from them."
    return text


def on_corrections(figures: AuditFigures) -> str:
    """What corrections alone say, named as what it is."""
    if not figures.corrected_pixels or not figures.predictions:
        return ""
    last = figures.predictions[-1]
    share = 0.0 if last.on_corrections is None else last.on_corrections
    return (
        f"On your corrections: the last of these agrees with {share:.0%} of them. That is not a fair sample: they were "
        "made where a model was wrong, and models learn from them."
    )


def _on_review(action: Callable[[ReviewControl], None], view: OpenSlideView) -> None:
    action(view.review)


def _accept(view: OpenSlideView) -> None:
    view.audit.label(AS_SHOWN)
