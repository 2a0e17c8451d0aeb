"""What a random sample of patches says of a slide whose truth is known: figures by hand, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.survey import LEAST_DRAWS, Sample, dice_change, estimate


def sample(shares, stratum=None, sizes=(10.0,)):
    shares = np.array(shares, float)
    return Sample(np.zeros(len(shares), int) if stratum is None else np.array(stratum), shares, np.array(sizes))


def test_figures_of_a_sample_by_hand():
    """Stratum 0 of 30 mm²: 10% missed in the mean; stratum 1 of 10 mm²: 60% found, 20% too much."""
    shares = [[0, 0, 0.2], [0, 0, 0]] * 3 + [[0.6, 0.2, 0]] * 6
    found = estimate(sample(shares, [0] * 6 + [1] * 6, (30.0, 10.0)), predicted=8.0)
    assert found.dice == pytest.approx(2 * 6 / (2 * 6 + 2 + 3))
    assert found.area == pytest.approx(8 + 3 - 2)
    assert found.dice_95[0] < found.dice < found.dice_95[1]
    assert found.area_95[0] < found.area < found.area_95[1]


def test_a_patch_drawn_twice_counts_twice():
    twice = estimate(sample([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]), 4.0)
    assert twice.dice == pytest.approx(2 * 2 / (2 * 2 + 1))


def test_without_an_error_the_interval_does_not_say_that_there_is_none():
    found = estimate(sample([[1, 0, 0]] * 30), 10.0)
    assert found.dice == 1
    assert 0.9 < found.dice_95[0] < 0.99
    assert found.dice_95[1] == 1
    assert estimate(sample([[1, 0, 0]] * 6), 10.0).dice_95[0] < found.dice_95[0]


def test_areas_stay_between_nothing_and_all_tissue():
    found = estimate(sample([[0, 1, 0]] * 6), 9.5)
    assert found.area == 0
    assert 0 <= found.area_95[0] <= found.area_95[1] <= 10


def test_neither_tumour_nor_a_prediction_of_it_is_a_dice_of_one():
    found = estimate(sample([[0, 0, 0]] * 9), 0.0)
    assert (found.dice, found.area) == (1, 0)
    assert found.dice_95[0] < 0.5


def test_too_few_draws_of_a_stratum_say_nothing():
    few = sample([[1, 0, 0]] * (2 * LEAST_DRAWS - 1), [0] * LEAST_DRAWS + [1] * (LEAST_DRAWS - 1), (5.0, 5.0))
    assert estimate(few, 10.0) is None
    assert dice_change(few, few) is None
    without = sample([[1, 0, 0]] * LEAST_DRAWS, sizes=(5.0, 0.0))
    assert estimate(without, 5.0) is not None  # a stratum without tissue needs no draw


def test_a_change_is_told_apart_where_the_figures_themselves_overlap():
    rng = np.random.default_rng(1)
    tumour = rng.uniform(0.2, 1, 40)
    before = sample(np.stack([0.7 * tumour, 0 * tumour, 0.3 * tumour], 1))
    after = sample(np.stack([0.8 * tumour, 0 * tumour, 0.2 * tumour], 1))
    change, (low, high) = dice_change(before, after)
    assert low < change < high
    assert change == pytest.approx(0.8 / 0.9 - 0.7 / 0.85)
    assert low > 0
    with pytest.raises(ValueError, match="same draws"):
        dice_change(before, sample([[1, 0, 0]] * 40, [0, 1] * 20, (1.0, 1.0)))


ERRORS = {
    "good": ((0.1, 0.02), (1, 4)),
    "moderate": ((0.6, 0.15), (1, 3)),
    "bad": ((0.9, 0.4), (1, 1)),
    "rare but large": ((0.02, 0.02), (2, 2)),
}
"""Of a prediction: the share of patches with an error, with and without predicted tumour, and Beta of its extent."""


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("draws", [8, 24])
def test_nominal_intervals_of_95_hold_the_truth_in_nine_of_ten_samples(kind, draws):
    """A slide of 6,000 patches whose truth is known, audited again and again as the audit draws."""
    rng = np.random.default_rng(3)
    (wrong_in_tumour, wrong_elsewhere), extent = ERRORS[kind]
    predicted = np.where(rng.random(6000) < 0.25, rng.beta(2, 1, 6000), 0.0)
    stratum = (predicted > 0).astype(int)
    tissue = rng.uniform(0.2, 1, 6000)
    wrong = rng.random(6000) < np.where(stratum, wrong_in_tumour, wrong_elsewhere)
    error = np.where(wrong, rng.beta(*extent, 6000), 0.0)
    shares = np.stack([predicted * (1 - error), predicted * error, (1 - predicted) * error], 1)
    tp, fp, fn = tissue @ shares
    dice, area, total = 2 * tp / (2 * tp + fp + fn), tp + fn, float(tissue @ predicted)
    sizes = np.array([tissue[stratum == h].sum() for h in (0, 1)])
    held = np.zeros(2)
    for _ in range(150):
        chosen = np.concatenate(
            [rng.choice(np.flatnonzero(stratum == h), draws, p=tissue[stratum == h] / sizes[h]) for h in (0, 1)]
        )
        found = estimate(Sample(stratum[chosen], shares[chosen], sizes), total, seed=int(rng.integers(1 << 30)))
        held += [low <= truth <= high for truth, (low, high) in ((dice, found.dice_95), (area, found.area_95))]
    assert (held / 150 >= 0.9).all(), held / 150


def test_the_estimates_are_right_in_the_mean():
    rng = np.random.default_rng(5)
    shares = rng.dirichlet([4, 1, 1, 6], 2000)[:, :3]
    tissue = rng.uniform(0.05, 1, 2000)
    tp, fp, fn = tissue @ shares
    areas = []
    for _ in range(200):
        chosen = rng.choice(2000, 30, p=tissue / tissue.sum())
        areas.append(estimate(sample(shares[chosen], sizes=(tissue.sum(),)), tp + fp).area)
    assert np.mean(areas) == pytest.approx(tp + fn, rel=0.02)
