"""The simulated annotator at the tool's controllers: its strokes are corrections, its rounds those of the dock."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.slide.synthetic import draw_slide, sample_truth, write_slide
from napari_histodistill.study import Study
from slide_annotator import SlideAnnotator, curve


@pytest.fixture
def annotator(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "small.tiff"
    write_slide(draw_slide((1024, 1536)), path)
    annotator = SlideAnnotator(path, sample_truth(path), tmp_path / "study")
    yield annotator
    annotator.close()


def test_the_curve_is_of_the_tool(annotator, tmp_path):
    settings = annotator.settings
    settings.rounds = settings.epochs = 1
    settings.most_tiles, settings.encoder = 20, "mobilenet-v3-small"
    points = curve(annotator, (4,))
    assert [point["outcome"] for point in points] == ["teacher", "painted", "unverified"]
    teacher, painted, distilled = points
    assert painted["strokes"] == 4
    assert painted["dice"] > teacher["dice"]
    assert distilled["shown"] == "round 1"

    entry = Study.open(tmp_path / "study").slides()[0]
    corrections = entry.corrections()
    steps = corrections.entries().entries
    assert [step.tool for step in steps] == ["brush"] * 4
    said = corrections[: entry.grid.shape[0]]
    assert np.count_nonzero(said != 255) > 100
    assert np.array_equal(said[said != 255] == 1, annotator.truth[said != 255])  # every stroke tells the truth
    assert np.array_equal(annotator.found[said != 255], said[said != 255] == 1)  # and no round changes it
