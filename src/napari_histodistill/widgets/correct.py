"""Dock widget "Correct": paint what the model should have said, undo, and change outlines of the whole mask."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QWidget,
)

from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.viewer.colours import IGNORE_COLOUR, NORMAL_COLOUR, REMOVED_COLOUR, TUMOUR_COLOUR
from napari_histodistill.viewer.correct import DEFAULT_AMOUNTS, DEFAULT_BRUSH, KEYS, BrushUnit, Tool
from napari_histodistill.viewer.guide import NO_SLIDE
from napari_histodistill.viewer.shaping import Shaping
from napari_histodistill.widgets.dock import ControlPanel, bind_keys
from napari_histodistill.widgets.parts import (
    INFO,
    Banner,
    NumberBox,
    Slider,
    WrappedLabel,
    allow,
    fold,
    narrow,
    row,
    show_progress,
    silent,
    swatch,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel

    from napari_histodistill.viewer.correct import CorrectControl
    from napari_histodistill.viewer.shaping import Proposal
    from napari_histodistill.viewer.slide_view import OpenSlideView

VALUES: Final = {
    TUMOUR: ("Tumour", TUMOUR_COLOUR, "Set tumour (T)"),
    NORMAL: ("Normal", NORMAL_COLOUR, "Set normal tissue (N); in the mask it is drawn transparent"),
    IGNORE: ("Ignore", IGNORE_COLOUR, "Set what should not count, such as folds (I)"),
    OUTSIDE: ("Erase", REMOVED_COLOUR, "Take corrections away: what the model says shows again (E)"),
}
TOOLS: Final = {
    Tool.MOVE: ("Move", "Drag moves the slide (W)", "Pick a value above to begin painting."),
    Tool.BRUSH: ("Brush", "Paint with a round brush", "Drag to paint. [ and ] change the size."),
    Tool.LASSO: ("Lasso", "Draw around an area by hand (Q)", "Drag around an area: it is set when you let go."),
    Tool.POLYGON: ("Polygon", "Click corner by corner (Shift+Q)", "Click the corners; a double-click closes it."),
    Tool.FILL: ("Fill", "Set a whole closed area with one click (F)", "Click into a closed area."),
}
UM_RANGE: Final = (4.0, 1000.0)
SCREEN_RANGE: Final = (2.0, 300.0)
SHAPINGS: Final = {
    Shaping.GROW: ("Grow tumour", "by", " µm", "Moves outlines of tumour outwards (G)"),
    Shaping.SHRINK: ("Shrink tumour", "by", " µm", "Moves outlines of tumour inwards (Shift+G)"),
    Shaping.FILL_HOLES: ("Fill holes", "up to", " µm²", "Holes in tumour become tumour (H)"),
    Shaping.DROP_ISLANDS: ("Drop islands", "up to", " µm²", "Small islands of tumour become normal (Shift+H)"),
    Shaping.CONFIRM: ("Confirm what the model says", "", "", "It becomes a correction of yours, so it stays (K)"),
    Shaping.FORGET: ("Forget corrections", "", "", "What the model says shows again (Shift+K)"),
}
BECOMES: Final = {
    Shaping.GROW: "become tumour",
    Shaping.SHRINK: "become normal",
    Shaping.FILL_HOLES: "become tumour",
    Shaping.DROP_ISLANDS: "become normal",
    Shaping.CONFIRM: "be confirmed as it is",
    Shaping.FORGET: "lose its correction",
}
CHOICE_STYLE: Final = (
    "QPushButton { min-width: 0; padding: 4px 2px; } QPushButton:checked { background: #2f6fab; color: #ffffff; }"
)
NO_PREVIEW: Final = "Each shows first what it would change. Nothing is changed until you apply it."


class CorrectWidget(ControlPanel["CorrectControl"]):
    """The "Correct" dock widget of a viewer."""

    step = (4, "Correct")
    page = "napari.md#correcting"

    def _build(self, viewer: ViewerModel) -> None:
        self._controls: list[QWidget] = []
        self._build_tools()
        self._build_history()
        self._build_shapings()
        self._build_keys()
        bind_keys(viewer, self.session, {key: partial(_on_correct, action) for key, (_, action) in KEYS.items()})

    def _control_of(self, view: OpenSlideView) -> CorrectControl:
        return view.correct

    # Building

    def _build_tools(self) -> None:
        section = self.section("Correct")
        self.reason = Banner(INFO)
        section.addWidget(self.reason)
        self.values, self.tools = QButtonGroup(self), QButtonGroup(self)
        choices = []
        for value, (name, colour, tip) in VALUES.items():
            choices.append(self._choice(self.values, value, name, tip))
            choices[-1].setIcon(swatch(colour))
        section.addLayout(_even_row(choices))
        self.values.idClicked.connect(lambda value: self._do(lambda control: control.paint(value)))
        tools = [self._choice(self.tools, index, *TOOLS[tool][:2]) for index, tool in enumerate(TOOLS)]
        section.addLayout(_even_row(tools))
        self.tools.idClicked.connect(lambda index: self._do(lambda control: control.pick(list(TOOLS)[index])))
        self.hint = WrappedLabel("")
        section.addWidget(self.hint)
        self.brush = Slider("Brush across", *UM_RANGE, 1, "Diameter of the brush; also [ and ]", decimals=0)
        self.brush.show_value(DEFAULT_BRUSH)
        self.brush.changed.connect(lambda size: self._do(lambda control: control.set_brush(size)))
        self.unit = QComboBox()
        self.unit.setToolTip("µm: the same on the slide. Screen px: the same on the screen while you zoom.")
        for unit in BrushUnit:
            self.unit.addItem(unit.value, unit)
        self.unit.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.unit.activated.connect(lambda: self._do(lambda control: control.set_brush(unit=self.unit.currentData())))
        section.addLayout(row(self.brush, self.unit, stretch=0))
        self.outside = narrow(QComboBox())
        self.outside.setToolTip("Painting where no tissue was found: refused, or it counts as tissue from then on")
        self.outside.addItems(["do not paint", "paint all the same"])
        self.outside.activated.connect(lambda index: self._do(lambda control: control.set_extend(index == 1)))
        section.addLayout(row(QLabel("Outside tissue"), self.outside, stretch=1))
        self._controls += [*choices, *tools, self.brush, self.unit, self.outside]

    def _choice(self, group: QButtonGroup, number: int, name: str, tip: str) -> QPushButton:
        button = QPushButton(name)
        button.setToolTip(tip)
        button.setCheckable(True)
        button.setStyleSheet(CHOICE_STYLE)
        group.addButton(button, number)
        return button

    def _build_history(self) -> None:
        section = self.section("Your corrections")
        self.undo, self.redo = QPushButton("Undo"), QPushButton("Redo")
        self.undo.clicked.connect(lambda: self._do(lambda control: control.undo()))
        self.redo.clicked.connect(lambda: self._do(lambda control: control.redo()))
        section.addWidget(self.undo)
        section.addWidget(self.redo)
        self.show_corrections = QCheckBox("Show what was set by hand")
        self.show_corrections.setToolTip("A layer with every correction, normal in light blue (U)")
        self.show_corrections.toggled.connect(lambda on: self._do(lambda control: control.show_corrections(on)))
        section.addWidget(self.show_corrections)
        self.saved = WrappedLabel("")
        section.addWidget(self.saved)
        self._controls.append(self.show_corrections)

    def _build_shapings(self) -> None:
        section = self.section("Change the mask")
        self.scope = narrow(QComboBox())
        self.scope.setToolTip("How far the changes below reach; in view, areas that reach over the edge are left alone")
        self.scope.addItems(["what is in view", "the whole slide"])
        self.scope.activated.connect(lambda index: self._do(lambda control: control.set_scope(whole_slide=index == 1)))
        section.addLayout(row(QLabel("Where"), self.scope, stretch=1))
        grid = QGridLayout()
        grid.setColumnStretch(0, 1)
        grid.setHorizontalSpacing(5)
        self.shapings: dict[Shaping, QPushButton] = {}
        self.amounts: dict[Shaping, QDoubleSpinBox] = {}
        for line, (shaping, (name, by, unit, tip)) in enumerate(SHAPINGS.items()):
            button = QPushButton(f"{name}…")
            button.setToolTip(tip)
            button.clicked.connect(partial(self._propose, shaping))
            self.shapings[shaping] = button
            grid.addWidget(button, line, 0, 1, 1 if unit else 3)
            if unit:
                box = NumberBox(f"50000{unit}")
                box.setDecimals(0)
                box.setRange(1, 500 if unit == " µm" else 10_000_000)
                box.setSingleStep(1 if unit == " µm" else 1000)
                box.setSuffix(unit)
                box.setValue(DEFAULT_AMOUNTS[shaping])
                box.setToolTip(tip)
                box.valueChanged.connect(partial(self._set_amount, shaping))
                grid.addWidget(QLabel(by), line, 1)
                grid.addWidget(box, line, 2)
                self.amounts[shaping] = box
        section.addLayout(grid)
        self.bar = QProgressBar()
        self.preview = WrappedLabel(NO_PREVIEW)
        self.apply, self.drop = QPushButton("Apply"), QPushButton("Drop")
        self.apply.clicked.connect(lambda: self._do(lambda control: control.apply()))
        self.drop.clicked.connect(lambda: self._do(lambda control: control.discard()))
        section.addWidget(self.bar)
        section.addWidget(self.preview)
        section.addLayout(row(self.apply, self.drop, stretch=0))
        self._controls += [self.scope, *self.shapings.values(), *self.amounts.values()]

    def _build_keys(self) -> None:
        lines = "".join(
            f"<tr><td><b>{key.replace('-', '+').replace('Control', 'Ctrl')}</b>&nbsp;&nbsp;</td><td>{text}</td></tr>"
            for key, (text, _) in KEYS.items()
        )
        keys = fold("Keys")
        keys.addWidget(WrappedLabel(f"<table>{lines}</table>", rich=True))
        self.column.addWidget(keys)

    # What the user does

    def _propose(self, shaping: Shaping) -> None:
        self._do(lambda control: control.propose(shaping))

    def _set_amount(self, shaping: Shaping, amount: float) -> None:
        self._do(lambda control: control.set_amount(shaping, amount))

    # What is shown

    def _begin(self, view: OpenSlideView) -> None:
        self._of_view.follow(view.correct.changed, self._show)

    def _show(self) -> None:
        control = self.control
        reason = NO_SLIDE if control is None else control.reason
        self.reason.say(reason)
        for widget in self._controls:
            allow(widget, reason)
        self._show_history(control)
        self._show_proposal(control)
        if control is None:
            self.hint.setText("")
            return
        tool = control.tool
        self.hint.setText("" if reason else TOOLS[tool][2])
        self.tools.button(list(TOOLS).index(tool)).setChecked(True)
        self.values.setExclusive(False)
        for button in self.values.buttons():
            button.setChecked(tool is not Tool.MOVE and self.values.id(button) == control.value)
        self.values.setExclusive(True)
        with silent(self.brush.slider):
            self.brush.slider.setRange(*(UM_RANGE if control.brush_unit is BrushUnit.UM else SCREEN_RANGE))
            self.brush.show_value(control.brush)
        self.unit.setCurrentIndex(list(BrushUnit).index(control.brush_unit))
        self.outside.setCurrentIndex(int(control.extend))
        self.scope.setCurrentIndex(int(control.whole_slide))
        for shaping, box in self.amounts.items():
            with silent(box):
                box.setValue(control.amounts[shaping])

    def _show_history(self, control: CorrectControl | None) -> None:
        for button, name, text in (
            (self.undo, "Undo", "" if control is None else control.undo_text),
            (self.redo, "Redo", "" if control is None else control.redo_text),
        ):
            button.setEnabled(bool(text))
            button.setText(f"{name}: {text}" if text else name)
            button.setToolTip(
                f"{name} ({'Ctrl+Z' if name == 'Undo' else 'Ctrl+Shift+Z'})" if text else f"{name}: nothing"
            )
        with silent(self.show_corrections):
            self.show_corrections.setChecked(control is not None and control.shows_corrections)
        self.saved.setText("" if control is None else control.save_state)

    def _show_proposal(self, control: CorrectControl | None) -> None:
        proposing = control is not None and control.proposing
        proposal = None if control is None else control.proposal
        self.bar.setVisible(proposing)
        show_progress(self.bar, None if control is None else control.progress)
        change, preview = proposal is not None and proposal.pixels > 0, proposing or proposal is not None
        none = "There is no preview: choose a change above first"
        allow(self.apply, "" if change else none, "Make it a correction, in one step that can be undone (Shift+Enter)")
        allow(self.drop, "" if preview else none, "Drop the preview (Shift+Esc)")
        if proposing:
            self.preview.setText("Looking…")
        else:
            self.preview.setText(NO_PREVIEW if proposal is None else in_words(proposal))


def in_words(proposal: Proposal) -> str:
    """What a proposal would change: "Preview: 41 holes, 0.183 mm² in all, would become tumour."."""
    shaping = proposal.request.shaping
    if not proposal.pixels:
        return f"{shaping.value.capitalize()}: there is nothing to change here."
    what = ""
    if proposal.regions is not None:
        kind = "hole" if shaping is Shaping.FILL_HOLES else "island"
        what = f"{_spaced(proposal.regions)} {kind}{'' if proposal.regions == 1 else 's'}, "
    area = (
        f"{proposal.area_mm2:.3f} mm²"
        if proposal.area_mm2 >= 0.01
        else f"{_spaced(round(1e6 * proposal.area_mm2))} µm²"
    )
    return f"Preview: {what}{area} in all, would {BECOMES[shaping]}."


def _even_row(buttons: list[QPushButton]) -> QHBoxLayout:
    layout = row(*buttons)
    layout.setSpacing(3)
    for index in range(len(buttons)):
        layout.setStretch(index, 1)
    return layout


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _on_correct(action: Callable[[CorrectControl], None], view: OpenSlideView) -> None:
    action(view.correct)
