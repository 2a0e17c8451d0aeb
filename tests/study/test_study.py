"""The study folder: entries, runs, tissue and corrections."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from napari_histodistill.check import CheckRequest, check_study
from napari_histodistill.jobs import InlineControl
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study import NO_CORRECTION, RunState, SlideLabel, Study, StudyError

SETTINGS = {"model": "m", "block": 512}


def test_a_study_opens_again(study):
    assert json.loads((study.folder / "study.json").read_text())["version"] == 1
    assert Study.open(study.folder).folder == study.folder
    assert Study.open_or_create(study.folder).slides() == []


def test_a_missing_or_empty_folder_becomes_a_study(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "a/b"):
        assert Study.open_or_create(tmp_path / name).slides() == []


def test_a_folder_with_other_things_is_never_taken_over(tmp_path):
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(StudyError, match="does not exist"):
        Study.open_or_create(tmp_path)
    with pytest.raises(StudyError, match="not an empty folder"):
        Study.create(tmp_path)


def test_a_newer_study_is_refused(study):
    (study.folder / "study.json").write_text('{"format": "histodistill-study", "version": 99}')
    with pytest.raises(StudyError, match="update napari-histodistill"):
        Study.open(study.folder)


def test_a_file_in_the_way_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError):
        Study.create(tmp_path / "file" / "study")


def test_the_same_slide_gives_the_same_entry(study, fake_slide, entry):
    fake_slide.path = fake_slide.path.rename(fake_slide.path.with_name("renamed.svs"))
    again = study.add_slide(fake_slide, target_mpp=4)
    assert again.folder == entry.folder
    assert again.grid == entry.grid
    assert again.slide_path.name == "renamed.svs"
    assert [slide.slide_path.name for slide in study.slides()] == ["renamed.svs"]


def test_two_slides_of_one_name_are_two_entries(study, fake_slide, entry):
    fake_slide.fingerprint = "two"
    assert study.add_slide(fake_slide).folder != entry.folder
    assert len(study.slides()) == 2


def test_the_same_slide_at_another_pixel_size_is_refused(study, fake_slide, entry):
    fake_slide.mpp = (0.25, 0.25)
    with pytest.raises(StudyError, match=r"at 0\.5 µm/px, not at 0\.25"):
        study.add_slide(fake_slide)


def test_study_and_slides_may_move_together(study, fake_slide, entry, tmp_path):
    (tmp_path / "new").mkdir()
    for folder in (study.folder, fake_slide.path.parent):
        shutil.move(folder, tmp_path / "new" / folder.name)
    moved = Study.open(tmp_path / "new" / "study").slides()[0]
    assert moved.slide_path == tmp_path / "new" / "data" / fake_slide.path.name


def test_the_study_may_move_alone(study, fake_slide, entry, tmp_path):
    shutil.move(study.folder, tmp_path / "deep" / "er")
    assert Study.open(tmp_path / "deep" / "er").slides()[0].slide_path == fake_slide.path


def test_a_slide_that_is_gone_is_a_sentence(study, fake_slide, entry):
    fake_slide.path.unlink()
    with pytest.raises(StudyError, match="no longer there"):
        _ = study.slides()[0].slide_path


def test_a_damaged_entry_is_a_sentence(study, entry):
    (entry.folder / "slide.json").write_text('{"format": "histodistill-slide", "version": 1, "mpp": 3}')
    with pytest.raises(StudyError, match="damaged"):
        study.slides()


def test_tissue_comes_back_as_it_was(entry):
    assert entry.tissue() is None
    mask = np.tile(np.array([0, 1, 3], np.uint8), (50, 20))
    entry.save_tissue(mask, settings={"a": 1})
    entry.save_tissue(mask[::-1], settings={"a": 2}, edited=True)
    saved = entry.tissue()
    assert np.array_equal(saved.mask, mask[::-1])
    assert (saved.settings, saved.edited) == ({"a": 2}, True)


def test_a_run_comes_back_with_its_record(entry):
    run = entry.new_run(SETTINGS)
    run.probability.write(0, 0, np.full((3, 4), 7, np.uint8))
    run.record.unreadable.append((1, 2, 3, 4))
    run.finish_blocks([5, 2])
    again = entry.resumable_run()
    assert again.record.finished == {2, 5}
    assert again.record.state is RunState.RUNNING
    assert again.record.unreadable == [(1, 2, 3, 4)]
    assert entry.probability()[2, 3] == 7
    assert entry.pseudo_mask() is None
    again.require_same(SETTINGS)
    with pytest.raises(StudyError, match="its model was m, now it is other; use the same, or start anew"):
        again.require_same(SETTINGS | {"model": "other"})


def test_a_complete_run_stays_until_its_successor_is_complete(entry):
    first = entry.new_run(SETTINGS)
    entry.complete_run(first, {"tumour_mm2": 1.0})
    second = entry.new_run(SETTINGS)
    second.record.state = RunState.PARTIAL
    second.save()
    assert entry.run.folder == first.folder
    assert entry.resumable_run().folder == second.folder
    third = entry.new_run(SETTINGS)
    assert entry.runs() == [first.folder, third.folder]
    with entry.lock():  # while it is being written, the new one is shown
        assert entry.run.folder == third.folder
    entry.complete_run(third, {"tumour_mm2": 2.0})
    assert entry.runs() == [third.folder]
    assert entry.run.record.summary == {"tumour_mm2": 2.0}


def test_a_damaged_run_is_a_sentence(entry):
    run = entry.new_run(SETTINGS)
    (run.folder / "run.json").write_text('{"format": "histodistill-run", "version": 1, "settings": {}}')
    with pytest.raises(StudyError, match="damaged"):
        _ = entry.run


@pytest.fixture
def masked(entry):
    """A slide whose model says tumour left and normal right of x = 100."""
    run = entry.new_run(SETTINGS)
    mask = np.full(entry.grid.shape, NORMAL, np.uint8)
    mask[:, :100] = TUMOUR
    with run.replace_pseudo_mask() as target:
        target.write(0, 0, mask)
    entry.complete_run(run, {})
    return entry


def shown(slide, window):
    y, x, h, w = window
    return slide.corrected(y, x, np.asarray(slide.pseudo_mask()[y : y + h, x : x + w]))


WINDOW = (300, 90, 20, 30)


def test_a_hand_edit_is_kept_apart_from_what_the_model_says(masked):
    before = np.asarray(masked.pseudo_mask()[:])
    expected = shown(masked, WINDOW)
    hand = np.full(WINDOW[2:], NO_CORRECTION, np.uint8)
    hand[5:10, 15:20] = expected[5:10, 15:20] = IGNORE
    hand[0, 0] = expected[0, 0] = OUTSIDE
    masked.save_corrections_region(*WINDOW[:2], hand, tool="brush")
    assert np.array_equal(masked.pseudo_mask()[:], before)
    assert np.array_equal(shown(masked, WINDOW), expected)
    corrections = masked.corrections().read(0, 0, *masked.grid.shape)
    assert np.count_nonzero(corrections != NO_CORRECTION) == 26
    assert corrections[305, 105] == IGNORE


def test_a_correction_that_the_model_agrees_with_stays_when_it_no_longer_does(masked):
    confirmed = np.full(WINDOW[2:], TUMOUR, np.uint8)
    masked.save_corrections_region(*WINDOW[:2], confirmed, tool="brush")
    assert (masked.corrected(*WINDOW[:2], np.full_like(confirmed, NORMAL)) == TUMOUR).all()


def test_values_that_no_mask_has_are_refused(masked):
    with pytest.raises(ValueError, match="0 to 3"):
        masked.save_corrections_region(0, 0, np.full((2, 2), 9, np.uint8), tool="brush")


def test_strips_make_up_the_corrected_mask(masked):
    masked.save_corrections_region(511, 0, np.full((2, 3), IGNORE, np.uint8), tool="brush")
    strips = list(masked.mask_blocks(masked.run, rows=512))
    whole = np.concatenate([strip for _, strip in strips])
    assert whole.shape == masked.grid.shape
    assert [y for y, _ in strips] == list(range(0, whole.shape[0], 512))
    assert (whole[511:513, :3] == IGNORE).all()
    assert np.count_nonzero(whole == IGNORE) == 6


def test_a_prediction_becomes_the_pseudo_mask_and_corrections_stay(masked):
    masked.save_corrections_region(0, 0, np.full((2, 3), IGNORE, np.uint8), tool="brush")
    prediction = masked.new_prediction("0001-0003", SETTINGS)
    with pytest.raises(StudyError, match="no finished prediction 0001-0003"):
        masked.adopt_prediction("0001-0003")
    prediction.probability.write(0, 0, np.full((4, 4), 200, np.uint8))
    with prediction.replace_pseudo_mask() as target:
        target.write(0, 0, np.full(masked.grid.shape, TUMOUR, np.uint8))
    masked.complete_run(prediction, {"threshold": 0.5})
    assert masked.predictions() == ["0001-0003"]
    before = masked.runs()
    assert np.count_nonzero(np.asarray(masked.pseudo_mask()[:]) == NORMAL)  # still the teacher's
    masked.adopt_prediction("0001-0003")
    assert (np.asarray(masked.pseudo_mask()[:]) == TUMOUR).all()
    assert masked.probability()[0, 0] == 200
    assert (shown(masked, (0, 0, 2, 3)) == IGNORE).all()
    assert len(masked.runs()) == 1
    assert masked.runs() != before
    assert masked.predictions() == ["0001-0000", "0001-0003"]  # the first teacher's is kept, as that of round 0


def test_the_label_of_a_slide_is_kept(study, entry):
    assert entry.label is SlideLabel.UNKNOWN
    entry.label = SlideLabel.NORMAL
    entry.save()
    assert study.slide(entry.fingerprint).label is SlideLabel.NORMAL


def test_without_a_pseudo_mask_there_is_nothing_to_export(entry):
    with pytest.raises(StudyError, match="run the teacher first"):
        next(entry.mask_blocks(entry.new_run(SETTINGS)))


def test_a_pseudo_mask_is_replaced_whole_or_not_at_all(masked):
    run, before = masked.run, np.asarray(masked.pseudo_mask()[:])

    def stop_half_way() -> None:
        with run.replace_pseudo_mask() as target:
            target.write(0, 0, np.full((4, 4), 3, np.uint8))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stop_half_way()
    assert np.array_equal(masked.pseudo_mask()[:], before)
    with run.replace_pseudo_mask() as target:
        target.write(0, 0, np.full((4, 4), 3, np.uint8))
        assert np.array_equal(masked.pseudo_mask()[:], before)
    assert (masked.pseudo_mask()[:4, :4] == 3).all()
    assert sorted(path.name for path in run.folder.glob("pseudo*")) == ["pseudo-mask.ome.zarr"]


def test_a_slide_is_named_by_its_file_or_is_the_only_one(study, fake_slide, tmp_path):
    with pytest.raises(StudyError, match="holds no slides yet"):
        study.slide_named()
    first = study.add_slide(fake_slide)
    assert study.slide_named().folder == first.folder
    assert study.slide_named("my slide é").folder == first.folder
    (tmp_path / "other").mkdir()
    second = study.add_slide(dataclasses.replace(fake_slide, path=tmp_path / "other" / "b.svs", fingerprint="two"))
    assert study.slide_named("b.svs").folder == second.folder
    assert study.slide_named(first.folder.name).folder == first.folder
    with pytest.raises(StudyError, match="several slides"):
        study.slide_named()
    with pytest.raises(StudyError, match=r"no slide 'c\.svs': choose from 'b\.svs', 'my slide é\.svs'"):
        study.slide_named("c.svs")


def test_a_run_whose_deletion_was_cut_short_is_none_also_for_a_check(entry, monkeypatch):
    run = entry.new_run({})
    entry.complete_run(run, {})

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        run.delete()
    monkeypatch.undo()
    assert entry.run is None
    report = check_study(CheckRequest(entry.folder.parents[1], repair=True), InlineControl())
    assert report.sound
    assert entry.run is None
    assert not run.folder.exists()


def test_what_a_first_teacher_said_is_not_left_in_part_where_a_later_one_takes_its_place(entry, monkeypatch):
    for _ in range(2):
        for run in (entry.new_run({}), entry.new_prediction("0001-0001", {})):
            with run.replace_pseudo_mask():
                pass
            entry.complete_run(run, {})
        if "0001-0000" not in entry.predictions():
            entry.adopt_prediction("0001-0001")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        entry.adopt_prediction("0001-0001")
    assert entry.predictions() == ["0001-0001"]
