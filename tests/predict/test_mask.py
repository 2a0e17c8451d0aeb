"""Masks from probabilities: thresholds, smoothing within tissue, equal results in any window; and their figures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_histodistill.nets.masking import SUPPORT_UM, MaskSettings
from napari_histodistill.predict import mask_blocks, mask_from_probability, mask_region, summarise
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR

ONES = np.ones((4, 4), np.uint8)


@pytest.fixture(scope="module")
def scene():
    """Smooth random probabilities on tissue with holes and artefacts, larger than a piece."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.random((900, 1100)), 9)
    probability = np.rint(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    tissue = (ndimage.gaussian_filter(rng.random((900, 1100)), 25) > 0.5).astype(np.uint8)
    tissue[100:200, 500:600] = IGNORE
    return probability, tissue


def test_each_value_is_where_it_belongs():
    probability = np.array([[0, 127, 128, 255]], np.uint8).repeat(4, 0)
    tissue = np.array([[1] * 4, [0] * 4, [3] * 4, [1] * 4], np.uint8)
    mask = mask_from_probability(probability, tissue, MaskSettings(0.5))
    assert mask.dtype == np.uint8
    assert mask[0].tolist() == [NORMAL, NORMAL, TUMOUR, TUMOUR]
    assert set(mask[1]) == {OUTSIDE}
    assert set(mask[2]) == {IGNORE}


@pytest.mark.parametrize("smoothing", [0, 5])
@pytest.mark.parametrize(("value", "expected"), [(101, NORMAL), (102, TUMOUR)])
def test_the_threshold_itself_counts_as_tumour(smoothing, value, expected):
    probability = np.full((40, 40), value, np.uint8)
    probability[0, 0] = 255 - value  # so that smoothing has something to do
    mask = mask_from_probability(probability, np.ones_like(probability), MaskSettings(102 / 255, smoothing), (1, 1))
    assert mask[35, 35] == expected


def slow_mask(probability, tissue, threshold, sigma):
    """Normalised convolution as it is written in books."""
    inside = (tissue == 1).astype(float)
    options = {"mode": "constant", "truncate": 3.0}
    weight = ndimage.gaussian_filter(inside, sigma, **options)
    mean = ndimage.gaussian_filter(inside * probability, sigma, **options) / np.maximum(weight, 1e-9)
    return np.where(tissue == 3, 3, np.where(tissue == 0, 0, np.where(mean >= 255 * threshold, 1, 2)))


def test_smoothing_is_a_gaussian_mean_over_tissue_in_um(scene):
    probability, tissue = scene
    mask = mask_from_probability(probability, tissue, MaskSettings(0.5, 12.0), (2.0, 3.0))
    assert (mask != slow_mask(probability, tissue, 0.5, (6, 4))).mean() < 1e-4


def test_neither_glass_nor_artefacts_pull_a_probability_down():
    probability = np.zeros((60, 60), np.uint8)
    tissue = np.zeros((60, 60), np.uint8)
    probability[20:40, 20:40], tissue[20:40, 20:40] = 140, 1
    tissue[20:40, 40:50] = IGNORE
    probability[30, 30] = 0
    mask = mask_from_probability(probability, tissue, MaskSettings(0.5, 6), (1, 1))
    assert (mask[20:40, 20:40] == TUMOUR).mean() > 0.98


@pytest.mark.parametrize(("smoothing", "support"), [(0.0, 0.0), (3.3, 0.0), (40.0, 0.0), (0.0, 0.47), (3.3, 0.48)])
def test_windows_of_any_size_equal_the_whole(scene, smoothing, support):
    probability, tissue = scene
    settings, size = MaskSettings(0.47, smoothing, support), (2.0, 3.1)
    whole = mask_from_probability(probability, tissue, settings, size)
    assert {OUTSIDE, TUMOUR, NORMAL, IGNORE} == set(np.unique(whole))
    rng = np.random.default_rng(1)
    for _ in range(8):
        y, x = rng.integers(0, 890), rng.integers(0, 1090)
        h, w = rng.integers(1, 901 - y), rng.integers(1, 1101 - x)
        window = mask_region(probability, tissue, y, x, h, w, settings, size)
        assert np.array_equal(window, whole[y : y + h, x : x + w])
    for y, x, block in mask_blocks(probability, tissue, settings, size, side=300):
        assert np.array_equal(block, whole[y : y + 300, x : x + 300])


def slow_support(probability, tissue, size):
    """The generalised mean of the tissue around every pixel, weighted by a Gaussian."""
    inside = (tissue == 1).astype(float)
    sigma, options = [SUPPORT_UM / s for s in size], {"mode": "constant", "truncate": 3.0}
    weight = ndimage.gaussian_filter(inside, sigma, **options)
    fourth = ndimage.gaussian_filter(inside * (probability / 255) ** 4, sigma, **options)
    return (fourth / np.maximum(weight, 1e-9)) ** 0.25


def test_tumour_needs_the_support_of_its_surroundings(scene):
    probability, tissue = scene
    size, score = (4.0, 5.0), 0.5
    plain = mask_from_probability(probability, tissue, MaskSettings(0.5), size)
    mask = mask_from_probability(probability, tissue, MaskSettings(0.5, 0, score), size)
    around = slow_support(probability, tissue, size)
    tumour = plain == TUMOUR
    assert ((mask == TUMOUR) & ~tumour).sum() == 0
    assert (mask[tumour & (around > score + 0.005)] == TUMOUR).all()
    assert (mask[tumour & (around < score - 0.005)] == NORMAL).all()
    assert (mask[~tumour] == plain[~tumour]).all()


def test_a_lone_spot_has_no_support_but_a_small_piece_of_tumour_on_glass_has():
    probability = np.full((400, 400), 12, np.uint8)
    probability[190:210, 190:210] = 250  # 40 um in tissue that looks normal
    settings = MaskSettings(0.5, 0, 0.5)
    alone = mask_from_probability(probability, np.ones_like(probability), settings, (2.0, 2.0))
    assert set(alone[190:210, 190:210].ravel()) == {NORMAL}
    piece = np.zeros_like(probability)
    piece[190:210, 190:210] = 1
    on_glass = mask_from_probability(probability, piece, settings, (2.0, 2.0))
    assert set(on_glass[190:210, 190:210].ravel()) == {TUMOUR}


def test_runs_from_before_there_was_support_have_none():
    assert MaskSettings.of_record({"threshold": 0.4, "smoothing_um": 2}) == MaskSettings(0.4, 2.0, 0.0)


def test_figures_are_areas_shares_and_means(scene):
    probability = np.array([[255, 0, 51, 200]], np.uint8).repeat(1000, 0)
    mask = np.array([[TUMOUR, NORMAL, NORMAL, IGNORE]], np.uint8).repeat(1000, 0)
    figures = summarise(mask, probability, (20.0, 50.0))
    assert figures.tumour_mm2 == pytest.approx(1.0)
    assert figures.tissue_mm2 == pytest.approx(3.0)
    assert figures.tumour_percent == pytest.approx(100 / 3)
    assert figures.mean_probability == pytest.approx(0.4)


def test_figures_without_tissue_are_zero():
    figures = summarise(0 * ONES, ONES, (1, 1))
    assert (figures.tumour_mm2, figures.tumour_percent, figures.mean_probability) == (0, 0, 0)
