"""Corrections as evidence: a model is judged by the mask that it would make."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_histodistill.distill.selection import CorrectedSquare, CorrectionEvidence
from napari_histodistill.nets import read_card
from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.predict.mask import mask_from_probability
from napari_histodistill.slide.labels import NORMAL, TUMOUR
from napari_histodistill.study import NO_CORRECTION

SIDE, PIXEL = 200, (3.0, 3.0)
TUMOUR_HERE, NORMAL_HERE = (slice(20, 100), slice(20, 100)), (slice(120, 180), slice(120, 180))
SPOT = slice(148, 152), slice(148, 152)


def square(probability: np.ndarray) -> CorrectedSquare:
    """Tissue of which a person set two parts, as an image that says what `Echo` answers."""
    truth = np.full((SIDE, SIDE), NO_CORRECTION, np.uint8)
    truth[TUMOUR_HERE], truth[NORMAL_HERE] = TUMOUR, NORMAL
    image = probability.repeat(2, 0).repeat(2, 1)[..., None].repeat(3, -1)
    return CorrectedSquare(image, truth, np.ones_like(truth), 2, PIXEL)


def echo(**settings: float) -> SimpleNamespace:
    """A model that finds in an image the probability that was drawn there."""
    plain = {"threshold": 0.5, "smoothing_um": 0.0, "support": 0.0}
    card = replace(read_card("bundled"), **plain | settings)
    return SimpleNamespace(card=card, predict=lambda images: images[..., 0] / np.float32(255))


@pytest.fixture
def right() -> np.ndarray:
    found = np.zeros((SIDE, SIDE), np.uint8)
    found[TUMOUR_HERE] = 255
    return found


def test_a_model_that_agrees_scores_one_and_one_that_says_one_thing_half(right):
    assert CorrectionEvidence((square(right),)).score(echo()) == 1.0
    assert CorrectionEvidence((square(np.full_like(right, 255)),)).score(echo()) == 0.5


@pytest.mark.parametrize("settings", [{"support": 0.55}, {"smoothing_um": 20.0}])
def test_a_model_is_judged_by_the_mask_that_it_makes(right, settings):
    """A lone spot in normal tissue is in no mask with these settings, though above the threshold."""
    right[SPOT] = 255
    evidence, model = CorrectionEvidence((square(right),)), echo(**settings)
    made = mask_from_probability(right, np.ones_like(right), MaskSettings(0.5, **settings), PIXEL)
    assert not (made[SPOT] == TUMOUR).any()
    expected = np.mean([np.mean(made[TUMOUR_HERE] == TUMOUR), np.mean(made[NORMAL_HERE] == NORMAL)])
    assert evidence.score(model) == pytest.approx(expected)
    assert evidence.score(echo()) == pytest.approx((1 + 1 - 16 / 60**2) / 2)


def test_corrections_outside_tissue_count_for_nobody(right):
    """There masks say nothing, whatever the model."""
    tissue = np.ones_like(right)
    tissue[:100, :60] = 0
    half = replace(square(right), tissue=tissue)
    assert half.count(TUMOUR) == 80 * 40
    assert CorrectionEvidence((half,)).score(echo()) == 1.0


def test_corrections_of_one_class_tell_nothing(right):
    one = square(right)
    one.truth[NORMAL_HERE] = NO_CORRECTION
    assert CorrectionEvidence((one,)).score(echo()) is None
