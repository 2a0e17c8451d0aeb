"""The "Teacher" controller without a window: a study is prepared and read in the background, stops at any point."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager

from napari_histodistill.jobs import JobCancelled, ThreadJob
from napari_histodistill.nets import read_card
from napari_histodistill.nets.card import BUNDLED, CARD_NAME
from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.predict import TileDone
from napari_histodistill.slide.labels import TUMOUR
from napari_histodistill.study import Study
from napari_histodistill.viewer.layers import Role
from napari_histodistill.viewer.slides import SlideViews
from napari_histodistill.viewer.teacher import TeacherState


@pytest.fixture
def teacher(mark, tmp_path, monkeypatch, new_parent_runner):
    """The teacher of a slide that was opened as the Slide dock does, with tissue found."""
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    runner, viewer = new_parent_runner(), ViewerModel()
    views = SlideViews(viewer, runner)
    views.open(mark.path)
    teacher = views.current.teacher
    teacher.choose_study(tmp_path / "study")
    views.current.tissue.find()
    runner.settle()
    yield SimpleNamespace(viewer=viewer, control=teacher, view=views.current, runner=runner, study=tmp_path / "study")
    views.close()


def begin_on_disk(teacher):
    """What the child does first: an empty run, and tumour in all of it."""
    entry = Study.open(teacher.study).slides()[0]
    run = entry.new_run({})
    run.probability.write(0, 0, np.full(entry.grid.shape, 255, np.uint8))
    run.record.finished = {0}
    run.save()
    return entry, run


def test_a_file_that_is_no_slide_is_told_and_nothing_is_added(tmp_path, new_parent_runner):
    viewer = ViewerModel()  # views hold it weakly
    views = SlideViews(viewer, new_parent_runner())
    (tmp_path / "no.svs").write_text("no slide")
    views.open(tmp_path / "no.svs")
    assert views.current is None
    assert "no.svs" in notification_manager.records[-1].message


def test_the_study_is_ready_when_the_child_starts_and_tiles_that_land_early_are_shown(teacher):
    teacher.control.run()
    (child,) = teacher.runner.children
    assert child.request.study_folder == teacher.study
    assert Study.open(teacher.study).slides()[0].tissue() is not None
    child.tell(TileDone(0, 0, 64, 64))  # before there is a run to read
    assert teacher.control.result is None
    entry, run = begin_on_disk(teacher)
    child.tell(TileDone(64, 0, 64, 64))
    teacher.runner.settle()
    shown = teacher.view.layer(Role.PSEUDO_MASK).data
    inside = teacher.control.result.inside_tissue((slice(0, 128), slice(0, 64)))
    assert (shown[:128, :64][inside] == TUMOUR).all()
    assert teacher.view.layer(Role.PROBABILITY) is not None
    with run.replace_pseudo_mask():
        pass
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})
    child.done(SimpleNamespace(threshold=0.5, smoothing_um=0.0, support=0.0))
    assert teacher.control.state is TeacherState.DONE


@pytest.mark.parametrize("moment", ["preparing", "started", "landed"])
def test_a_run_can_be_cancelled_at_any_point(teacher, moment):
    control, runner = teacher.control, teacher.runner
    if moment == "preparing":
        start, runner.start = runner.start, lambda job, **calls: jobs.append((job, calls))
        jobs = []
        control.run()
        assert isinstance(jobs[0][0], ThreadJob)
        assert control.state is TeacherState.RUNNING
        control.cancel()
        runner.start = start
        jobs[0][1]["done"](None)  # it was too late to stop it
    else:
        control.run()
        if moment == "landed":
            begin_on_disk(teacher)
            runner.children[0].tell(TileDone(0, 0, 64, 64))
        control.cancel()
        assert control.state is TeacherState.STOPPING
        runner.children[0].failed(JobCancelled("Cancelled."))
    runner.settle()
    assert len(runner.children) == (moment != "preparing")
    assert control.state is (TeacherState.PARTIAL if moment == "landed" else TeacherState.READY)
    control.run()
    assert len(runner.children) == 1 + (moment != "preparing")


def test_a_study_that_cannot_be_written_is_told_and_the_teacher_can_be_run_again(teacher, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    teacher.control.study_folder = blocked / "study"
    teacher.control.run()
    assert not teacher.runner.children
    assert teacher.control.state is TeacherState.READY
    assert str(blocked) in notification_manager.records[-1].message
    teacher.control.choose_study(teacher.study)
    teacher.control.run()
    assert len(teacher.runner.children) == 1


@pytest.mark.parametrize("moved", [False, True])
def test_another_model_runs_with_the_mask_settings_of_its_card_unless_they_are_moved(teacher, tmp_path, moved):
    control = teacher.control
    control.run()
    entry, run = begin_on_disk(teacher)
    with run.replace_pseudo_mask():
        pass
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0, "support": 0.1})
    teacher.runner.children[0].done(SimpleNamespace(threshold=0.5, smoothing_um=0.0, support=0.1))
    teacher.runner.settle()
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED["bundled"], folder)
    card = replace(read_card(folder), threshold=0.3, support=0.2)
    (folder / CARD_NAME).write_text(card.to_json())
    control.choose_model(str(folder))
    assert control.mask_settings == MaskSettings(0.5, 0.0, 0.1)  # of what is on screen
    if moved:
        control.set_mask(threshold=0.7)
    control.run()
    asked = teacher.runner.children[1].request
    assert (asked.threshold, asked.support) == ((0.7, 0.1) if moved else (0.3, 0.2))


@pytest.mark.parametrize("made_by", ["imported mask.png 0123456789ab", "another teacher 0123456789ab"])
def test_after_a_mask_of_other_making_the_model_runs_with_the_settings_of_its_card(teacher, made_by):
    control, card = teacher.control, read_card("bundled")
    control.run()
    control.cancel()
    teacher.runner.children[0].failed(JobCancelled("Cancelled."))
    entry = Study.open(teacher.study).slides()[0]
    run = entry.new_run({"model": made_by})
    with run.replace_pseudo_mask():
        pass
    entry.complete_run(run, {"threshold": 0.35, "smoothing_um": 0.0, "support": 0.0})
    control.choose_study(teacher.study)
    teacher.runner.settle()
    assert control.mask_settings == MaskSettings(0.35)  # of what is on screen
    control.run()
    asked = teacher.runner.children[1].request
    assert MaskSettings(asked.threshold, asked.smoothing_um, asked.support) == card.mask_settings


def test_a_models_own_result_keeps_the_settings_that_a_person_chose_for_it(teacher):
    control, card = teacher.control, read_card("bundled")
    control.run()
    control.cancel()
    teacher.runner.children[0].failed(JobCancelled("Cancelled."))
    entry = Study.open(teacher.study).slides()[0]
    run = entry.new_run({"model": f"{card.name} 0123456789ab"})
    with run.replace_pseudo_mask():
        pass
    entry.complete_run(run, {"threshold": 0.35, "smoothing_um": 0.0, "support": 0.0})
    control.choose_study(teacher.study)
    teacher.runner.settle()
    control.run()
    assert teacher.runner.children[1].request.threshold == 0.35
