"""Small pieces of Qt that the widgets are made of."""

from __future__ import annotations

import html
import itertools
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractSpinBox,
    QComboBox,
    QDockWidget,
    QDoubleSpinBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QMainWindow,
    QScrollArea,
    QSizePolicy,
    QTabBar,
    QTableWidget,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible, QLabeledDoubleSlider

from napari_histodistill.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from psygnal import SignalInstance
    from qtpy.QtCore import QObject
    from qtpy.QtGui import QResizeEvent, QShowEvent
    from qtpy.QtWidgets import QProgressBar

    from napari_histodistill.jobs import Progress

_OWN_TIP = "histodistill_tip"
WARN, INFO, ERROR = "warn", "info", "error"
_BANNER_STYLES = {
    INFO: "background: #24405c; color: #e8f1fa;",
    WARN: "background: #6b4e00; color: #fff4d6;",
    ERROR: "background: #7a1f1f; color: #ffe9e9;",
}
HEADING = "histodistill_heading"
MINIMUM_WIDTH = 300
LARGEST_MINIMUM = 560
"""px of width that a panel has at least, and that it asks for at most however large the letters are."""
BUTTONS_WIDTH = 56
"""px beside the text of a box for numbers."""
SWATCH, EDGE = 12, "#8f979e"
"""px a side, and the colour of the edge, of a square of a colour."""
TAB_STYLE = "QTabBar::tab { padding: 3px 2px; }"
"""So that the names of all docks have room side by side."""


class Panel(QScrollArea):
    """A column of sections that scrolls where the window is low, as wide as its dock.

    Attributes
    ----------
    step : (int, str)
        Where it comes in the work, and the word for it: the order and the names of the tabs.
    """

    step: tuple[int, str] = (0, "")

    def __init__(self) -> None:
        super().__init__()
        self._placed = self._has_place = False
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self._asked_width = self._letters = 0
        self.body = QWidget()
        self.body.installEventFilter(self)
        self.column = QVBoxLayout(self.body)
        self.column.setContentsMargins(7, 4, 7, 8)
        self.column.setSpacing(6)
        self.column.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setWidget(self.body)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Ask for another width when the sections need one, for instance because letters became larger."""
        if event.type() == QEvent.Type.LayoutRequest:
            self._follow_letters()
            self._ask_for_width()
        return bool(super().eventFilter(watched, event))

    def _follow_letters(self) -> None:
        """Give tables and lines of text the size of letters that napari's style gives all but them."""
        heading = self.body.findChild(QLabel, HEADING)
        letters = 0 if heading is None else heading.font().pointSize() - 1  # napari's labels are one larger
        if letters <= 0 or letters == self._letters:
            return
        self._letters = letters
        found = (each for kind in (QLineEdit, QTableWidget) for each in self.body.findChildren(kind))
        for widget in found:
            if not isinstance(widget.parent(), QAbstractSpinBox):
                font = widget.font()
                font.setPointSize(letters)
                widget.setFont(font)
        for slider in self.body.findChildren(QLabeledDoubleSlider):
            slider.setDecimals(slider.decimals())  # measures its number anew

    def _ask_for_width(self) -> None:
        """Not at once: a window that is being drawn must not be laid out anew."""
        if self.minimumSizeHint().width() != self._asked_width:
            self._asked_width = self.minimumSizeHint().width()
            QTimer.singleShot(0, self.updateGeometry)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """As wide as the sections need, up to a part of a small screen; beyond that it scrolls.

        Behind other tabs it stays as wide as it was: another theme would have all docks measured, several times each.
        """
        if self._asked_width and not self.isVisible():
            return QSize(self._asked_width, 120)
        needed = self.body.minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width() + 4
        return QSize(max(MINIMUM_WIDTH, min(max(needed, self._width_of_tabs()), LARGEST_MINIMUM)), 120)

    def _width_of_tabs(self) -> int:
        """What the bar that holds the tab of this panel needs to show all of them; 0 without one."""
        bars = self.window().findChildren(QTabBar, options=Qt.FindChildOption.FindDirectChildrenOnly)
        mine = [bar for bar in bars if self.step[1] in map(bar.tabText, range(bar.count()))]
        return max((int(bar.sizeHint().width()) for bar in mine), default=0)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """When first shown, share the place of the other panels in tabs: side by side all would be too low."""
        super().showEvent(event)
        self._ask_for_width()
        if not self._placed:
            self._placed = True
            QTimer.singleShot(0, self._share_place)

    def _share_place(self) -> None:
        dock = _dock_of(self)
        window = None if dock is None else dock.parent()
        if dock is None or not isinstance(window, QMainWindow):
            return
        self._has_place = True
        if self.step[1]:
            dock.setWindowTitle(self.step[1])  # what the tab says: there is no room for the plugin's name in each
        panels = sorted((p for p in window.findChildren(Panel) if p.has_place), key=lambda panel: panel.step)
        docks = [found for found in map(_dock_of, panels) if found is not None and not found.isFloating()]
        if dock not in docks:
            return
        for other in docks:
            if other is not dock:
                window.tabifyDockWidget(other, dock)
                break
        beside = window.tabifiedDockWidgets(dock)
        for other in docks[docks.index(dock) + 1 :]:
            if other in beside:  # goes behind the tabs that are there; napari writes its settings for each
                window.tabifyDockWidget(dock, other)
        for bar in window.findChildren(QTabBar, options=Qt.FindChildOption.FindDirectChildrenOnly):
            bar.setElideMode(Qt.TextElideMode.ElideNone)  # names that are whole, and arrows to those beyond
            bar.setUsesScrollButtons(True)
            bar.setStyleSheet(TAB_STYLE)
        self.updateGeometry()  # there is a tab more
        dock.raise_()

    @property
    def dock(self) -> QDockWidget | None:
        """The dock that it is in."""
        return _dock_of(self)

    @property
    def has_place(self) -> bool:
        """Whether it was put in its place among the other panels."""
        return self._has_place

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Wide enough for the sections, without asking for the height of all of them."""
        return QSize(self.minimumSizeHint().width() + 20, 420)

    def section(self, title: str) -> QVBoxLayout:
        """Begin a section; add its widgets to the layout that is returned."""
        frame = QWidget()
        layout = QVBoxLayout(frame)
        layout.setContentsMargins(0, 6, 0, 0)
        layout.setSpacing(5)
        heading = QLabel(f"<b>{title}</b>")
        heading.setObjectName(HEADING)
        layout.addWidget(heading)
        self.column.addWidget(frame)
        return layout


def _dock_of(widget: QWidget) -> QDockWidget | None:
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent


class WrappedLabel(QLabel):
    """Text that wraps, can be copied, and is never cut off: a scroll area does not ask how high it is when wrapped.

    It shows names of files and what files say, so tags in it are text like any other, and marks that turn its direction
    are boxes; ``rich`` is for text of our own.
    """

    def __init__(self, text: str = "", *, rich: bool = False) -> None:
        super().__init__(text)
        self.setTextFormat(Qt.TextFormat.RichText if rich else Qt.TextFormat.PlainText)
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

    def setText(self, text: str) -> None:  # noqa: N802 - Qt's name
        """Show a text and take the room that it needs."""
        plain = self.textFormat() == Qt.TextFormat.PlainText
        super().setText("\n".join(map(printable, text.split("\n"))) if plain else text)
        self._take_room()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Wrap anew."""
        super().resizeEvent(event)
        self._take_room()

    def _take_room(self) -> None:
        self.setMinimumHeight(0)  # the height that Qt proposes is never below the present minimum
        self.setMinimumHeight(max(0, self.heightForWidth(self.width())))


