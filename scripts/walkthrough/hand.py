"""A hand on mouse and keyboard: what a person does to a window, as events that Qt and napari cannot tell apart."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QEventLoop, QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QFileDialog, QLineEdit, QScrollArea, QTabBar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qtpy.QtWidgets import QAbstractItemView, QComboBox, QSpinBox, QTableWidget, QWidget

LEFT = Qt.MouseButton.LeftButton
POPUP_S = 0.6
"""Seconds for which a popup takes a click to be the one that opened it (the time of a double click), and a little."""

Place = tuple[float, float]
"""On the canvas, as (x, y) in parts of its width and height."""


class WaitedInVainError(Exception):
    """Something that should have happened did not."""


class Hand:
    """Clicks, drags, turns the wheel and types in the window of a viewer; nothing here calls the plugin.

    Parameters
    ----------
    viewer : napari.Viewer
        Shown, on a screen with OpenGL.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.window = viewer.window._qt_window  # noqa: SLF001 - napari has no public name for its main window
        self.canvas = viewer.window._qt_viewer.canvas.native  # noqa: SLF001 - nor for its canvas

    # Time

    def pause(self, seconds: float) -> None:
        """Let the event loop run."""
        loop = QEventLoop()
        QTimer.singleShot(round(1000 * seconds), Qt.TimerType.PreciseTimer, loop.quit)
        loop.exec()

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> float:
        """Let the event loop run until a condition holds; gives the seconds that it took.

        Raises
        ------
        WaitedInVainError
        """
        start = time.monotonic()
        while not condition():
            if time.monotonic() - start > seconds:
                raise WaitedInVainError(f"Waited {seconds:.0f} s in vain for: {what}.")
            self.pause(0.03)
        return time.monotonic() - start

    # Widgets

    def click(self, widget: QWidget, place: QPoint | None = None) -> None:
        """Scroll a widget into view and click it, a button or a box in its left part where the mark is."""
        self.reveal(widget)
        if not (widget.isVisible() and widget.isEnabled()):
            raise WaitedInVainError(f"{type(widget).__name__} {_name_of(widget)} cannot be clicked.")
        QTest.mouseClick(widget, LEFT, pos=place or QPoint(min(12, widget.width() // 2), widget.height() // 2))
        self.pause(0.05)

    def click_in(self, view: QAbstractItemView, place: QPoint) -> None:
        """Click into a list or table, at a place in what it shows."""
        self.reveal(view)
        QTest.mouseClick(view.viewport(), LEFT, pos=place)
        self.pause(0.05)

    def reveal(self, widget: QWidget) -> None:
        """Scroll the panel around a widget until it is seen."""
        parent = widget.parent()
        while parent is not None:
            if isinstance(parent, QScrollArea):
                parent.ensureWidgetVisible(widget, 50, 110)  # and what is around it
                self.pause(0.05)
                return
            parent = parent.parent()

    def choose(self, box: QComboBox, text: str) -> None:
        """Open a box and click an entry."""
        row = box.findText(text)
        if row < 0:
            raise WaitedInVainError(f"There is no entry {text!r}.")
        self.click(box)
        view = box.view()
        self.wait(view.isVisible, 5, "the list to open")
        self.pause(POPUP_S)
        place = view.visualRect(box.model().index(row, box.modelColumn())).center()
        QTest.mouseMove(view.viewport(), place)
        self.pause(0.05)
        QTest.mouseClick(view.viewport(), LEFT, pos=place)
        self.wait(lambda: not view.isVisible(), 5, "the list to close")
        self.pause(0.05)

    def type_number(self, box: QSpinBox, number: float) -> None:
        """Replace the number in a box."""
        self.reveal(box)
        line = box.findChild(QLineEdit)
        QTest.mouseClick(line, LEFT)
        line.selectAll()
        QTest.keyClicks(line, f"{number:g}")
        QTest.keyClick(line, Qt.Key.Key_Return)
        self.pause(0.05)

    def slide(self, slider: Any, to: float) -> None:
        """Drag the handle of a slider with a number beside it (superqt's) to a value."""
        self.reveal(slider)
        groove = slider._slider  # noqa: SLF001 - superqt has no public name for the slider without its number
        low, high = slider.minimum(), slider.maximum()

        def at(value: float) -> QPoint:
            return QPoint(round(8 + (groove.width() - 16) * (value - low) / (high - low)), groove.height() // 2)

        start, end = at(slider.value()), at(to)
        QTest.mousePress(groove, LEFT, pos=start)
        for part in range(1, 11):
            move = QMouseEvent(
                QEvent.Type.MouseMove,
                QPointF(start + (end - start) * (part / 10)),
                QPointF(groove.mapToGlobal(start + (end - start) * (part / 10))),
                Qt.MouseButton.NoButton,
                LEFT,
                Qt.KeyboardModifier.NoModifier,
            )
            QApplication.sendEvent(groove, move)
            self.pause(0.03)
        QTest.mouseRelease(groove, LEFT, pos=end)
        self.pause(0.05)

    def choose_row(self, table: QTableWidget, row: int) -> None:
        """Click a row of a table."""
        self.choose_rows(table, row)

    def choose_rows(self, table: QTableWidget, *rows: int) -> None:
        """Click rows of a table, all but the first with Ctrl held."""
        self.reveal(table)
        for row in rows:
            table.scrollToItem(table.item(row, 0))
            key = Qt.KeyboardModifier.NoModifier if row == rows[0] else Qt.KeyboardModifier.ControlModifier
            QTest.mouseClick(table.viewport(), LEFT, key, table.visualItemRect(table.item(row, 0)).center())
            self.pause(0.05)

    def raise_tab(self, panel: QWidget, title: str) -> None:
        """Click the tab of a dock that lies behind others; one that is in front stays there."""
        if not panel.visibleRegion().isEmpty():
            return
        for bar in self.window.findChildren(QTabBar):
            for index in range(bar.count()):
                if bar.tabText(index).startswith(title) and bar.isVisible():
                    QTest.mouseClick(bar, LEFT, pos=bar.tabRect(index).center())
                    self.pause(0.3)
                    return
        raise WaitedInVainError(f"There is no tab {title!r}.")

    def menu(self, *path: str) -> None:
        """Go through the menus and click an entry."""
        bar = self.window.menuBar()
        action = _action(bar, path[0])
        QTest.mouseClick(bar, LEFT, pos=bar.actionGeometry(action).center())
        for name in path[1:]:
            menu = action.menu()
            self.wait(menu.isVisible, 5, f"the menu above {name}")
            action = _action(menu, name)
            place = menu.actionGeometry(action).center()
            QTest.mouseMove(menu, place)
            self.pause(0.1)
            QTest.mouseClick(menu, LEFT, pos=place)
            self.pause(0.1)
        self.pause(0.3)

    def answer_file_dialog(self, path: Path) -> None:
        """Paste a path into the next dialog for files, and accept; call it before what opens the dialog."""
        timer = QTimer(self.window)

        def answer() -> None:
            for dialog in QApplication.topLevelWidgets():
                if isinstance(dialog, QFileDialog) and dialog.isVisible():
                    timer.stop()
                    line = dialog.findChild(QLineEdit, "fileNameEdit")
                    line.setText(str(path))  # as if pasted: typing would open the list of completions
                    button = dialog.findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Open)
                    QTest.mouseClick(button, LEFT)

        timer.timeout.connect(answer)
        timer.start(50)

    # Canvas

    def drag(self, places: Sequence[Place], step_s: float = 0.02) -> None:
        """Press at the first place, move over the others, release at the last."""
        points = [self._point(place) for place in places]
        self._move(points[0], Qt.MouseButton.NoButton)
        self.pause(step_s)
        QTest.mousePress(self.canvas, LEFT, pos=points[0])
        self.pause(step_s)
        for point in points[1:]:
            self._move(point, LEFT)
            self.pause(step_s)
        QTest.mouseRelease(self.canvas, LEFT, pos=points[-1])
        self.pause(step_s)

    def zoom(self, place: Place, notches: int) -> None:
        """Turn the wheel at a place: towards it with positive notches."""
        at = QPointF(self._point(place))
        for _ in range(abs(notches)):
            event = QWheelEvent(
                at,
                QPointF(self.canvas.mapToGlobal(at.toPoint())),
                QPoint(),
                QPoint(0, 120 if notches > 0 else -120),
                Qt.MouseButton.NoButton,
                Qt.KeyboardModifier.NoModifier,
                Qt.ScrollPhase.NoScrollPhase,
                False,
            )
            QApplication.sendEvent(self.canvas, event)
            self.pause(0.04)

    def _point(self, place: Place) -> QPoint:
        return QPoint(round(place[0] * self.canvas.width()), round(place[1] * self.canvas.height()))

    def _move(self, point: QPoint, button: Qt.MouseButton) -> None:
        """Move the mouse; QTest.mouseMove does not tell which button is down."""
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(point),
            QPointF(self.canvas.mapToGlobal(point)),
            Qt.MouseButton.NoButton,
            button,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(self.canvas, event)

    def stroke_timed(self, places: Sequence[Place], draw: Callable[[], None]) -> list[float]:
        """A stroke as `drag` makes it; gives the seconds from each of its events to the screen."""
        points = [self._point(place) for place in places]
        self._move(points[0], Qt.MouseButton.NoButton)
        self.pause(0.02)
        actions: list[Callable[[], None]] = [lambda: QTest.mousePress(self.canvas, LEFT, pos=points[0])]
        actions += [lambda point=point: self._move(point, LEFT) for point in points[1:]]
        actions.append(lambda: QTest.mouseRelease(self.canvas, LEFT, pos=points[-1]))
        seconds = []
        for action in actions:
            start = time.perf_counter()
            action()
            draw()
            seconds.append(time.perf_counter() - start)
        self.pause(0.05)
        return seconds


def _action(menu: Any, name: str) -> Any:
    for action in menu.actions():
        if action.text().replace("&", "").startswith(name):
            return action
    raise WaitedInVainError(f"There is no menu entry {name!r}.")


def _name_of(widget: Any) -> str:
    return repr(widget.text()) if hasattr(widget, "text") else ""
