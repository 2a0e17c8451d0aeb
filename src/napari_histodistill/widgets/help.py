"""What helps in a dock: a line that says what to do next, the pages of the documentation, a report to copy.

The pages are files that come with the package, so they need no network.
"""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import platformdirs
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QSettings, Qt, QTimer, QUrl
from qtpy.QtGui import QDesktopServices, QImage, QTextCursor, QTextDocument
from qtpy.QtWidgets import QApplication, QHBoxLayout, QMenu, QTextBrowser, QToolButton, QWidget

from napari_histodistill.jobs import ProcessJob
from napari_histodistill.logs import log_file
from napari_histodistill.report import ReportRequest, make_report
from napari_histodistill.viewer.work import tell
from napari_histodistill.widgets.parts import WrappedLabel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TUTORIAL: Final = "tutorial.md"
ERRORS: Final = "troubleshooting.md"
GUIDE_KEY: Final = "guide"
MARK_SIZE: Final = 26
MARK_STYLE: Final = """
QToolButton { font-weight: bold; border: 1px solid palette(text); border-radius: 12px; padding: 0; }
QToolButton:focus { border-width: 2px; }
QToolButton::menu-indicator { image: none; }
"""


def settings() -> QSettings:
    """What the docks remember for a user, in ``$HISTODISTILL_CONFIG`` (a folder) or the user's folder for settings."""
    folder = os.environ.get("HISTODISTILL_CONFIG") or platformdirs.user_config_dir(
        "napari-histodistill", appauthor=False
    )
    return QSettings(str(Path(folder) / "docks.ini"), QSettings.Format.IniFormat)


@cache
def docs_folder() -> Path | None:
    """Where the pages are: in this checkout, else where the installed package put them; None if nowhere."""
    checkout = Path(__file__).parents[3]
    if (checkout / "mkdocs.yml").is_file():
        return checkout / "docs"
    try:
        files = distribution("napari-histodistill").files or []
    except PackageNotFoundError:
        return None
    pages = (Path(str(file.locate())).resolve() for file in files if file.name == TUTORIAL)
    return next((page.parent for page in pages if page.is_file()), None)


class HelpBar(QWidget):
    """The first line of a dock.

    Parameters
    ----------
    page : str
        Name of a page and, after a #, of a heading on it.
    state : callable
        What the window knows, for a report.
    """

    def __init__(self, page: str, state: Callable[[], Mapping[str, str]]) -> None:
        super().__init__()
        self._page, self._state = page, state
        self._step = ""
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 0)
        self.next = WrappedLabel("")
        layout.addWidget(self.next, 1)
        self.button = QToolButton()
        self.button.setText("?")
        self.button.setAccessibleName("Help")
        self.button.setToolTip("Help on this dock; the tutorial, errors, a report to copy")
        self.button.setFixedSize(MARK_SIZE, MARK_SIZE)
        self.button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.button.setStyleSheet(MARK_STYLE)
        self.button.setMenu(self._menu())
        layout.addWidget(self.button, 0, Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignRight)

    def _menu(self) -> QMenu:
        menu = QMenu(self)
        self.actions_by_name = {
            "Help on this dock": lambda: self.open_page(self._page),
            "Tutorial": lambda: self.open_page(TUTORIAL),
            "Errors and what to do": lambda: self.open_page(ERRORS),
            "Copy report": self.copy_report,
            "Show the log": show_log,
        }
        for name, action in self.actions_by_name.items():
            menu.addAction(name, action)
        menu.addSeparator()
        self.guide = menu.addAction("Say what to do next")
        self.guide.setCheckable(True)
        self.guide.toggled.connect(self._remember)
        menu.aboutToShow.connect(self._recall)
        return menu

    def say(self, step: str) -> None:
        """Show what to do next, unless the user has had enough of it."""
        self._step = step
        self.show_step()

    def show_step(self) -> None:
        """Show or hide what was said last, as the user wants it."""
        shown = self._step if settings().value(GUIDE_KEY, True, type=bool) else ""
        self.next.setText(shown)
        self.next.setVisible(bool(shown))

    def _recall(self) -> None:
        self.guide.blockSignals(True)
        self.guide.setChecked(settings().value(GUIDE_KEY, True, type=bool))
        self.guide.blockSignals(False)

    def _remember(self, on: bool) -> None:
        kept = settings()
        kept.setValue(GUIDE_KEY, on)
        kept.sync()
        for bar in self.window().findChildren(HelpBar):
            bar.show_step()

    def open_page(self, page: str) -> HelpWindow | None:
        """Show a page of the documentation in a window."""
        folder = docs_folder()
        if folder is None:
            show_warning("The pages of the documentation were not installed: install napari-histodistill from a wheel.")
            return None
        window = HelpWindow(folder)
        window.setParent(self, Qt.WindowType.Window)
        window.show()
        window.open(page)
        return window

    def copy_report(self) -> None:
        """Put a report for a bug on the clipboard; a child process asks torch for devices."""
        from napari_histodistill.widgets.session import QtRunner

        self._runner = QtRunner()
        job = ProcessJob(make_report, ReportRequest(dict(self._state())))
        self._runner.start(job, progress=lambda _progress: None, done=_to_clipboard, failed=tell)


