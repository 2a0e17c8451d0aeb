"""A pink slide with a dark square and a study of it, made without a network; what a person sets is set by the tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_histodistill.distill.slides import StudyMaterial, TileSettings
from napari_histodistill.nets import ModelCard, read_card
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import NORMAL, TUMOUR
from napari_histodistill.study import Study, StudySlide

SHAPE = (1600, 2400)
"""Of the slide, in level-0 px of 0.5 µm; a working-grid px is 4 of them, a px that the model reads 2."""
MARK = (slice(400, 800), slice(600, 1000))
"""The dark square, in level-0 px."""
MARK_ON_GRID = (slice(100, 200), slice(150, 250))
PINK, DARK = np.array([225, 150, 190], np.uint8), np.array([90, 40, 140], np.uint8)


@dataclass(frozen=True)
class Marked:
    """The study's slide, the card of a model that takes colours as they are, and how material comes of both."""

    entry: StudySlide
    card: ModelCard

    @property
    def folder(self) -> Path:
        return self.entry.folder.parents[1]

    def source(self, **settings: object) -> StudyMaterial:
        return StudyMaterial([self.entry], self.card, TileSettings(**settings), both_stains=False)


def texture(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Pink and violet speckle, uint8 (h, w, 3)."""
    speckle = np.random.default_rng(seed).normal(0, 8, (shape[0] // 4, shape[1] // 4, 1))
    return np.clip(PINK + speckle.repeat(4, 0).repeat(4, 1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def marked_path(tmp_path_factory) -> Path:
    image = texture(SHAPE, 1)
    image[MARK] = DARK
    path = tmp_path_factory.mktemp("slide") / "marked.tiff"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3)
    return path


@pytest.fixture(scope="session")
def small_path(tmp_path_factory) -> Path:
    """A quarter of it, for tests that train."""
    image = texture((SHAPE[0] // 2, SHAPE[1] // 2), 2)
    image[200:400, 300:500] = DARK
    path = tmp_path_factory.mktemp("small") / "small.tiff"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3)
    return path


def make_study(folder: Path, path: Path) -> StudySlide:
    """A study whose teacher found tumour in the dark square only, on tissue everywhere."""
    with open_slide(path) as slide:
        entry = Study.open_or_create(folder).add_slide(slide, target_mpp=2.0)
    entry.save_tissue(np.ones((200, 300), np.uint8), settings={})
    probability = np.zeros(entry.grid.shape, np.uint8)
    probability[MARK_ON_GRID] = 255
    run = entry.new_run({"model": "by hand"})
    run.probability.write(0, 0, probability)
    with run.replace_pseudo_mask() as target:
        target.write(0, 0, np.where(probability > 0, TUMOUR, NORMAL).astype(np.uint8))
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})
    return entry


@pytest.fixture
def marked(marked_path, tmp_path) -> Marked:
    entry = make_study(tmp_path / "study", marked_path)
    assert entry.grid.shape == (400, 600)
    return Marked(entry, replace(read_card("bundled"), mpp=1.0, stain_normalisation=None))


def correct(entry: StudySlide, window: tuple[int, int, int, int], value: int) -> None:
    """Set a window (y, x, height, width) of the working grid by hand."""
    y, x, height, width = window
    entry.save_corrections_region(y, x, np.full((height, width), value, np.uint8))
