"""Stain normalisation of a slide: one fit for all tiles, near the formula, and only where the card asks for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.jobs import InlineControl
from napari_histodistill.nets import ModelError
from napari_histodistill.nets.stain import StainStatistics, fit_stain, normalise_stain
from napari_histodistill.predict import PredictRequest, predict_slide
from napari_histodistill.predict.stain import Recolouring

TARGET = StainStatistics((60.0, 25.0, -20.0), (12.0, 8.0, 7.0))


@pytest.fixture
def spy(fake_model):
    """A fake model that asks for normalisation and keeps what it is shown."""

    class Spy(fake_model):
        def __init__(self):
            super().__init__()
            self.card = replace(self.card, stain_normalisation="reinhard", stain_reference=TARGET.to_card())
            self.seen = []

        def predict(self, images):
            self.seen += list(images)
            return super().predict(images)

    return Spy()


@pytest.fixture
def tissue_path(write_tiff, tissue_like, tmp_path):
    image = np.full((1500, 1800, 3), 245, np.uint8)
    image[200:1300, 250:1500] = tissue_like((1100, 1250))
    return write_tiff(tmp_path / "slide.tiff", image)


def test_the_table_is_the_formula_to_a_few_levels(tissue_like):
    image = tissue_like((64, 80))
    source = fit_stain([image])
    difference = np.abs(Recolouring(source, TARGET)(image).astype(int) - normalise_stain(image, source, TARGET))
    assert difference.mean() < 3


def test_the_model_sees_a_slide_in_the_colours_that_its_card_asks_for(spy, tissue_path, tmp_path):
    predict_slide(PredictRequest(tissue_path, tmp_path / "study"), InlineControl(), spy)
    seen = fit_stain(spy.seen)
    np.testing.assert_allclose(seen.mean, TARGET.mean, atol=2.5)
    np.testing.assert_allclose(seen.std, TARGET.std, rtol=0.3)


def test_a_model_that_asks_for_nothing_sees_the_slides_own_colours(spy, tissue_path, tmp_path):
    spy.card = replace(spy.card, stain_normalisation=None)
    predict_slide(PredictRequest(tissue_path, tmp_path / "study"), InlineControl(), spy)
    assert abs(np.array(fit_stain(spy.seen).mean) - TARGET.mean).max() > 5


def test_a_card_without_the_reference_it_needs_is_refused(spy, tissue_path, tmp_path):
    spy.card = replace(spy.card, stain_reference=None)
    with pytest.raises(ModelError, match="without a reference"):
        predict_slide(PredictRequest(tissue_path, tmp_path / "study"), InlineControl(), spy)