def _to_clipboard(report: str) -> None:
    QApplication.clipboard().setText(report)
    show_info(
        "The report is on the clipboard. It holds no names of slides, paths or patients; read it before you send it."
    )


def show_log() -> None:
    """Open the folder of the log."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(log_file().parent)))


class HelpWindow(QTextBrowser):
    """Shows the pages of the documentation, which are Markdown.

    Parameters
    ----------
    folder : Path
        Where they are.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.setOpenLinks(False)
        self.anchorClicked.connect(self._follow)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(900, 700)

    def open(self, page: str) -> None:
        """Go to a page and, after a #, to a heading on it."""
        name, _, heading = page.partition("#")
        if name:
            self.setSource(QUrl.fromLocalFile(str(self._folder / name)), QTextDocument.ResourceType.MarkdownResource)
            self.setWindowTitle(f"HistoDistill: {self._first_heading()}")
        if heading:
            QTimer.singleShot(0, lambda: self._go_to(heading))  # once the page is laid out

    def loadResource(self, kind: int, name: QUrl) -> Any:  # noqa: N802 - Qt's name
        """Pictures as wide as the window at most."""
        if kind != QTextDocument.ResourceType.ImageResource.value:
            return super().loadResource(kind, name)
        image = QImage(self.source().resolved(name).toLocalFile())
        room = max(200, self.viewport().width() - 40)
        return image.scaledToWidth(room, Qt.TransformationMode.SmoothTransformation) if image.width() > room else image

    def _follow(self, link: QUrl) -> None:
        if link.scheme() in ("http", "https"):
            QDesktopServices.openUrl(link)
        elif not link.path() or link.path().endswith(".md"):
            self.open(f"{Path(link.path()).name}#{link.fragment()}")
        else:
            QDesktopServices.openUrl(self.source().resolved(link))

    def _headings(self) -> list[QTextCursor]:
        block, found = self.document().begin(), []
        while block.isValid():
            if block.blockFormat().headingLevel():
                found.append(QTextCursor(block))
            block = block.next()
        return found

    def _first_heading(self) -> str:
        return next((cursor.block().text() for cursor in self._headings()), "help")

    def _go_to(self, heading: str) -> None:
        for cursor in self._headings():
            if _anchor(cursor.block().text()) == heading:
                bar = self.verticalScrollBar()
                self.setTextCursor(cursor)
                bar.setValue(bar.value() + self.cursorRect(cursor).top())
                return


def _anchor(heading: str) -> str:
    """What the site calls a heading in its links.

    Examples
    --------
    >>> _anchor("What the bundled model has seen, and what not")
    'what-the-bundled-model-has-seen-and-what-not'
    """
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())
