"""napari's tools on an editable mask: strokes land where the mouse was, count in full, and can be undone."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager

from napari_histodistill.viewer.editing import EditableMask, window_of
from napari_histodistill.viewer.geometry import Frame
from napari_histodistill.viewer.layers import PSEUDO_MASK_VALUES, add_layer, pseudo_mask_layer
from napari_histodistill.viewer.painting import FILL_SIDE, Painting

FRAME = Frame((2201, 3007), (0.5, 0.5))
EVERYWHERE = window_of(0, 0, 550, 752)


def editable(shape=(550, 752), value=2):
    mask = EditableMask(np.full(shape, value, np.uint8))
    layer = Labels(mask.data, scale=(2, 2))
    layer.painting = Painting(layer, mask, PSEUDO_MASK_VALUES)
    return layer, mask


@pytest.fixture
def painted(window, slide):
    mask = EditableMask(np.full((550, 752), 2, np.uint8))
    layer = add_layer(window.viewer, pseudo_mask_layer(slide, FRAME, mask.data))
    Painting(layer, mask, PSEUDO_MASK_VALUES)
    window.viewer.layers.selection.active = layer
    layer.mode, layer.selected_label, layer.brush_size = "paint", 1, 9
    return layer, mask


@pytest.mark.viewer
def test_a_stroke_lands_where_the_mouse_went_and_counts_as_correction(window, painted):
    layer, mask = painted
    window.look((500.0, 700.0), 1.0)
    window.drag((450.0, 600.0), (450.0, 700.0), (450.0, 800.0))
    rows, columns = np.nonzero(mask.data == 1)
    to_pixel = [(450 - layer.translate[0]) / layer.scale[0], (600 - layer.translate[1]) / layer.scale[1]]
    assert abs((rows.min() + rows.max()) / 2 - to_pixel[0]) <= 1
    assert abs(columns.min() + 4 - to_pixel[1]) <= 1.5
    assert rows.max() - rows.min() + 1 == 9
    np.testing.assert_array_equal(mask.hand == 2, mask.data == 1)
    canvas = window.viewer.screenshot(canvas_only=True, flash=False)
    x, y = window.canvas_position((450.0, 700.0))
    assert canvas[y, x, 1] > canvas[y, x, 0] + 20  # green, where the mouse was


@pytest.mark.viewer
def test_undo_by_keyboard_shows_what_is_computed_now(window, painted):
    layer, mask = painted
    window.look((500.0, 700.0), 1.0)
    window.drag((450.0, 600.0), (450.0, 700.0))
    before = int(np.count_nonzero(mask.data == 1))
    mask.set_computed(EVERYWHERE, np.full((550, 752), 3, np.uint8))
    assert np.count_nonzero(mask.data == 1) == before
    window.viewer.window._qt_viewer.canvas.native.setFocus()
    layer.undo()
    assert (mask.data == 3).all()
    layer.redo()
    assert np.count_nonzero(mask.data == 1) == before


@pytest.mark.viewer
def test_a_click_on_what_is_there_confirms_it(window, painted):
    layer, mask = painted
    layer.selected_label = 2
    window.look((500.0, 700.0), 1.0)
    window.drag((450.0, 600.0), (450.0, 620.0))
    assert np.count_nonzero(mask.hand) > 60
    mask.set_computed(EVERYWHERE, np.ones((550, 752), np.uint8))
    assert np.count_nonzero(mask.data == 2) == np.count_nonzero(mask.hand)


@pytest.mark.viewer
def test_an_outline_from_a_right_click_is_filled_and_undone_as_one_stroke(window, painted):
    layer, mask = painted
    layer.brush_size = 3
    window.look((500.0, 700.0), 1.0)
    corners = [(400, 600), (400, 700), (400, 800), (600, 800), (600, 700), (600, 600), (500, 600), (430, 600)]
    window.drag((400.0, 600.0), button="RightButton")
    window.hover(*[(float(y), float(x)) for y, x in [*corners, (402, 600)]])
    filled = np.count_nonzero(mask.data == 1)
    assert filled > 0.9 * 100 * 100
    assert np.count_nonzero(mask.hand) == filled
    layer.undo()
    assert not mask.has_edits


def test_painting_by_a_script_is_a_correction():
    layer, mask = editable()
    layer.paint((100, 100), 1)
    layer.data_setitem((np.array([5, 6]), np.array([7, 8])), 3)
    assert mask.hand[100, 100] == 2
    assert mask.hand[6, 8] == 4


def test_painting_part_tumour_part_normal_keeps_the_whole_stroke():
    layer, mask = editable()
    half = np.ones((550, 376), np.uint8)
    mask.set_computed(window_of(0, 0, 550, 376), half)
    layer.brush_size = 21
    layer.paint((100, 376), 1)
    stroke = mask.hand == 2
    assert np.count_nonzero(stroke) > 300
    mask.set_computed(EVERYWHERE, np.full((550, 752), 2, np.uint8))
    np.testing.assert_array_equal(mask.data == 1, stroke)


def test_the_eraser_takes_tissue_away_and_polygons_count_in_full():
    layer, mask = editable()
    layer.mode = "erase"
    layer.paint((50, 50), 0)
    assert mask.hand[50, 50] == 1
    layer.paint_polygon([[200, 200], [200, 300], [300, 300], [300, 200]], 2)
    assert (mask.hand[201:300, 201:300] == 3).all()


def test_edits_in_place_and_assigned_data_become_corrections():
    layer, mask = editable()
    layer.data[10:20, 10:20] = 1
    layer.refresh()
    assert np.count_nonzero(mask.hand) == 100
    other = layer.data.copy()
    other[30:40, 30:40] = 3
    layer.data = other
    assert layer.data is mask.data
    assert np.count_nonzero(mask.hand) == 200


def test_a_value_that_means_nothing_is_refused_with_the_ones_that_do():
    layer, mask = editable()
    layer.paint((100, 100), 7)
    assert (mask.data == 2).all()
    assert "1 tumour" in notification_manager.records[-1].message


def test_fill_fills_a_closed_area_and_can_be_undone():
    layer, mask = editable()
    mask.data[100:200, 100:200] = 1
    mask.sync()
    layer.fill((150, 150), 3)
    mask.commit()
    assert (mask.hand[100:200, 100:200] == 4).all()
    layer.undo()
    assert (mask.data[100:200, 100:200] == 1).all()


def test_fill_of_an_area_past_its_bound_is_refused_and_changes_nothing():
    layer, mask = editable((FILL_SIDE + 900, FILL_SIDE + 500))
    layer.fill((1500, 1200), 1)
    assert (mask.data == 2).all()
    assert "Fill works on closed areas up to" in notification_manager.records[-1].message


def test_preserve_labels_leaves_what_is_there():
    layer, mask = editable()
    mask.set_computed(window_of(0, 0, 550, 376), np.zeros((550, 376), np.uint8))
    layer.preserve_labels = True
    layer.brush_size = 21
    layer.paint((100, 376), 1)
    assert (mask.data[:, 376:] == 2).all()
    assert (mask.hand[:, 376:] == 0).all()
    assert np.count_nonzero(mask.data == 1) > 100
