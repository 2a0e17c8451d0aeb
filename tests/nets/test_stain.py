"""Stain normalisation: the statistics of tissue are moved, glass is not, and cards keep them."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from napari_histodistill.nets import ModelError
from napari_histodistill.nets.stain import StainStatistics, fit_stain, normalise_stain, typical_stain


def tissue(colour: tuple[int, int, int], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, (80, 80, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


PINK, BLUE = tissue((190, 120, 170), 0), tissue((120, 110, 180), 1)


def test_normalised_tissue_has_the_targets_statistics():
    source, target = fit_stain([PINK]), fit_stain([BLUE])
    lab = rgb2lab(normalise_stain(PINK, source, target)).reshape(-1, 3)
    np.testing.assert_allclose(lab.mean(0), target.mean, atol=1)
    np.testing.assert_allclose(lab.std(0), target.std, rtol=0.15)


def test_glass_is_neither_fitted_nor_changed():
    glass = np.full_like(PINK, 248)
    image = np.hstack([PINK, glass])
    source, target = fit_stain([image]), fit_stain([BLUE])
    np.testing.assert_allclose(source.mean, fit_stain([PINK]).mean, atol=0.5)
    np.testing.assert_array_equal(normalise_stain(image, source, target)[:, 80:], glass)


def test_the_statistics_of_two_images_are_those_of_their_pixels_together():
    np.testing.assert_allclose(fit_stain([PINK, BLUE]).mean, fit_stain([np.hstack([PINK, BLUE])]).mean)


def test_a_typical_stain_has_the_spread_within_images_not_between_them():
    typical, together = typical_stain([PINK, BLUE]), fit_stain([PINK, BLUE])
    np.testing.assert_allclose(typical.mean, together.mean, atol=1e-6)
    assert typical.std[0] < together.std[0]
    assert typical_stain([]) is None


def test_too_little_tissue_gives_nothing():
    assert fit_stain([np.full((50, 50, 3), 250, np.uint8)]) is None


def test_statistics_survive_a_card():
    statistics = fit_stain([PINK])
    assert StainStatistics.from_card(statistics.to_card()) == statistics


@pytest.mark.parametrize(
    "entry", [{}, {"method": "reinhard"}, {"method": "magic", "mean": [1, 2, 3], "std": [1, 1, 1]}]
)
def test_a_broken_entry_is_refused(entry):
    with pytest.raises(ModelError, match="stain normalisation"):
        StainStatistics.from_card(entry)