class Banner(WrappedLabel):
    """A sentence or two on a coloured ground; hidden while there is nothing to say."""

    def __init__(self, level: str = INFO) -> None:
        super().__init__()
        self.say("", level)

    def say(self, text: str, level: str | None = None) -> None:
        """Show ``text``; an empty one hides the banner."""
        if level is not None:
            self.setStyleSheet(f"QLabel {{ {_BANNER_STYLES[level]} border-radius: 4px; padding: 6px; }}")
        self.setText(text)
        self.setVisible(bool(text))

    @property
    def message(self) -> str:
        """What it says, or an empty string."""
        text: str = self.text()
        return text


class Facts(QWidget):
    """Names and values in two columns; values can be copied."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(2)
        form.setHorizontalSpacing(10)
        self._values: dict[str, QLabel] = {}
        for name in names:
            value = WrappedLabel("–")
            self._values[name] = value
            form.addRow(f"{name}", value)

    def set(self, name: str, value: str) -> None:
        """Show a value, a dash for an empty one."""
        self._values[name].setText(value or "–")

    def value(self, name: str) -> str:
        """What is shown."""
        text: str = self._values[name].text()
        return text


class Slider(QWidget):
    """A slider with its name and a number that can be typed.

    Attributes
    ----------
    changed : Signal
        Emitted with the new value while a person drags or types.
    """

    changed = Signal(float)

    def __init__(self, name: str, low: float, high: float, step: float, tip: str, *, decimals: int = 2) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        self.name = QLabel(name)
        self.slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(low, high)
        self.slider.setSingleStep(step)
        self.slider.setDecimals(decimals)
        self.slider.valueChanged.connect(self.changed)
        self.name.setBuddy(self.slider)
        layout.addWidget(self.name)
        layout.addWidget(self.slider)
        self.setToolTip(tip)

    def show_value(self, value: float) -> None:
        """Set the value without emitting."""
        with silent(self.slider):
            self.slider.setValue(value)

    @property
    def value(self) -> float:
        """The value it shows."""
        return float(self.slider.value())


def plain_tip(text: str) -> str:
    """A tooltip that shows a text as it is, whatever a file is called."""
    lines = (html.escape(printable(line)) for line in text.split("\n"))
    return "<qt>" + "<br>".join(lines) + "</qt>"


class NumberBox(QDoubleSpinBox):
    """A box for numbers that is as wide as ``widest`` needs, whatever the size of letters.

    Parameters
    ----------
    widest : str
        The longest text that must be seen in full.
    """

    def __init__(self, widest: str) -> None:
        super().__init__()
        self._widest = widest
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Room for the text and both buttons."""
        return QSize(self.fontMetrics().horizontalAdvance(self._widest) + BUTTONS_WIDTH, super().sizeHint().height())

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """No narrower."""
        return self.sizeHint()


