"""Live curves of a distillation: loss and selection score of every epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QPaintEvent, QResizeEvent

    from napari_histodistill.mil.settings import Epoch

HEIGHT = 150
SIDE, BELOW, ABOVE = 4.8, 3.6, 0.8
"""Margins, in heights of a letter."""
HALF = 128
"""Half of the largest lightness: text lighter than this is on a dark ground."""


class Curves(QWidget):
    """Loss (left axis) and score (right axis) against the epoch; hidden before the first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._figure = Figure()
        self._canvas = FigureCanvasQTAgg(self._figure)
        self._figure.patch.set_alpha(0)
        self._canvas.setStyleSheet("background: transparent;")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._canvas)
        self.setFixedHeight(HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("Loss of every epoch and, where there is evidence, how well the model does on it")
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._draw_if_seen)
        self._stale = False
        """Whether there is something to draw once this is on screen."""
        self._epochs: Sequence[tuple[int, Epoch]] = ()
        self.setVisible(False)

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Draw anew in the colours of another theme, once all of the window has them: napari sets its style twice."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.StyleChange and self._epochs:
            self._soon.start()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw what came while the dock lay behind others: Qt calls it visible there, and does not paint it."""
        super().paintEvent(event)
        if self._stale:
            self._soon.start()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Keep the margins as wide as the letters in them."""
        super().resizeEvent(event)
        self._set_margins()

    def show_epochs(self, epochs: Sequence[tuple[int, Epoch]]) -> None:
        """Draw the epochs (round, record); does nothing if they are drawn."""
        if tuple(epochs) == self._epochs:
            return
        self._epochs = tuple(epochs)
        self.setVisible(bool(epochs))
        self._draw_if_seen()

    def _draw_if_seen(self) -> None:
        self._stale = True
        if not self.visibleRegion().isEmpty():
            self._draw()

    def _draw(self) -> None:
        self._stale = False
        epochs = self._epochs
        self._figure.clear()
        ink = self.palette().color(self.foregroundRole())
        colour, dark = ink.name(), ink.lightness() > HALF
        loss_colour, score_colour = ("#e69f00", "#56b4e9") if dark else ("#a85f00", "#0072b2")
        loss = self._figure.add_subplot()
        x = range(1, len(epochs) + 1)
        loss.plot(x, [epoch.loss for _, epoch in epochs], ".-", color=loss_colour)
        loss.set_ylabel("loss", color=loss_colour, size="small")
        loss.set_xlabel("epoch", color=colour, size="small")
        scores = [float("nan") if epoch.score is None else epoch.score for _, epoch in epochs]
        axes = [loss]
        if any(epoch.score is not None for _, epoch in epochs):
            score = loss.twinx()
            score.plot(x, scores, ".-", color=score_colour)
            score.set_ylabel("score", color=score_colour, size="small")
            axes.append(score)
        for i in range(1, len(epochs)):
            if epochs[i][0] != epochs[i - 1][0]:
                loss.axvline(i + 0.5, color=colour, linewidth=0.5)
        for each in axes:
            each.patch.set_alpha(0)
            each.tick_params(colors=colour, labelsize="small")
            each.spines[:].set_color(colour)
        loss.set_xlim(0.5, len(epochs) + 0.5)
        loss.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        self._set_margins()
        self._canvas.draw_idle()

    def _set_margins(self) -> None:
        """Leave room for numbers and names of the axes; a layout that matplotlib finds takes as long as all drawing."""
        letter = self._figure.dpi / 72 * FontProperties(size="small").get_size_in_points()
        width, height = (max(1, pixels) for pixels in self._figure.bbox.size)
        left, low, high = SIDE * letter / width, BELOW * letter / height, ABOVE * letter / height
        right = left if len(self._figure.axes) > 1 else ABOVE * letter / width
        if left + right < 1 and low + high < 1:
            self._figure.subplots_adjust(left=left, right=1 - right, bottom=low, top=1 - high)
