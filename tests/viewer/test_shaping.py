"""Growing, shrinking, filling and dropping give block by block what they give on the whole mask at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_histodistill.jobs import InlineControl
from napari_histodistill.study import NO_CORRECTION
from napari_histodistill.viewer import shaping
from napari_histodistill.viewer.shaping import Shaping, ShapingRequest, propose

SHAPE = (700, 900)
PIXEL = (2.0, 3.0)


@pytest.fixture
def mask() -> np.ndarray:
    """Blobs of tumour of all sizes in normal tissue, some of it ignored, with glass on the right."""
    rng = np.random.default_rng(3)
    field = ndimage.gaussian_filter(rng.normal(size=SHAPE), 4)
    mask = np.where(field > 0.02, 1, 2).astype(np.uint8)
    mask[ndimage.gaussian_filter(rng.normal(size=SHAPE), 9) > 0.05] = 3
    mask[:, 800:] = 0
    return mask


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(shaping, "SIDE", 256)


def proposed(kind, mask, amount=0.0, hand=None, window=None):
    """The mask after the proposal, and the proposal."""
    hand = np.zeros(SHAPE, np.uint8) if hand is None else hand
    window = window or (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
    request = ShapingRequest(kind, amount, mask, hand, mask, lambda w: mask[w] != 0, window, PIXEL)
    proposal = propose(request, InlineControl())
    after = hand - np.uint8(1)
    for patch in proposal.patches:
        changed, _, values = patch.unpack()
        after[patch.y : patch.y + patch.height, patch.x : patch.x + patch.width][changed] = values
    assert proposal.pixels == np.count_nonzero(after != hand - np.uint8(1))
    return np.where(after == NO_CORRECTION, mask, after), proposal


def test_growing_takes_normal_tissue_within_reach_and_nothing_else(mask):
    after, proposal = proposed(Shaping.GROW, mask, 20.0)
    near = ndimage.distance_transform_edt(mask != 1, sampling=PIXEL) <= 20
    np.testing.assert_array_equal(after, np.where(near & (mask == 2), 1, mask))
    assert proposal.area_mm2 == pytest.approx(np.count_nonzero(after != mask) * 6e-6)


def test_shrinking_leaves_what_is_deep_inside(mask):
    after, _ = proposed(Shaping.SHRINK, mask, 9.0)
    deep = ndimage.distance_transform_edt(mask == 1, sampling=PIXEL) > 9
    np.testing.assert_array_equal(after, np.where((mask == 1) & ~deep, 2, mask))


def sizes_of(regions, structure=None):
    labels, number = ndimage.label(regions, structure)
    return labels, ndimage.sum_labels(regions, labels, np.arange(number + 1))


def test_islands_up_to_an_area_are_dropped_across_blocks(mask):
    after, proposal = proposed(Shaping.DROP_ISLANDS, mask, 600.0)
    labels, size = sizes_of(mask == 1, np.ones((3, 3)))
    small = (size * 6 <= 600)[labels] & (mask == 1)
    np.testing.assert_array_equal(after, np.where(small, 2, mask))
    assert proposal.regions == len(np.unique(labels[small])) > 20


def test_holes_up_to_an_area_are_filled_but_not_bays_at_the_edge(mask):
    after, proposal = proposed(Shaping.FILL_HOLES, mask, 900.0)
    labels, size = sizes_of(mask != 1)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    small = (size * 6 <= 900)[labels] & (mask != 1) & ~np.isin(labels, edge)
    np.testing.assert_array_equal(after, np.where(small & (mask == 2), 1, mask))
    assert proposal.regions == len(np.unique(labels[small])) > 5


def test_a_long_thin_island_over_many_blocks_is_one(mask):
    line = np.full(SHAPE, 2, np.uint8)
    for index in range(600):
        line[50 + index, 50 + index] = 1
    after, proposal = proposed(Shaping.DROP_ISLANDS, line, 600 * 6)
    assert proposal.regions == 1
    assert (after == 2).all()
    after, proposal = proposed(Shaping.DROP_ISLANDS, line, 599 * 6)
    assert (proposal.regions, proposal.pixels) == (0, 0)


def test_what_was_set_by_hand_has_the_last_word(mask):
    clean = np.full(SHAPE, 2, np.uint8)
    clean[100:110, 100:110] = clean[300:310, 300:310] = 1
    hand = np.zeros(SHAPE, np.uint8)
    hand[105, 105] = 2
    after, proposal = proposed(Shaping.DROP_ISLANDS, clean, 1e6, hand)
    assert proposal.regions == 1
    assert (after[100:110, 100:110] == 1).all()
    hand[:, 310:] = 3
    after, _ = proposed(Shaping.GROW, clean, 30.0, hand)
    assert (after[:, 310:] == 2).all()
    assert (after[300:310, 290:310] == 1).all()


def test_in_a_window_only_what_lies_wholly_inside_is_judged(mask):
    window = slice(100, 400), slice(150, 500)
    clean = np.full(SHAPE, 2, np.uint8)
    clean[200:210, 200:210] = clean[200:210, 140:160] = clean[600:610, 600:610] = 1
    after, proposal = proposed(Shaping.DROP_ISLANDS, clean, 1e6, window=window)
    assert proposal.regions == 1
    assert np.count_nonzero(after == 1) == 300
    grown, _ = proposed(Shaping.GROW, clean, 30.0, window=window)
    outside = np.ones(SHAPE, bool)
    outside[window] = False
    np.testing.assert_array_equal(grown[outside], clean[outside])


def test_confirming_sets_what_is_computed_and_forgetting_takes_it_away(mask):
    hand = np.zeros(SHAPE, np.uint8)
    hand[:50] = 4
    after, proposal = proposed(Shaping.CONFIRM, mask, hand=hand)
    assert proposal.pixels == np.count_nonzero(mask[50:] != 0)
    assert (after[:50] == 3).all()
    _, proposal = proposed(Shaping.FORGET, mask, hand=hand)
    assert proposal.pixels == 50 * SHAPE[1]


def test_nothing_to_do_is_no_patch(mask):
    for kind in (Shaping.GROW, Shaping.SHRINK, Shaping.FILL_HOLES, Shaping.DROP_ISLANDS, Shaping.FORGET):
        _, proposal = proposed(kind, np.full(SHAPE, 2, np.uint8), 50.0)
        assert proposal.patches == ()
