"""The "Correct" dock in a real window, with the mouse and the keyboard."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_histodistill.viewer.correct import KEYS, Tool
from napari_histodistill.viewer.guide import NO_SLIDE
from napari_histodistill.viewer.layers import Role
from napari_histodistill.viewer.shaping import Shaping
from napari_histodistill.widgets.correct import CorrectWidget
from napari_histodistill.widgets.session import session_of

pytestmark = pytest.mark.viewer
PLUGIN = "napari-histodistill"
SIDE = 1536


@pytest.fixture
def made(pink_study):
    """Tumour in the right half of 384 px, with a hole and an island."""

    def paint(probability):
        assert probability.shape == (384, 384)
        probability[:, 192:] = 255
        probability[100:104, 300:304], probability[100:104, 100:104] = 0, 255

    return pink_study(SIDE, 2.0, paint)


@pytest.fixture
def dock(docked):
    return docked("Correct")[0]


@pytest.fixture
def view(window, dock, made, open_result):
    view = open_result(window, made)
    window.look((384.0, 384.0), 0.8)
    return view


def press(window, key, modifier=Qt.KeyboardModifier.NoModifier):
    canvas = window.viewer.window._qt_viewer.canvas.native
    QTest.keyClick(canvas, key, modifier)
    window.settle(0.1)


def test_without_a_slide_and_without_a_result_the_dock_says_why_and_the_teacher_leads_to_it(window, dock, made):
    assert dock.reason.message == NO_SLIDE
    assert not any(widget.isEnabled() for widget in dock._controls)
    window.viewer.open(made[0], plugin=PLUGIN)
    window.settle()
    assert "run the teacher first" in dock.reason.message
    assert not dock.apply.isEnabled()
    assert not dock.undo.isEnabled()
    session_of(window.viewer).current.teacher.choose_study(made[1])
    window.wait(lambda: not dock.reason.message)
    assert all(widget.isEnabled() for widget in dock._controls)
    teacher = window.viewer.window.add_plugin_dock_widget(PLUGIN, "Teacher")[1]
    window.settle(0.3)
    assert dock.visibleRegion().isEmpty()  # behind the Teacher's tab
    teacher.correct_button.click()
    window.settle(0.3)
    assert not dock.visibleRegion().isEmpty()


def test_the_dock_that_the_teacher_opens_is_the_one_that_the_menu_knows(window, made, open_result):
    open_result(window, made)
    teacher = window.viewer.window.add_plugin_dock_widget(PLUGIN, "Teacher")[1]
    window.settle()
    teacher.correct_button.click()
    window.settle()
    assert "Correct (HistoDistill)" in window.viewer.window.dock_widgets
    teacher.correct_button.click()
    assert len(window.viewer.window._qt_window.findChildren(CorrectWidget)) == 1


def test_brush_eraser_confirmation_and_undo_across_reopening(window, dock, view, made, open_result):
    mask = view.teacher.result.mask
    dock.values.button(1).click()
    assert dock.tools.checkedButton().text() == "Brush"
    window.drag((200.0, 100.0), (200.0, 200.0))
    assert mask.data[100, 75] == 1
    assert dock.undo.text().startswith("Undo: brush, tumour, ")

    painted = np.count_nonzero(mask.hand)
    dock.values.button(0).click()  # erase the left part
    window.drag((200.0, 90.0), (200.0, 130.0))
    assert 0 < np.count_nonzero(mask.hand) < painted
    assert mask.data[100, 55] == 2

    dock.values.button(1).click()  # confirm what the model says
    window.drag((500.0, 600.0), (500.0, 650.0))
    assert mask.hand[250, 310] == 2
    assert dock.undo.text().startswith("Undo: brush, tumour, ")
    hand = mask.hand.copy()
    window.wait(lambda: dock.saved.text() == "All corrections are saved.", seconds=2)

    window.viewer.layers.clear()
    window.settle(0.3)
    again = open_result(window, made)
    mask = again.teacher.result.mask
    np.testing.assert_array_equal(mask.hand, hand)
    assert dock.undo.text().startswith("Undo: brush, tumour, ")
    dock.undo.click()
    assert mask.hand[250, 310] == 0
    press(window, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.count_nonzero(mask.hand) == painted
    assert dock.redo.text().startswith("Redo: eraser, ")
    dock.undo.click()
    assert not mask.has_edits
    assert not dock.undo.isEnabled()
    press(window, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    assert np.count_nonzero(mask.hand) == painted


def test_a_lasso_with_the_left_button_sets_what_it_encloses(window, dock, view):
    mask = view.teacher.result.mask
    dock.values.button(3).click()
    dock.tools.buttons()[2].click()
    assert view.correct.tool is Tool.LASSO
    corners = [(200.0, 500.0), (200.0, 600.0), (300.0, 600.0), (300.0, 500.0), (205.0, 500.0)]
    window.drag(*corners)
    assert (mask.data[105:145, 255:295] == 3).all()
    assert np.count_nonzero(mask.hand) == pytest.approx(50 * 50, rel=0.1)
    assert dock.undo.text().startswith("Undo: lasso, ignore, ")
    assert view.layer(Role.PSEUDO_MASK)._overlays["polygon"].points == []
    dock.undo.click()
    assert not mask.has_edits


def test_a_polygon_of_napari_is_a_correction_in_one_step(window, dock, view):
    mask = view.teacher.result.mask
    view.correct.pick(Tool.POLYGON, 2)
    canvas = window.viewer.window._qt_viewer.canvas.native
    from qtpy.QtCore import QPoint

    for corner in [(200.0, 500.0), (200.0, 600.0), (300.0, 600.0)]:
        window.hover(corner)
        QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=QPoint(*window.canvas_position(corner)))
        window.settle(0.6)  # longer than a double-click
    press(window, Qt.Key.Key_Return)
    assert np.count_nonzero(mask.hand) > 1000
    assert dock.undo.text().startswith("Undo: polygon, normal, ")
    dock.undo.click()
    assert not mask.has_edits


def test_keys_choose_what_is_set_and_that_survives_closing_the_dock(window, dock, view):
    for key, value, tool in [
        (Qt.Key.Key_T, 1, Tool.BRUSH),
        (Qt.Key.Key_N, 2, Tool.BRUSH),
        (Qt.Key.Key_I, 3, Tool.BRUSH),
        (Qt.Key.Key_E, 0, Tool.BRUSH),
        (Qt.Key.Key_Q, 0, Tool.LASSO),
        (Qt.Key.Key_T, 1, Tool.LASSO),
        (Qt.Key.Key_W, 1, Tool.MOVE),
    ]:
        press(window, key)
        assert (view.correct.value, view.correct.tool) == (value, tool)
    window.viewer.layers.selection.active = view.layer(Role.SLIDE)
    press(window, Qt.Key.Key_I)
    assert (view.correct.value, view.correct.tool) == (3, Tool.BRUSH)
    press(window, Qt.Key.Key_U)
    assert dock.show_corrections.isChecked()
    dock.values.button(3).click()
    view.correct.set_brush(120)
    window.viewer.window.remove_dock_widget(dock)
    window.settle()
    again = window.viewer.window.add_plugin_dock_widget(PLUGIN, "Correct")[1]
    window.settle()
    assert again.values.checkedId() == 3
    assert again.brush.value == 120


def test_no_key_is_one_that_napari_gives_to_the_same_layers():
    from napari.utils.shortcuts import default_shortcuts

    taken = {
        str(binding)
        for name, bindings in default_shortcuts.items()
        if not any(
            word in name for word in ("shape", "point", "vector", "track", "surface", "vertex", "add_", "direct")
        )
        for binding in bindings
        if not any(word in name for word in ("select_mode", "all_in_slice"))
    }
    ours = {key.replace("Control", "Ctrl").replace("-", "+") for key in KEYS}
    assert ours & taken == {"E"}  # which erases in either


def test_holes_and_islands_are_previewed_counted_and_applied_on_a_small_laptop_too(window, dock, view):
    mask = view.teacher.result.mask
    dock.scope.setCurrentIndex(1)
    dock.scope.activated.emit(1)
    dock.amounts[Shaping.FILL_HOLES].setValue(100)
    dock.shapings[Shaping.FILL_HOLES].click()
    window.wait(lambda: view.correct.proposal is not None)
    assert dock.preview.text() == "Preview: 1 hole, 64 µm² in all, would become tumour."
    assert dock.apply.isEnabled()
    assert not mask.has_edits
    dock.apply.click()
    window.wait(lambda: mask.data[101, 301] == 1)
    assert np.count_nonzero(mask.hand) == 16
    assert dock.undo.text().startswith("Undo: fill holes, tumour, ")
    dock.amounts[Shaping.DROP_ISLANDS].setValue(50)
    dock.shapings[Shaping.DROP_ISLANDS].click()
    window.wait(lambda: view.correct.proposal is not None)
    assert dock.preview.text() == "Drop islands: there is nothing to change here."
    assert not dock.apply.isEnabled()
    main = window.viewer.window._qt_window
    main.resize(1366, 768)
    window.settle(0.3)
    assert main.width() <= 1366
    assert main.height() <= 768
    right = max(w.mapTo(dock.body, w.rect().topRight()).x() for w in dock._controls if w.isVisible())
    assert right <= dock.viewport().width()


def test_the_brush_leaves_no_black_square_on_the_slide(window, dock, view):
    """napari 0.9 draws a background under the brush's circle once the canvas changes; the mouse is at its middle."""
    dock.values.button(1).click()
    window.drag((300.0, 300.0), (300.0, 400.0))
    for theme in ("light", "dark"):
        window.viewer.theme = theme
        window.settle(0.3)
    picture = window.viewer.screenshot(canvas_only=True, flash=False)[..., :3]
    x, y = window.canvas_position((300.0, 400.0))
    assert picture[y - 3 : y + 4, x - 3 : x + 4].min() > 40
