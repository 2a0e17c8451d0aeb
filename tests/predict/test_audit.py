"""Drawing an audit and its figures on a study made by hand, whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.errors import HistodistillError
from napari_histodistill.predict.audit import (
    DRAWS,
    OWN,
    DrawRequest,
    FiguresRequest,
    audit_figures,
    draw_audit,
    draw_more,
    patch_edges,
)
from napari_histodistill.slide.grid import WorkingGrid
from napari_histodistill.slide.labels import IGNORE, NORMAL, TUMOUR
from napari_histodistill.study import Study, StudySlide
from napari_histodistill.study.audit import AUDIT, change_audit

SHAPE = (1210, 1530)
"""Of the working grid, in px of 2 µm: squares of 200 px, patches of 67, 67 and 66; the last ones are cut."""


@pytest.fixture
def entry(tmp_path):
    """Tissue but in a corner; a disc is tumour, and the teacher's result says a disc of other size and place."""
    Study.create(tmp_path / "study")
    grid = WorkingGrid(SHAPE, tuple(4 * n for n in SHAPE), (0.5, 0.5))
    entry = StudySlide(tmp_path / "study" / "slides" / "one", "f" * 64, grid, tmp_path / "one.tiff")
    entry.folder.mkdir()
    entry.save()
    write(entry, entry.new_run({}), disc(480, 700, 330))
    return entry


def disc(y, x, radius):
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


TRUTH = disc(500, 700, 350)


def tissue():
    there = np.ones(SHAPE, bool)
    there[900:, 1000:] = False
    return there


def write(entry, run, tumour):
    with run.replace_pseudo_mask() as target:
        target.write(0, 0, np.where(tissue(), np.where(tumour, TUMOUR, NORMAL), 0).astype(np.uint8))
    entry.complete_run(run, {"threshold": 0.5})


def label(entry, indices=None):
    """Label patches with the truth."""

    def change(audit):
        for index in audit.active if indices is None else indices:
            here = audit.patches[index].slices
            values = np.where(tissue()[here], np.where(TRUTH[here], TUMOUR, NORMAL), 0).astype(np.uint8)
            audit = audit.with_label(index, values, "by hand")
        return audit

    return change_audit(entry.folder, change)


def test_patches_lie_in_squares_and_cover_an_axis():
    assert patch_edges(450, 200).tolist() == [0, 67, 134, 200, 267, 334, 400]
    assert patch_edges(10, 200).tolist() == [0]


