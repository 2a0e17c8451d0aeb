"""The measures against scikit-learn and scipy, and their rules for empty masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist, directed_hausdorff
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, confusion_matrix, f1_score, jaccard_score

from napari_histodistill.metrics import (
    BINS,
    MASK_MEASURES,
    MEASURES,
    ImageScore,
    bootstrap,
    calibrate,
    hausdorff,
    reliability,
    score_image,
    summarise,
)


@pytest.fixture
def masks() -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Predicted and true masks of three positive and two negative images of different sizes, with labels."""
    rng = np.random.default_rng(1)
    cases = []
    for i, size in enumerate([(20, 30), (40, 25), (16, 16), (30, 30), (22, 18)]):
        label = int(i < 3)
        truth = np.zeros(size, bool)
        if label:
            truth[3:12, 4:14] = True
        cases.append((truth ^ (rng.random(size) < 0.2), truth, label))
    return cases


@pytest.fixture
def scores(masks) -> list[ImageScore]:
    return [score_image(p, t, label, f"p{i // 2}", (1.0, 1.0)) for i, (p, t, label) in enumerate(masks)]


@pytest.fixture
def probabilities(masks) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Probability, truth and label of the same images; the probabilities are too sure of themselves, some 0 and 1."""
    rng = np.random.default_rng(4)
    return [
        (np.clip(0.7 * p + rng.normal(0.15, 0.2, p.shape), 0, 1).astype(np.float32), t, label) for p, t, label in masks
    ]


def score_all(probabilities, patients="aabbc") -> list[ImageScore]:
    return [
        score_image(p >= 0.5, t, label, patient, probability=p)
        for (p, t, label), patient in zip(probabilities, patients, strict=True)
    ]


def flat(mask: np.ndarray) -> np.ndarray:
    return mask.ravel().astype(int)


def test_f1_is_the_mean_of_each_kind_of_images_own_class(masks, scores):
    result = summarise(scores)
    positive = [f1_score(flat(t), flat(p)) for p, t, label in masks if label]
    negative = [f1_score(flat(t), flat(p), pos_label=0) for p, t, label in masks if not label]
    assert result["f1_positive"] == pytest.approx(np.mean(positive))
    assert result["f1_negative"] == pytest.approx(np.mean(negative))


def test_pooled_measures_count_the_pixels_of_all_images_together(masks, scores):
    result = summarise(scores)
    truth = np.concatenate([flat(t) for _, t, _ in masks])
    predicted = np.concatenate([flat(p) for p, _, _ in masks])
    assert result["dice_pooled"] == pytest.approx(f1_score(truth, predicted))
    assert result["miou"] == pytest.approx(np.mean(jaccard_score(truth, predicted, average=None)))


def test_miou_image_takes_each_images_own_class(masks, scores):
    expected = [jaccard_score(flat(t), flat(p), pos_label=label) for p, t, label in masks]
    assert summarise(scores)["miou_image"] == pytest.approx(np.mean(expected))


def test_hausdorff_equals_brute_force_between_outlines(masks):
    pixel = (0.5, 0.8)
    for predicted, truth, label in masks:
        if not label:
            continue
        points = [np.argwhere(mask & ~_inside(mask)) * pixel for mask in (predicted, truth)]
        distance = cdist(*points)
        there, back = distance.min(1), distance.min(0)
        hd95, hd_max = hausdorff(predicted, truth, pixel)
        assert hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
        assert hd_max == pytest.approx(max(there.max(), back.max()))


def test_hausdorff_of_one_empty_mask_is_the_diagonal_and_of_two_is_zero():
    empty, some = np.zeros((30, 40), bool), np.eye(30, 40, dtype=bool)
    assert hausdorff(empty, some, (2.0, 2.0)) == (100.0, 100.0)
    assert hausdorff(some, empty, (2.0, 2.0)) == (100.0, 100.0)
    assert hausdorff(empty, empty, (2.0, 2.0)) == (0.0, 0.0)


def test_a_perfect_prediction_scores_one_and_distance_zero(masks):
    result = summarise([score_image(t, t, label, "a") for _, t, label in masks])
    assert [result[name] for name in MASK_MEASURES] == [1, 1, 1, 1, 1, 0, 0]


def test_calling_nothing_tumour_costs_all_of_f1_positive_and_none_of_f1_negative(masks):
    result = summarise([score_image(np.zeros_like(t), t, label, "a") for _, t, label in masks])
    assert result["f1_positive"] == 0
    assert result["f1_negative"] == 1
    assert result["dice_pooled"] == 0


def test_a_set_without_positive_images_has_no_positive_measures(masks):
    result = summarise([score_image(p, t, label, "a") for p, t, label in masks if not label])
    assert result["f1_positive"] is None
    assert result["hd95_um"] is None
    assert result["f1_negative"] is not None


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="shape"):
        score_image(np.zeros((2, 3), bool), np.zeros((3, 2), bool), 1, "a")


def test_pixels_by_outcome_are_the_confusion_matrix(masks, scores):
    for (predicted, truth, _), score in zip(masks, scores, strict=True):
        expected = confusion_matrix(flat(truth), flat(predicted), labels=[0, 1])
        np.testing.assert_array_equal([[score.tn, score.fp], [score.fn, score.tp]], expected)


def test_the_greatest_hausdorff_distance_is_that_of_scipy(masks):
    for predicted, truth, label in masks[:3]:
        assert label
        points = [np.argwhere(m & ~_inside(m)) for m in (predicted, truth)]
        expected = max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0])
        assert hausdorff(predicted, truth, (1.0, 1.0))[1] == pytest.approx(expected)


def _inside(mask: np.ndarray) -> np.ndarray:
    grown = np.pad(mask, 1)
    return grown[:-2, 1:-1] & grown[2:, 1:-1] & grown[1:-1, :-2] & grown[1:-1, 2:]


def test_calibration_is_that_of_scikit_learn_over_the_pixels_of_all_images(probabilities):
    p = np.concatenate([p.ravel() for p, _, _ in probabilities]).astype(float)
    t = np.concatenate([flat(t) for _, t, _ in probabilities])
    share, mean = calibration_curve(t, p, n_bins=BINS)
    scores = score_all(probabilities)
    bins = [entry for entry in reliability(scores) if entry["pixels"]]
    np.testing.assert_allclose([entry["tumour_fraction"] for entry in bins], share)
    np.testing.assert_allclose([entry["mean_probability"] for entry in bins], mean)
    weight = np.array([entry["pixels"] for entry in bins]) / p.size
    result = summarise(scores)
    assert result["calibration_error"] == pytest.approx(np.sum(weight * abs(share - mean)))
    assert result["brier"] == pytest.approx(brier_score_loss(t, p))


def test_images_of_one_after_the_other_calibrate_as_all_at_once(probabilities):
    probability, truth = (np.concatenate([case[i].ravel() for case in probabilities])[None] for i in (0, 1))
    at_once = summarise([score_image(probability >= 0.5, truth, 0, "a", probability=probability)])
    for name in ("calibration_error", "brier"):
        assert summarise(score_all(probabilities))[name] == pytest.approx(at_once[name])


def test_bins_hold_their_upper_edge_and_the_first_one_zero():
    probability = np.array([[0.0, 1 / BINS, np.nextafter(1 / BINS, 1), 0.5, 1.0]])
    pixels = calibrate(probability, np.zeros((1, 5), bool)).pixels
    assert (pixels[0], pixels[1], pixels[7], pixels[-1], pixels.sum()) == (2, 1, 1, 1, 5)


def test_sure_and_right_is_calibrated_sure_and_wrong_is_not():
    truth = np.eye(10, dtype=bool)
    right = summarise([score_image(truth, truth, 1, "a", probability=truth.astype(float))])
    wrong = summarise([score_image(~truth, truth, 1, "a", probability=(~truth).astype(float))])
    assert (right["calibration_error"], right["brier"]) == (0, 0)
    assert (wrong["calibration_error"], wrong["brier"]) == (1, 1)


def test_masks_alone_have_no_calibration(scores):
    result = summarise(scores)
    assert (result["calibration_error"], result["brier"]) == (None, None)
    assert all(entry["pixels"] == 0 and entry["tumour_fraction"] is None for entry in reliability(scores))


def test_a_map_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="shape"):
        calibrate(np.zeros((2, 3)), np.zeros((3, 2), bool))


def test_two_empty_masks_agree_and_one_does_not():
    empty, some = np.zeros((30, 40), bool), np.eye(30, 40, dtype=bool)
    both = summarise([score_image(empty, empty, 0, "a")])
    assert (both["f1_negative"], both["miou"], both["miou_image"], both["dice_pooled"]) == (1, 1, 1, 1)
    missed = summarise([score_image(empty, some, 1, "a")])
    assert (missed["f1_positive"], missed["miou_image"], missed["hd95_um"]) == (0, 0, 50)
    nothing_there = summarise([score_image(empty, empty, 1, "a")])
    assert (nothing_there["f1_positive"], nothing_there["hd_max_um"]) == (1, 0)


def test_every_interval_holds_its_value_and_is_that_of_drawing_patients_by_hand(probabilities):
    scores = score_all(probabilities)
    values, intervals = summarise(scores), bootstrap(scores, draws=200, seed=3)
    assert set(intervals) == set(MEASURES)
    drawn = np.random.default_rng(3).integers(3, size=(200, 3))
    by_hand = [summarise([s for i in draw for s in scores if s.patient == "abc"[i]]) for draw in drawn]
    for name in MEASURES:
        defined = [result[name] for result in by_hand if result[name] is not None]
        low, high = intervals[name]
        assert low <= values[name] <= high
        assert (low, high) == pytest.approx(tuple(np.percentile(defined, [2.5, 97.5])))


def test_intervals_grow_with_the_spread_between_patients(scores):
    low, high = bootstrap(scores)["dice_pooled"]
    assert low < summarise(scores)["dice_pooled"] < high
    same = [ImageScore(f"p{i}", 1, 80, 10, 10, 0, 0.0, 0.0) for i in range(8)]
    assert bootstrap(same)["dice_pooled"] == pytest.approx((160 / 180, 160 / 180))


def test_what_is_defined_in_no_draw_has_no_interval(scores):
    negative = [score for score in scores if not score.label]
    intervals = bootstrap(negative)
    assert intervals["f1_positive"] is None
    assert intervals["calibration_error"] is None
    assert intervals["f1_negative"] is not None
