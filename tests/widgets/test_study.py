"""The "Study" dock as a user meets it: empty, with slides, by mouse, by key and by drag and drop."""

from __future__ import annotations

import shutil

import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox

from napari_histodistill.study import SlideLabel, Study
from napari_histodistill.widgets.session import session_of
from napari_histodistill.widgets.study import NO_SLIDES, NO_STUDY

pytestmark = pytest.mark.viewer
EVIL = "a & <b>bold<b> name.tiff"


@pytest.fixture
def small(drawn):
    return drawn(256, 384)


@pytest.fixture
def dock(docked):
    return docked("Study")[0]


def copies(small, folder, number):
    """Slides that differ, quickly: a TIFF may have bytes behind its end."""
    paths = [folder / (EVIL if i == 0 else f"case-{i:02d}.tiff") for i in range(number)]
    for i, path in enumerate(paths):
        shutil.copy(small, path)
        with path.open("ab") as file:
            file.write(bytes([i]))
    return paths


def drop(widget, paths):
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    widget.dropEvent(QDropEvent(QPointF(20, 20), Qt.DropAction.CopyAction, mime, buttons, keys))


def choose(dock, *numbers):
    dock.list.clearSelection()
    for number in numbers:
        index = dock.list.slides.index(number)
        dock.list.selectionModel().select(index, dock.list.selectionModel().SelectionFlag.Select)


def test_the_empty_dock_says_what_to_do_and_each_button_why_not(window, dock):
    assert dock.hint.message == NO_STUDY
    for button in (dock.show_button, dock.remove_button, dock.relink_button, dock.add_button, dock.add_open_button):
        assert not button.isEnabled()
        assert "first" in button.toolTip()
    assert dock.step[0] == 1


def test_slides_are_dropped_listed_labelled_opened_removed_and_restored(window, dock, small, tmp_path):
    study = dock.study
    study.create(tmp_path / "trial")
    window.wait(lambda: study.chosen and not study.listing)
    assert dock.hint.message == NO_SLIDES
    assert dock.add_button.isEnabled()
    paths = copies(small, tmp_path, 3)
    drop(dock.list, paths)
    window.wait(lambda: len(study.rows) == 3 and len(study.thumbnails) == 3)
    assert dock.name.text() == "trial   3 slides"
    assert not dock.hint.message
    section = dock.name.parentWidget()  # the list takes the height there is, and nothing else does
    assert section.height() <= section.sizeHint().height() + 5

    index = dock.list.slides.index(0)
    tip = index.data(Qt.ItemDataRole.ToolTipRole)
    assert "&lt;b&gt;bold" in tip  # a file's name is no markup
    assert index.data() == EVIL

    dock.list.setFocus()
    dock.list.setCurrentIndex(index)
    QTest.keyClick(dock.list, Qt.Key.Key_F2)
    window.settle()
    box = dock.list.findChild(QComboBox)
    box.setCurrentIndex(1)
    box.activated.emit(1)
    window.wait(lambda: Study.open(study.folder).slides()[0].label is SlideLabel.NORMAL)
    assert index.data(Qt.ItemDataRole.EditRole) == "normal"

    dock.list.setFocus()
    QTest.keyClick(dock.list, Qt.Key.Key_Return)
    window.wait(lambda: session_of(window.viewer).current is not None)
    view = session_of(window.viewer).current
    assert (view.slide.name, view.teacher.study_folder) == (EVIL, study.folder)

    choose(dock, 1)
    QTest.keyClick(dock.list, Qt.Key.Key_Delete)
    assert dock.remove_button.text() == "Really remove?"
    choose(dock, 2)  # another one: the question was not about that
    assert dock.remove_button.text() == "Remove"
    dock.remove_button.click()
    assert len(study.rows) == 3
    dock.remove_button.click()
    window.wait(lambda: len(study.rows) == 2)
    assert [removed.name for removed in study.removed] == ["case-02.tiff"]
    dock._fill_removed()
    dock.restore_menu.actions()[0].trigger()
    window.wait(lambda: len(study.rows) == 3)
    assert not dock.restore_button.isVisible()


def test_a_slide_that_moved_is_said_and_found(window, dock, small, tmp_path):
    study = dock.study
    study.create(tmp_path / "trial")
    window.wait(lambda: study.chosen)
    paths = copies(small, tmp_path, 2)
    study.add(paths)
    window.wait(lambda: len(study.rows) == 2 and not study.busy)
    assert not dock.search_button.isVisible()
    (tmp_path / "archive").mkdir()
    paths[1].rename(tmp_path / "archive" / "renamed.tiff")
    study.refresh()
    window.wait(lambda: study.missing)
    assert dock.missing.message == "case-01.tiff is not where it was: choose it and relink it, or look in a folder."
    choose(dock, 1)
    assert not dock.show_button.isEnabled()
    assert "relink it" in dock.show_button.toolTip()
    assert dock.relink_button.isEnabled()
    study.search(tmp_path / "archive")
    window.wait(lambda: not study.missing and not study.busy)
    assert not dock.missing.message


def test_of_a_long_list_only_what_is_on_screen_is_looked_at(window, dock, small, tmp_path):
    study = dock.study
    study.create(tmp_path / "trial")
    window.wait(lambda: study.chosen)
    study.add(copies(small, tmp_path, 60))
    window.wait(lambda: len(study.rows) == 60)
    window.wait(lambda: len(study.thumbnails) >= len(dock.list.visible_rows()) > 2)
    window.settle(0.5)
    looked_at = len(study.thumbnails)
    assert looked_at < 30
    dock.list.scrollToBottom()
    window.wait(lambda: study.rows[-1].folder in study.thumbnails)
    assert len(study.thumbnails) < 60


def test_a_study_is_opened_by_dropping_it_and_slides_without_one_are_refused_in_words(window, dock, small, tmp_path):
    drop(dock, [small])
    assert dock.study.folder is None
    Study.create(tmp_path / "trial")
    drop(dock, [tmp_path / "trial"])
    window.wait(lambda: dock.study.folder is not None)
    assert dock.study.folder == tmp_path / "trial"
    dock._fill_recent()
    assert dock.recent_menu.actions()[-1].text() == "Leave this study"
    dock.recent_menu.actions()[-1].trigger()
    assert dock.study.folder is None
    dock._fill_recent()
    assert dock.recent_menu.actions()[0].text().startswith("trial")


def test_slides_that_are_dropped_together_with_a_study_go_into_it(window, dock, small, tmp_path):
    Study.create(tmp_path / "trial")
    drop(dock.list, [*copies(small, tmp_path, 2), tmp_path / "trial"])
    window.wait(lambda: len(dock.study.rows) == 2)
    assert len(Study.open(tmp_path / "trial").slides()) == 2


def test_slides_that_are_dropped_with_a_study_that_cannot_be_opened_go_nowhere(window, dock, small, tmp_path):
    Study.create(tmp_path / "trial")
    dock.study.choose(tmp_path / "trial")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.json").write_text("{")
    drop(dock, [tmp_path / "broken", *copies(small, tmp_path, 1)])
    window.wait(lambda: not dock.study.busy and not dock.study.listing)
    assert dock.study.folder == tmp_path / "trial"
    assert Study.open(tmp_path / "trial").slides() == []