def test_draws_halve_the_strata_and_have_a_seed(entry, recorder):
    audit = draw_audit(DrawRequest(entry, seed=3), recorder)
    assert audit.drawn == DRAWS
    strata = [audit.patches[index].stratum for index in audit.order[: audit.drawn]]
    assert strata.count(1) == strata.count(0) == DRAWS / 2
    said = np.asarray(entry.pseudo_mask()[:])
    for patch in audit.patches:
        assert bool((said[patch.slices] == TUMOUR).any()) == bool(patch.stratum)
        assert (said[patch.slices] != 0).any()
        assert patch.y // 200 == (patch.y + patch.height - 1) // 200
        assert patch.x // 200 == (patch.x + patch.width - 1) // 200
        square = tuple(slice(at // 200 * 200, at // 200 * 200 + 200) for at in (patch.y, patch.x))
        assert patch.square_tissue == np.count_nonzero(said[square])
    assert sum(audit.sizes) == np.count_nonzero(tissue())
    assert draw_audit(DrawRequest(entry, seed=3), recorder).order == audit.order
    again = draw_audit(DrawRequest(entry, seed=4), recorder)
    assert [again.patches[i].slices for i in again.order] != [audit.patches[i].slices for i in audit.order]


def test_patches_are_drawn_by_their_tissue(entry, recorder):
    """The one full and the one tenth of patches are as often drawn as they have tissue."""
    audit = draw_audit(DrawRequest(entry), recorder)
    rows = np.array([audit.patches[i].y for i in audit.order if audit.patches[i].stratum == 0])
    assert rows.max() >= 1200  # the last ten rows are patches too
    said = np.asarray(entry.pseudo_mask()[:])
    tissue_above = np.count_nonzero(said[:600] == NORMAL) / np.count_nonzero(said == NORMAL)
    assert np.mean(rows < 600) == pytest.approx(tissue_above, abs=0.15)


def test_figures_are_near_the_truth_and_their_intervals_hold_it(entry, recorder):
    draw_audit(DrawRequest(entry), recorder)
    label(entry)
    (found,) = audit_figures(FiguresRequest(entry), recorder).predictions
    said = (np.asarray(entry.pseudo_mask()[:]) == TUMOUR) & tissue()
    truth = TRUTH & tissue()
    dice = 2 * np.count_nonzero(said & truth) / (np.count_nonzero(said) + np.count_nonzero(truth))
    area = np.count_nonzero(truth) * 4e-6
    assert found.prediction == OWN
    assert found.predicted_mm2 == pytest.approx(np.count_nonzero(said) * 4e-6)
    assert found.estimate.dice == pytest.approx(dice, abs=0.05)
    assert found.estimate.dice_95[0] <= dice <= found.estimate.dice_95[1]
    assert found.estimate.area == pytest.approx(area, rel=0.1)
    assert found.estimate.area_95[0] <= area <= found.estimate.area_95[1]
    assert found.change is None


def test_rounds_are_compared_on_the_same_patches(entry, recorder):
    write(entry, entry.new_prediction("0001-0001", {}), disc(700, 900, 300))
    draw_audit(DrawRequest(entry), recorder)
    label(entry)
    write(entry, entry.new_prediction("0001-0002", {}), TRUTH)
    unfinished = entry.new_prediction("0001-0003", {})
    assert unfinished.pseudo_mask is None
    figures = audit_figures(FiguresRequest(entry), recorder)
    teacher, worse, perfect = figures.predictions
    assert [one.prediction for one in figures.predictions] == [OWN, "0001-0001", "0001-0002"]
    assert worse.change[0] == pytest.approx(worse.estimate.dice - teacher.estimate.dice)
    assert worse.change[1][1] < 0
    assert perfect.estimate.dice == 1
    assert perfect.change[1][0] > 0
    assert [one.may_have_learnt for one in figures.predictions] == [False, True, False]
    known = dict.fromkeys(figures.areas, 250)
    again = audit_figures(FiguresRequest(entry, known), recorder)
    assert {one.predicted_mm2 for one in again.predictions} == {250 * 4e-6}


def test_a_round_that_was_taken_as_the_mask_stands_in_its_place_and_may_have_learnt_as_it_did(entry, recorder):
    for number in (1, 2):
        write(entry, entry.new_prediction(f"0001-000{number}", {}), TRUTH)
    draw_audit(DrawRequest(entry), recorder)
    label(entry)
    entry.adopt_prediction("0001-0001")
    found = audit_figures(FiguresRequest(entry), recorder).predictions
    assert [one.prediction for one in found] == ["0001-0000", OWN, "0001-0001", "0001-0002"]
    assert [one.may_have_learnt for one in found] == [False, True, True, True]
    assert found[1].change[0] > 0 == found[2].change[0]


def test_areas_that_are_known_count_until_the_mask_is_written_anew(entry, recorder):
    first = audit_figures(FiguresRequest(entry), recorder)
    kept = audit_figures(FiguresRequest(entry, dict.fromkeys(first.areas, 5)), recorder)
    assert kept.predictions[0].predicted_mm2 == pytest.approx(5 * 4e-6)
    write(entry, entry.run, np.zeros(SHAPE, bool))  # as another threshold does
    assert audit_figures(FiguresRequest(entry, first.areas), recorder).predictions[0].predicted_mm2 == 0


def test_too_few_labels_give_no_figures_and_what_cannot_be_told_does_not_count(entry, recorder):
    audit = draw_audit(DrawRequest(entry), recorder)
    figures = audit_figures(FiguresRequest(entry), recorder)
    assert (figures.labelled, figures.drawn) == (0, len(audit.active))
    assert figures.predictions[0].estimate is None
    label(entry)
    known = audit_figures(FiguresRequest(entry), recorder).predictions[0]

    def unsure(found):
        for index in found.active:
            values = found.patches[index].labels.copy()
            values[:30] = np.where(values[:30] > 0, IGNORE, 0)
            found = found.with_label(index, values, "as shown")
        return found

    change_audit(entry.folder, unsure)
    without = audit_figures(FiguresRequest(entry), recorder).predictions[0]
    assert without.estimate is not None
    assert without.estimate.dice != known.estimate.dice

    def nothing(found):
        for index in found.active:
            found = found.with_label(index, np.full_like(found.patches[index].labels, IGNORE), "as shown")
        return found

    change_audit(entry.folder, nothing)
    assert audit_figures(FiguresRequest(entry), recorder).predictions[0].estimate is None


def test_more_draws_count_and_keep_the_labels(entry, recorder):
    audit = draw_audit(DrawRequest(entry, draws=4), recorder)
    label(entry)
    write(entry, entry.new_prediction("0001-0001", {}), TRUTH)
    more = draw_more(entry, 6)
    assert more.drawn == 10
    assert set(more.labelled) == set(audit.active) < set(more.active)
    assert AUDIT.read(entry.folder).earlier == ("0001-0001",)


def test_corrections_alone_are_told_as_what_they_are(entry, recorder):
    """Made where the teacher is wrong, they make it look bad; without an audit there is nothing else."""
    wrong = TRUTH & ~disc(480, 700, 330)
    y, x = (int(axis.mean()) for axis in np.nonzero(wrong & (np.arange(SHAPE[0])[:, None] > 820)))
    entry.save_corrections_region(y, x, np.full((4, 4), TUMOUR, np.uint8))
    entry.save_corrections_region(10, 10, np.full((2, 4), NORMAL, np.uint8))
    entry.save_corrections_region(20, 10, np.full((2, 4), IGNORE, np.uint8))
    figures = audit_figures(FiguresRequest(entry), recorder)
    assert figures.corrected_pixels == 24
    assert figures.predictions[0].on_corrections == pytest.approx(8 / 24)
    assert (figures.drawn, figures.predictions[0].estimate) == (0, None)
    plain = figures.to_json()
    assert plain["predictions"][0]["agreement_with_corrections"] == pytest.approx(8 / 24)
    assert plain["predictions"][0]["dice"] is None


def test_a_slide_without_a_prediction_or_tissue_cannot_be_audited(entry, recorder):
    with pytest.raises(HistodistillError, match="run the teacher first"):
        draw_audit(DrawRequest(entry, "0009-0001"), recorder)
    run = entry.new_run({})
    with run.replace_pseudo_mask():
        pass
    entry.complete_run(run, {})
    with pytest.raises(HistodistillError, match="no tissue"):
        draw_audit(DrawRequest(entry), recorder)
    assert AUDIT.read(entry.folder) is None


def test_a_slide_without_predicted_tumour_is_drawn_from_all_the_same(entry, recorder):
    write(entry, entry.new_run({}), np.zeros(SHAPE, bool))
    audit = draw_audit(DrawRequest(entry, draws=12), recorder)
    assert audit.drawn == 12
    assert {patch.stratum for patch in audit.patches} == {0}
    label(entry)
    (found,) = audit_figures(FiguresRequest(entry), recorder).predictions
    assert found.estimate.dice == 0
    assert found.estimate.area_95[0] <= np.count_nonzero(TRUTH & tissue()) * 4e-6 <= found.estimate.area_95[1]
