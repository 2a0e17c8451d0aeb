"""A computed mask keeps what a person set, and undo gives back what is computed now."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.study import Patch
from napari_histodistill.viewer.editing import EditableMask, bounding_window, clip_window, window_of

BOX = window_of(10, 20, 30, 40)
FULL = np.ones((30, 40), bool)


@pytest.fixture
def mask() -> EditableMask:
    return EditableMask(np.full((600, 700), 2, np.uint8))


def paint(mask: EditableMask, window, value: int) -> None:
    """What a brush does: write the data, then note the footprint and end the stroke."""
    mask.data[window] = value
    mask.record(window, np.ones(mask.data[window].shape, bool), value)
    mask.commit()


def test_corrections_survive_a_new_computed_mask(mask):
    paint(mask, BOX, 1)
    mask.set_computed(window_of(0, 0, 600, 700), np.full((600, 700), 3, np.uint8))
    assert (mask.data[BOX] == 1).all()
    assert np.count_nonzero(mask.data == 3) == mask.data.size - 30 * 40


def test_painting_what_was_there_confirms_it(mask):
    paint(mask, BOX, 2)
    mask.set_computed(window_of(0, 0, 600, 700), np.ones((600, 700), np.uint8))
    assert (mask.data[BOX] == 2).all()


def test_undo_after_a_new_computed_mask_shows_what_is_computed_now(mask):
    paint(mask, BOX, 1)
    mask.set_computed(window_of(0, 0, 600, 700), np.full((600, 700), 3, np.uint8))
    mask.undo()
    assert (mask.data == 3).all()
    assert not mask.has_edits


def test_redo_brings_the_stroke_back(mask):
    paint(mask, BOX, 1)
    mask.undo()
    assert mask.redo() is not None
    assert (mask.data[BOX] == 1).all()
    assert np.count_nonzero(mask.hand) == 30 * 40


def test_undo_steps_back_stroke_by_stroke_where_strokes_overlap(mask):
    paint(mask, window_of(0, 0, 300, 300), 1)
    paint(mask, window_of(100, 100, 300, 300), 3)
    mask.undo()
    assert (mask.data[0:300, 0:300] == 1).all()
    assert (mask.data[300:400, 300:400] == 2).all()
    mask.undo()
    assert (mask.data == 2).all()
    assert mask.undo() is None


def test_a_new_stroke_after_undo_ends_the_redo(mask):
    paint(mask, BOX, 1)
    mask.undo()
    paint(mask, BOX, 3)
    assert mask.redo() is None


def test_data_written_behind_our_back_becomes_a_correction(mask):
    mask.data[BOX] = 1
    assert mask.sync() == BOX
    mask.set_computed(window_of(0, 0, 600, 700), np.full((600, 700), 3, np.uint8))
    assert (mask.data[BOX] == 1).all()
    mask.undo()
    assert (mask.data == 3).all()


def test_pixels_put_back_to_what_is_computed_are_no_correction(mask):
    paint(mask, BOX, 1)
    mask.data[BOX] = 2
    mask.sync()
    assert not mask.has_edits


def test_unknown_values_are_put_back(mask):
    mask.data[BOX] = 77
    mask.sync()
    assert (mask.data == 2).all()


def test_only_pixels_that_show_the_value_are_recorded(mask):
    mask.data[10:15, 20:60] = 1
    mask.record(BOX, FULL, 1)
    assert np.count_nonzero(mask.hand) == 5 * 40


def test_a_footprint_that_reaches_over_the_edge_is_cut_in_place(mask):
    footprint = np.zeros((20, 20), bool)
    footprint[12, 15] = True
    mask.data[2, 5] = 1
    mask.record(window_of(-10, -10, 20, 20), footprint, 1)
    assert mask.hand[2, 5] == 2
    assert np.count_nonzero(mask.hand) == 1


def test_prepared_changes_are_one_step_and_take_along_what_is_painted_meanwhile(mask):
    paint(mask, window_of(0, 0, 600, 700), 1)
    none, tumour = np.full((100, 100), 255, np.uint8), np.full((100, 100), 1, np.uint8)
    patches = [Patch.between(y, 0, tumour, none) for y in (0, 256)]
    applying = mask.applying(patches, "forget", 255)
    assert next(applying) == window_of(0, 0, 100, 100)
    paint(mask, window_of(0, 300, 10, 10), 3)
    assert mask.undo() is None
    assert list(applying) == [window_of(256, 0, 100, 100)]
    assert (mask.data[:100, :100] == 2).all()
    assert np.count_nonzero(mask.data == 1) == 600 * 700 - 2 * 100 * 100 - 100
    assert [step.tool for step in mask.undo_steps] == ["brush", "forget"]
    mask.undo()
    assert (mask.data == 1).all()


def test_prepared_changes_to_what_has_changed_since_can_be_undone_all_the_same(mask):
    paint(mask, window_of(0, 0, 50, 100), 3)
    none, tumour = np.full((100, 100), 255, np.uint8), np.full((100, 100), 1, np.uint8)
    list(mask.applying([Patch.between(0, 0, none, tumour)], "grow", 1))
    assert (mask.data[:100, :100] == 1).all()
    mask.undo()
    assert (mask.data[:50, :100] == 3).all()
    assert (mask.data[50:, :] == 2).all()


def test_zero_takes_a_correction_away_where_it_is_an_eraser():
    mask = EditableMask(np.full((600, 700), 2, np.uint8), zero_erases=True)
    paint(mask, BOX, 1)
    paint(mask, window_of(10, 20, 10, 40), 0)
    assert (mask.data[10:20, 20:60] == 2).all()
    assert np.count_nonzero(mask.hand) == 20 * 40
    mask.undo()
    assert (mask.data[BOX] == 1).all()


def test_what_is_not_allowed_is_put_back_and_reported(mask):
    refusals = []
    mask.refused.connect(lambda: refusals.append(1))
    mask.allowed = lambda window: np.arange(window[1].start, window[1].stop)[None] >= 30
    paint(mask, BOX, 1)
    assert np.count_nonzero(mask.hand) == 30 * 30
    assert (mask.data[:, :30] == 2).all()
    mask.paint(BOX, FULL, 3, "polygon")
    mask.commit()
    assert (mask.data[10:40, 30:60] == 3).all()
    assert (mask.data[:, :30] == 2).all()
    assert len(refusals) == 2
    paint(mask, window_of(0, 0, 5, 5), 1)
    assert len(mask.undo_steps) == 2


def test_steps_say_what_they_were_made_with(mask):
    steps = []
    mask.stepped.connect(steps.append)
    mask.context = "run 0001"
    paint(mask, BOX, 1)
    mask.paint(BOX, FULL, 3, "polygon")
    mask.commit()
    mask.undo()
    assert [(s.kind, s.tool, s.value, s.context) for s in steps] == [
        ("set", "brush", 1, "run 0001"),
        ("set", "polygon", 3, "run 0001"),
        ("undo", "polygon", 3, "run 0001"),
    ]
    assert steps[2].refers == steps[1].identity


def test_undo_goes_on_in_a_later_session(mask):
    paint(mask, window_of(0, 0, 300, 300), 1)
    paint(mask, window_of(100, 100, 300, 300), 3)
    paint(mask, window_of(0, 0, 50, 50), 3)
    mask.undo()
    again = EditableMask(mask.computed, mask.hand.copy(), undo=mask.undo_steps, redo=mask.redo_steps)
    again.redo()
    assert (again.data[:50, :50] == 3).all()
    while again.undo() is not None:
        pass
    assert (again.data == 2).all()


def test_corrections_of_an_earlier_session_are_laid_over(mask):
    hand = np.zeros((600, 700), np.uint8)
    hand[BOX] = 1 + 3
    again = EditableMask(np.ones((600, 700), np.uint8), hand)
    assert (again.data[BOX] == 3).all()
    assert np.count_nonzero(again.data == 1) == again.data.size - 30 * 40


def test_signals_tell_hand_edits_from_computed_ones(mask):
    edited, computed = [], []
    mask.edited.connect(edited.append)
    mask.computed_changed.connect(computed.append)
    paint(mask, BOX, 1)
    mask.set_computed(BOX, FULL.astype(np.uint8))
    assert (edited, computed) == ([BOX], [BOX])


def test_random_edits_and_new_masks_keep_data_equal_to_hand_over_computed(mask):
    rng = np.random.default_rng(0)
    for _ in range(60):
        y, x = rng.integers(0, 500, 2)
        window = clip_window(window_of(y, x, *rng.integers(1, 300, 2)), mask.shape)
        match rng.integers(5):
            case 0 | 1:
                paint(mask, window, int(rng.integers(4)))
            case 2:
                mask.set_computed(window, rng.integers(0, 4, mask.data[window].shape).astype(np.uint8))
            case 3:
                mask.undo()
            case 4:
                mask.redo()
        expected = np.where(mask.hand > 0, mask.hand - np.uint8(1), mask.computed)
        np.testing.assert_array_equal(mask.data, expected)
    while mask.undo() is not None:
        pass
    np.testing.assert_array_equal(mask.data, mask.computed)


def test_bounding_window_of_nothing_is_none():
    assert bounding_window(np.zeros((3, 4), bool)) is None
