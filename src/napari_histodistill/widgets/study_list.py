"""The list of a study's slides: a model over `StudyControl`, and rows that are painted, so that many cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QAbstractListModel, QEvent, QModelIndex, QRect, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QFont, QImage, QPainter, QPalette, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QComboBox, QListView, QStyle, QStyledItemDelegate

from napari_histodistill.study import SlideLabel
from napari_histodistill.viewer.colours import TUMOUR_COLOUR
from napari_histodistill.widgets.dropping import TakesFiles
from napari_histodistill.widgets.parts import plain_tip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtCore import QAbstractItemModel
    from qtpy.QtGui import (
        QFontMetrics,
        QHideEvent,
        QKeyEvent,
        QResizeEvent,
        QShowEvent,
    )
    from qtpy.QtWidgets import QStyleOptionViewItem, QWidget

    from napari_histodistill.viewer.study import StudyControl
    from napari_histodistill.viewer.study_work import SlideRow

ROW_HEIGHT, PICTURE, GAP = 84, 72, 6
CHIP: Final = QSize(82, 20)
"""Least px of a row and of the label in it; larger letters take more."""
LABELS: Final = {SlideLabel.TUMOUR: "tumour", SlideLabel.NORMAL: "normal", SlideLabel.UNKNOWN: "unknown"}
LOOK_DELAY_MS: Final = 60
"""From the last scroll until the pictures of what is visible are asked for."""


class SlidesModel(QAbstractListModel):
    """The rows of a study.

    Parameters
    ----------
    study : StudyControl
    """

    def __init__(self, study: StudyControl) -> None:
        super().__init__()
        self._study = study
        self.rows: tuple[SlideRow, ...] = ()
        self._pixmaps: dict[Path, QPixmap] = {}

    def follow(self) -> None:
        """Show the rows as they are now; what is chosen stays chosen while the slides are the same."""
        rows = self._study.rows
        if [row.folder for row in rows] == [row.folder for row in self.rows]:
            self.rows = rows
            if rows:
                self.dataChanged.emit(self.index(0), self.index(len(rows) - 1))
            return
        self.beginResetModel()
        self.rows = rows
        self._pixmaps = {row.folder: self._pixmaps[row.folder] for row in rows if row.folder in self._pixmaps}
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Number of slides."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Every row can be chosen and its label edited."""
        flags: Qt.ItemFlag = super().flags(index) | Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Name, what a screen reader says, and what the mouse is told; as plain text."""
        if not index.isValid() or index.row() >= len(self.rows):
            return None
        row = self.rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return row.name
        if role == Qt.ItemDataRole.EditRole:
            return row.label.value
        lines = [row.name, self.words(row), self.areas(row), f"label: {LABELS[row.label]}"]
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return ", ".join(line for line in lines if line)
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_tip("\n".join([str(row.path), *(line for line in lines[1:] if line)]))
        return None

    def words(self, row: SlideRow) -> str:
        """The state of a slide."""
        return self._study.words(row)

    def areas(self, row: SlideRow) -> str:
        """Tumour in mm² and in percent of tissue."""
        overview = self._study.overview(row)
        return "" if overview is None else overview.areas()

    def is_open(self, row: SlideRow) -> bool:
        """Whether the slide is in the viewer."""
        return self._study.view_of(row) is not None

    def picture(self, row: SlideRow) -> QPixmap | None:
        """The slide, if it was looked at."""
        if row.folder not in self._pixmaps:
            pixels = self._study.thumbnails.get(row.folder)
            if pixels is None:
                return None
            height, width, _ = pixels.shape
            image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
            self._pixmaps[row.folder] = QPixmap.fromImage(image)
        return self._pixmaps[row.folder]


class RowPainter(QStyledItemDelegate):
    """Paints a row, and edits its label in a box."""

    label_chosen = Signal(object, object)
    """Index and `SlideLabel`."""

    def sizeHint(self, option: QStyleOptionViewItem, _index: QModelIndex) -> QSize:  # noqa: N802 - Qt's name
        """All rows are as high, so that a long list need not be measured."""
        return QSize(160, row_height(option.fontMetrics))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Picture at the left; name, state, areas and label at its side."""
        model: Any = index.model()
        row, palette = model.rows[index.row()], option.palette
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(option.rect, palette.brush(QPalette.ColorRole.Highlight))
        if option.state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(palette.color(QPalette.ColorRole.Text))
            painter.drawRect(option.rect.adjusted(0, 0, -1, -1))
        self._paint_picture(painter, option.rect, model.picture(row), palette)
        text = option.rect.adjusted(PICTURE + 2 * GAP, GAP, -GAP, -GAP)
        bold, plain = QFont(option.font), QFont(option.font)
        bold.setBold(True)
        ink = palette.color(QPalette.ColorRole.Text)
        line = text.height() // 4
        mark = "● " if model.is_open(row) else ""
        state = model.words(row)
        warn = QColor("#ffb454") if row.problem or not row.there else ink
        lines = ((mark + row.name, bold, ink), (state, plain, warn), (model.areas(row), plain, ink))
        for number, (what, font, colour) in enumerate(lines):
            place = QRect(text.left(), text.top() + number * line, text.width(), line)
            _write(painter, place, what, font, colour)
        self._paint_chip(painter, self.chip(option), row.label, option)
        painter.restore()

    def _paint_picture(self, painter: QPainter, rect: QRect, picture: QPixmap | None, palette: QPalette) -> None:
        frame = QRect(rect.left() + GAP, rect.top() + (rect.height() - PICTURE) // 2, PICTURE, PICTURE)
        if picture is None:
            painter.setPen(palette.color(QPalette.ColorRole.Mid))
            painter.drawRect(frame.adjusted(0, 0, -1, -1))
            return
        size = picture.size().scaled(frame.size(), Qt.AspectRatioMode.KeepAspectRatio)
        place = QRect(0, 0, max(1, size.width()), max(1, size.height()))
        place.moveCenter(frame.center())
        painter.drawPixmap(place, picture)

    def _paint_chip(self, painter: QPainter, chip: QRect, label: SlideLabel, option: QStyleOptionViewItem) -> None:
        colour = QColor.fromRgbF(*TUMOUR_COLOUR[:3]) if label is SlideLabel.TUMOUR else QColor("#8a94a0")
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(colour)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(chip.adjusted(0, 0, -1, -1), 4, 4)
        ink = option.palette.color(QPalette.ColorRole.Text)
        _write(painter, chip.adjusted(6, 0, -3, 0), f"{LABELS[label]} ▾", option.font, ink)

    @staticmethod
    def chip(option: QStyleOptionViewItem) -> QRect:
        """Where the label of a row is painted, and chosen."""
        rect, letters = option.rect, option.fontMetrics
        width = max(CHIP.width(), max(letters.horizontalAdvance(f"{text} ▾") for text in LABELS.values()) + 12)
        height = max(CHIP.height(), letters.height() + 2)
        return QRect(rect.left() + PICTURE + 2 * GAP, rect.bottom() - 4 - height, width, height)

    def editorEvent(  # noqa: N802 - Qt's name
        self, event: QEvent, model: QAbstractItemModel, option: QStyleOptionViewItem, index: QModelIndex
    ) -> bool:
        """A click on the label lets it be chosen."""
        view = option.widget
        position: Any = event
        if event.type() == QEvent.Type.MouseButtonRelease and self.chip(option).contains(position.pos()):
            view.edit(index)
            return True
        handled: bool = super().editorEvent(event, model, option, index)
        return handled

    def createEditor(self, parent: QWidget, _option: QStyleOptionViewItem, index: QModelIndex) -> QWidget:  # noqa: N802
        """A box with the three labels, open at once."""
        box = QComboBox(parent)
        for label, text in LABELS.items():
            box.addItem(text, label)
        where = index.row()
        box.activated.connect(lambda _number: self._choose(box, where))
        QTimer.singleShot(0, box.showPopup)
        return box

    def _choose(self, box: QComboBox, where: int) -> None:
        self.label_chosen.emit(where, box.currentData())
        self.closeEditor.emit(box)

    def setEditorData(self, editor: QWidget, index: QModelIndex) -> None:  # noqa: N802 - Qt's name
        """Show the label that the slide has."""
        box: Any = editor
        box.setCurrentIndex(list(LABELS).index(SlideLabel(index.data(Qt.ItemDataRole.EditRole))))

    def setModelData(self, editor: QWidget, model: QAbstractItemModel, index: QModelIndex) -> None:  # noqa: N802
        """Nothing: a label is set when it is chosen, not when the box is left."""

    def updateEditorGeometry(  # noqa: N802 - Qt's name
        self, editor: QWidget, option: QStyleOptionViewItem, _index: QModelIndex
    ) -> None:
        """The box lies where the label is painted."""
        editor.setGeometry(self.chip(option).adjusted(0, -2, 24, 2))


class SlideList(TakesFiles, QListView):
    """The list; says which rows are visible, and takes files that are dropped on it.

    Attributes
    ----------
    dropped : Signal
        Emitted with a list of `Path`.
    delete_pressed : Signal
        The key that takes slides out.
    """

    dropped = Signal(object)
    delete_pressed = Signal()

    def __init__(self, study: StudyControl) -> None:
        super().__init__()
        self._study = study
        self.slides = SlidesModel(study)
        self.painter = RowPainter(self)
        self.setModel(self.slides)
        self.setItemDelegate(self.painter)
        self.setUniformItemSizes(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumHeight(3 * ROW_HEIGHT)
        self.setAccessibleName("Slides of the study")
        self.setAcceptDrops(True)
        self.verticalScrollBar().setSingleStep(ROW_HEIGHT // 3)
        self.painter.label_chosen.connect(self._on_label)
        self._look_soon = QTimer(self)
        self._look_soon.setSingleShot(True)
        self._look_soon.setInterval(LOOK_DELAY_MS)
        self._look_soon.timeout.connect(self._look)
        self.verticalScrollBar().valueChanged.connect(lambda _value: self._look_soon.start())

    def follow(self) -> None:
        """Show the study as it is now."""
        chosen = {row.folder for row in self.chosen()}
        self.slides.follow()
        if chosen and not self.selectionModel().hasSelection():
            for number, row in enumerate(self.slides.rows):
                if row.folder in chosen:
                    self.selectionModel().select(self.slides.index(number), self.selectionModel().SelectionFlag.Select)
        self._look_soon.start()

    def chosen(self) -> list[SlideRow]:
        """The rows that are selected, from the top."""
        numbers = sorted(index.row() for index in self.selectionModel().selectedIndexes())
        return [self.slides.rows[number] for number in numbers if number < len(self.slides.rows)]

    def visible_rows(self) -> Sequence[SlideRow]:
        """The rows that are on screen."""
        if not self.isVisible():
            return ()
        height = row_height(self.fontMetrics())
        first = self.verticalScrollBar().value() // height
        count = self.viewport().height() // height + 2
        return self.slides.rows[first : first + count]

    def _look(self) -> None:
        self._study.look_at(row.folder for row in self.visible_rows())

    def _on_label(self, number: int, label: SlideLabel) -> None:
        """Set the label of a row, or of all that are selected if it is one of them."""
        row, chosen = self.slides.rows[number], self.chosen()
        self._study.set_label(chosen if row in chosen else [row], label)

    # Qt's events

    def take(self, paths: list[Path]) -> None:
        """Tell what was dropped."""
        self.dropped.emit(paths)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """The keys of a list, and Delete."""
        if event.key() == Qt.Key.Key_Delete:
            self.delete_pressed.emit()
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """More rows may be visible."""
        super().resizeEvent(event)
        self._look_soon.start()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Its rows are on screen now."""
        super().showEvent(event)
        self._look_soon.start()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Nothing of it is."""
        super().hideEvent(event)
        self._look_soon.start()


def row_height(letters: QFontMetrics) -> int:
    """Height of a row in px, for four lines."""
    lines: int = letters.height()
    return max(ROW_HEIGHT, 4 * (lines + 3) + 2 * GAP)


def _write(painter: QPainter, place: QRect, text: str, font: QFont, colour: QColor) -> None:
    """One line of plain text, cut off with dots where it is too long."""
    painter.setFont(font)
    painter.setPen(colour)
    cut = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, place.width())
    painter.drawText(place, Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine, cut)
