"""Files and folders that are dropped on a widget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtpy.QtGui import QDragEnterEvent, QDragMoveEvent, QDropEvent


class TakesFiles:
    """What a widget inherits from, before its Qt class, to take files and folders of this machine.

    It accepts drops once its ``setAcceptDrops`` was called.
    """

    def take(self, paths: list[Path]) -> None:
        """Do what is to be done with files and folders that were dropped."""
        raise NotImplementedError

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        """Let a drag in that brings some."""
        _accept(event)

    def dragMoveEvent(self, event: QDragMoveEvent) -> None:  # noqa: N802 - Qt's name
        """Take them wherever they are held."""
        _accept(event)

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802 - Qt's name
        """Take them."""
        self.take(_paths(event))
        event.acceptProposedAction()


def _accept(event: QDragEnterEvent | QDragMoveEvent) -> None:
    if _paths(event):
        event.acceptProposedAction()


def _paths(event: QDropEvent) -> list[Path]:
    return [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
