"""What a study knows of a slide in a few numbers: of the corrections that there are, whatever the age of files."""

from __future__ import annotations

import os
from dataclasses import asdict

import numpy as np
import pytest

from napari_histodistill.jobs import InlineControl
from napari_histodistill.predict.figures import COUNTED, Figures
from napari_histodistill.predict.overview import overview_of
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import NORMAL, TUMOUR
from napari_histodistill.slide.synthetic import draw_slide, write_slide
from napari_histodistill.study import Study

SAID = Figures(tumour_mm2=7.0, tissue_mm2=9.0, tumour_percent=77.8, mean_probability=0.5)
"""What no mask here comes to: figures that were taken from a summary."""


@pytest.fixture
def entry(tmp_path):
    """A slide whose result is tumour throughout."""
    write_slide(draw_slide((256, 384), seed=1), tmp_path / "1.tiff")
    with open_slide(tmp_path / "1.tiff") as slide:
        entry = Study.create(tmp_path / "study").add_slide(slide)
    complete(entry, entry.new_run({}))
    return entry


def complete(entry, run) -> None:
    run.probability.write(0, 0, np.full(entry.grid.shape, 255, np.uint8))
    with run.replace_pseudo_mask() as mask:
        mask.write(0, 0, np.full(entry.grid.shape, TUMOUR, np.uint8))
    entry.complete_run(run, {**asdict(SAID), COUNTED: entry.all_corrections().journal_bytes})


def correct(entry) -> None:
    entry.save_corrections_region(0, 0, np.full((10, entry.grid.shape[1]), NORMAL, np.uint8))


def test_figures_that_know_every_correction_are_taken_as_they_are(entry):
    assert overview_of(entry, InlineControl()).figures == SAID
    correct(entry)
    complete(entry, entry.new_run({}))
    assert overview_of(entry, InlineControl()).figures == SAID


def test_areas_follow_corrections_in_a_copy_whose_files_have_any_age(entry):
    correct(entry)
    os.utime(entry.folder / "corrections.journal", (0, 0))
    figures = overview_of(entry, InlineControl()).figures
    assert figures.tumour_percent == pytest.approx(100 * (1 - 10 / entry.grid.shape[0]), abs=0.01)


def test_areas_follow_corrections_that_came_before_a_round_was_taken(entry):
    complete(entry, entry.new_prediction("0001-0001", {}))
    correct(entry)
    entry.adopt_prediction("0001-0001")
    assert overview_of(entry, InlineControl()).figures.tumour_percent < 100 * (1 - 9 / entry.grid.shape[0])


def test_what_the_first_teacher_said_is_no_round(entry):
    complete(entry, entry.new_prediction("0001-0001", {}))
    entry.adopt_prediction("0001-0001")
    assert entry.predictions() == ["0001-0000", "0001-0001"]
    assert overview_of(entry, InlineControl()).rounds == 1
