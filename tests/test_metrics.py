"""The measures against scikit-learn and scipy, and their rules for empty masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import f1_score, jaccard_score

from napari_histodistill.metrics import MEASURES, ImageScore, bootstrap_dice, hausdorff, score_image, summarise


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
        points = []
        for mask in (predicted, truth):
            grown = np.pad(mask, 1)
            inside = grown[:-2, 1:-1] & grown[2:, 1:-1] & grown[1:-1, :-2] & grown[1:-1, 2:]
            points.append(np.argwhere(mask & ~inside) * pixel)
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
    assert [result[name] for name in MEASURES] == [1, 1, 1, 1, 1, 0, 0]


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


def test_the_bootstrap_interval_holds_the_value_and_grows_with_the_spread_between_patients(scores):
    value = summarise(scores)["dice_pooled"]
    low, high = bootstrap_dice(scores)
    assert low < value < high
    same = [ImageScore(f"p{i}", 1, 80, 10, 10, 0, 0.0, 0.0) for i in range(8)]
    assert bootstrap_dice(same) == pytest.approx((160 / 180, 160 / 180))