def table_of(name: str, columns: Sequence[str], tips: Sequence[str], *, fitted: int, height: int) -> QTableWidget:
    """An empty table that is only read, ``height`` px high; the column ``fitted`` is as wide as what it holds."""
    table = QTableWidget(0, len(columns))
    table.setAccessibleName(name)
    table.setHorizontalHeaderLabels(columns)
    table.verticalHeader().hide()
    for column, tip in enumerate(tips):
        table.horizontalHeaderItem(column).setToolTip(tip)
    table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
    table.horizontalHeader().setSectionResizeMode(fitted, QHeaderView.ResizeMode.ResizeToContents)
    table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setFixedHeight(height)
    return table


def row(*widgets: QWidget, stretch: int | None = None) -> QHBoxLayout:
    """Widgets side by side, labels naming what follows them; the one numbered ``stretch`` takes the room left."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(5)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if index == stretch else 0)
    for label, named in itertools.pairwise(widgets):
        if isinstance(label, QLabel) and not isinstance(named, QLabel):
            label.setBuddy(named)
    return layout


def narrow(box: QComboBox) -> QComboBox:
    """A box to choose from that takes the width there is, however long its entries."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(6)
    return box


def swatch(colour: Sequence[float]) -> QIcon:
    """A small square of a colour (r, g, b, a from 0 to 1) for a button; its edge is seen in dark and light themes."""
    pixmap = QPixmap(SWATCH, SWATCH)
    pixmap.fill(QColor(EDGE))
    painter = QPainter(pixmap)
    painter.fillRect(pixmap.rect().adjusted(1, 1, -1, -1), QColor.fromRgbF(*colour))
    painter.end()
    return QIcon(pixmap)


def fold(title: str) -> QCollapsible:
    """A part that opens and closes; the mark before its title is text, so it has the colour and size of the letters."""
    part = QCollapsible(title, expandedIcon=QIcon(), collapsedIcon=QIcon())

    def mark(opened: bool) -> None:
        part.setText(f"{'▾' if opened else '▸'}  {title}")

    part.toggleButton().toggled.connect(mark)
    mark(False)
    return part


def show_progress(bar: QProgressBar, progress: Progress | None) -> None:
    """Show how far work is; a bar that moves while nobody knows.

    Qt would paint a bar at once, and with it the window that it is in, even in the middle of other painting.
    """
    bar.setUpdatesEnabled(False)
    bar.setRange(0, 0 if progress is None else progress.total)
    bar.setValue(0 if progress is None else progress.done)
    bar.setUpdatesEnabled(True)


def allow(widget: QWidget, reason: str, tip: str | None = None) -> None:
    """Enable a widget, or disable it and have its tool tip say why.

    Parameters
    ----------
    widget : QWidget
    reason : str
        Why it cannot be used now; empty if it can.
    tip : str, optional
        What it does; by default what its tool tip said before it was first disabled.
    """
    if tip is None:
        if widget.property(_OWN_TIP) is None:
            widget.setProperty(_OWN_TIP, widget.toolTip())
        tip = str(widget.property(_OWN_TIP))
    widget.setEnabled(not reason)
    widget.setToolTip(reason or tip)


@contextmanager
def silent(thing: QObject) -> Iterator[None]:
    """Change something without a signal, since it was not a person who did."""
    thing.blockSignals(True)
    try:
        yield
    finally:
        thing.blockSignals(False)


class Follower:
    """Connections from controllers to a widget that end with the widget: Qt deletes it before Python does.

    Parameters
    ----------
    widget : QWidget
    """

    def __init__(self, widget: QWidget) -> None:
        self._connections: list[tuple[SignalInstance, Callable[..., Any]]] = []
        widget.destroyed.connect(partial(_disconnect, self._connections))

    def follow(self, signal: SignalInstance, function: Callable[..., Any]) -> None:
        """Connect a psygnal signal."""
        signal.connect(function)
        self._connections.append((signal, function))

    def unfollow(self) -> None:
        """End all connections made so far."""
        _disconnect(self._connections)


def _disconnect(connections: list[tuple[SignalInstance, Callable[..., Any]]], *_args: Any) -> None:
    for signal, function in connections:
        signal.disconnect(function, missing_ok=True)
    connections.clear()
