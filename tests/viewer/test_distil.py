"""The "Distil" controller without a window: states, news, what is shown and what it is called, pinning and taking."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager

from napari_histodistill.distill import Begun, Landed, LeftOut, Preview
from napari_histodistill.distill.rounds import Round, Rounds
from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import JobCancelled
from napari_histodistill.mil.settings import Epoch
from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.predict import TileDone
from napari_histodistill.predict.audit import OWN
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import NORMAL, TUMOUR
from napari_histodistill.study import SlideLabel, Study, StudySlide
from napari_histodistill.viewer.distil import DistilState, Scope
from napari_histodistill.viewer.guide import next_step
from napari_histodistill.viewer.layers import Role, add_layer, slide_layer
from napari_histodistill.viewer.shown import shown_prediction
from napari_histodistill.viewer.slides import SlideViews

SHAPE = (550, 752)


@pytest.fixture
def study(mark, tmp_path, monkeypatch):
    """Tissue everywhere, tumour where x is in the right half."""
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    with open_slide(mark.path) as slide:
        entry = Study.create(tmp_path / "study").add_slide(slide, target_mpp=2.0)
    entry.save_tissue(np.ones((220, 300), np.uint8), settings={})
    write(entry.new_run({}), entry, slice(376, None))
    return tmp_path / "study"


def write(run, entry, tumour):
    """Fill a run or prediction with tumour in some columns and complete it."""
    probability = np.zeros(SHAPE, np.uint8)
    probability[:, tumour] = 255
    run.probability.write(0, 0, probability)
    run.record.finished = {0, 1, 2, 3}
    with run.replace_pseudo_mask():
        pass
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})


def raising(error):
    """A function that raises, whatever it is called with."""

    def call(*_args, **_kwargs):
        raise error

    return call


class Session:
    """A viewer model with the slide open in it, and a child that distils."""

    def __init__(self, path, study, runner):
        self.study, self.runner, self.viewer = study, runner, ViewerModel()
        self.views = SlideViews(self.viewer, self.runner)
        add_layer(self.viewer, slide_layer(open_slide(path)))
        self.view = self.views.current
        self.view.teacher.choose_study(study)
        self.control = self.view.distil
        self.runner.pass_time()

    @property
    def entry(self):
        return Study.open(self.study).slides()[0]

    @property
    def layer(self):
        return self.view.layer(Role.PREDICTION)

    @property
    def title(self):
        return self.layer.name

    @property
    def child(self):
        return self.runner.children[-1]

    def start(self):
        self.control.start()
        return self.child

    def rounds(self, distillation="0001") -> Rounds:
        """The distillation on disk, begun with a model of a few bytes if need be."""
        folder = self.study / "distillations" / distillation
        if (folder / "state.json").exists():
            return Rounds.open(folder)
        model = self.study / "model"
        model.mkdir(exist_ok=True)
        for name in ("model.json", "model.safetensors"):
            (model / name).write_text("teacher")
        return Rounds.begin(folder, model, {})

    def do(self, outcome, tumour=slice(0, 100), distillation="0001", *, predict=True, news=True, epochs=()):
        """Do a round as the child would: on disk, and with news of it."""
        rounds = self.rounds(distillation)
        number = rounds.next
        if news:
            self.child.tell(Begun(rounds.folder, number))
            self.child.tell(Epoch(1, 0.5, {"kd": 0.5}, None, 1.0))
        student = rounds.model(f"rounds/{number}")
        student.mkdir(parents=True)
        for name in ("model.json", "model.safetensors"):
            (student / name).write_text(f"student {number}")
        before = 0.5
        score = {"promoted": 0.6 + number / 100, "not better": 0.1, "unverified": None}[outcome]
        rounds.set_best_score(None if score is None else before)
        after, said = rounds.roles.after(f"rounds/{number}", score, always=False)
        assert said == outcome
        done = Round(number, "teacher", "", score, rounds.roles.score, outcome, list(epochs))
        rounds.finish(done, after)
        if news:
            self.child.tell(done)
        if predict:
            name = f"{distillation}-{number:04d}"
            write(self.entry.new_prediction(name, {}), self.entry, tumour)
            if news:
                self.child.tell(Landed(self.entry.fingerprint, name, TileDone(0, 0, *SHAPE)))
        self.runner.pass_time()
        return done

    def finish(self):
        self.child.done(SimpleNamespace())
        self.runner.pass_time()


@pytest.fixture
def session(mark, study, new_parent_runner):
    session = Session(mark.path, study, new_parent_runner())
    yield session
    session.views.close()


# States and reasons


def test_without_a_result_the_reason_says_what_to_do(mark, tmp_path, monkeypatch, new_parent_runner):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    session = Session(mark.path, tmp_path / "none", new_parent_runner())
    assert session.control.state is DistilState.NO_RESULT
    assert "run the teacher on this slide first" in session.control.reason
    session.control.start()
    session.control.stop()
    session.control.pause()
    session.control.take(1)
    assert not session.runner.children
    session.views.close()


def test_a_result_that_is_not_whole_must_be_finished_first(mark, study, new_parent_runner):
    entry = Study.open(study).slides()[0]
    run = entry.run
    run.record.state = "partial"
    run.save()
    session = Session(mark.path, study, new_parent_runner())
    assert "resume it first" in session.control.reason
    session.control.start()
    assert not session.runner.children
    session.views.close()


def test_start_pause_go_on_and_stop(session):
    control = session.control
    assert (control.state, control.reason) == (DistilState.READY, "")
    child = session.start()
    assert control.state is DistilState.RUNNING
    control.start()
    assert len(session.runner.children) == 1
    control.pause()
    assert (control.state, child.commands) == (DistilState.PAUSED, ["pause"])
    control.pause()
    assert (control.state, child.commands) == (DistilState.RUNNING, ["pause", "resume"])
    session.do("unverified", predict=False)
    assert control.state is DistilState.PREDICTING
    child.tell(Begun(session.rounds().folder, 2))
    assert control.state is DistilState.RUNNING
    control.stop()
    assert (control.state, child.commands[-1]) == (DistilState.STOPPING, "cancel")
    child.tell(Epoch(1, 9.0, {}, None, 1.0))
    assert len(control.epochs) == 1  # what comes after a stop is dropped
    child.failed(JobCancelled("Cancelled."))
    assert control.state is DistilState.READY
    assert control.progress is None


@pytest.mark.parametrize("moment", ["started", "begun", "epoch", "preview", "judged", "landed"])
def test_a_stop_at_any_point_shows_what_the_study_holds(session, moment):
    session.start()
    session.do("unverified", slice(0, 300))
    session.finish()
    child, folder = session.start(), session.rounds().folder
    moments = ["started", "begun", "epoch", "preview", "judged", "landed"]
    news = [
        Begun(folder, 2),
        Epoch(1, 0.5, {"kd": 0.5}, None, 1.0),
        Preview(session.entry.fingerprint, 0, 0, np.full((512, 512), 255, np.uint8), 2, 1),
    ]
    for each in news[: moments.index(moment)]:
        child.tell(each)
    if moment in {"judged", "landed"}:
        session.do("unverified", slice(0, 100), predict=moment == "landed")
    session.control.stop()
    child.tell(Landed(session.entry.fingerprint, "0001-0002", TileDone(0, 0, *SHAPE)))
    child.failed(JobCancelled("Cancelled."))
    session.runner.pass_time()
    assert (session.control.state, session.control.progress) == (DistilState.READY, None)
    titles = {
        "judged": "prediction: round 2, unverified; this slide is not all predicted",
        "landed": "prediction: round 2, unverified",
    }
    assert session.title == titles.get(moment, "prediction: round 1, unverified")
    tumour = {"judged": 0, "landed": 100}.get(moment, 300)
    assert (session.layer.data[:, :tumour] == TUMOUR).all()
    assert not (session.layer.data[:, tumour:] == TUMOUR).any()
    assert session.start() is not child  # and it goes on


def test_the_request_is_a_snapshot_of_what_was_chosen(session):
    control = session.control
    control.settings.rounds, control.settings.recipe, control.settings.scope = 2, "paper", Scope.STUDY
    request = session.start().request
    control.settings.rounds = 9
    assert (request.study, request.rounds, request.recipe.crop) == (session.study, 2, 256)
    assert (request.learn, request.show) == ((), (session.entry.fingerprint,))
    assert request.window is None
    session.child.done(None)
    control.settings.scope = Scope.REGION
    y, x, height, width = session.start().request.window
    assert 0 <= y < y + height <= SHAPE[0]
    assert 0 <= x < x + width <= SHAPE[1]


def test_what_was_painted_is_on_disk_when_the_rounds_begin(session):
    session.view.layer(Role.PSEUDO_MASK).paint((50, 50), TUMOUR)
    session.start()
    assert session.entry.corrections()[50:51, 50:51] == TUMOUR


def test_advice_asks_for_a_label_and_for_negatives_until_there_are(session):
    control = session.control
    assert "holds tumour" in control.advice
    assert "paint some normal tissue" in control.advice
    control.set_label(SlideLabel.TUMOUR)
    assert session.entry.label is SlideLabel.TUMOUR
    assert "holds tumour" not in control.advice
    layer = session.view.layer(Role.PSEUDO_MASK)
    layer.paint((500, 700), NORMAL)
    session.runner.pass_time()
    assert control.advice == ""


def test_negatives_from_before_and_from_other_slides_count(session, mark, study):
    session.entry.save_corrections_region(0, 0, np.full((4, 4), NORMAL, np.uint8))
    session.control._load()
    assert "paint" not in session.control.advice


def test_a_slide_that_has_moved_is_said_before_and_once_while_it_is_left_out(session, tmp_path):
    with open_slide(session.view.slide.path) as slide:
        slide.__dict__["fingerprint"] = "another"
        other = Study.open(session.study).add_slide(slide, target_mpp=2.0)
    other.known_path = tmp_path / "gone.svs"
    other.save()
    control = session.control
    control.reload()
    assert "gone.svs" not in control.advice
    control.settings.scope = Scope.STUDY
    assert "gone.svs is not where it was and is left out" in control.advice
    told = []
    notification_manager.notification_ready.connect(lambda notice: told.append(notice.message))
    child = session.start()
    for _ in range(2):  # every round tells it
        child.tell(LeftOut(("gone.svs",)))
    assert told == [str(LeftOut(("gone.svs",)))]


def test_a_mask_of_an_earlier_model_is_said(session, tmp_path):
    session.view.teacher.choose_model("bundled")
    assert "earlier" in session.control.advice


def test_after_a_round_became_the_mask_the_first_teacher_is_still_what_it_was(session):
    session.start()
    session.do("unverified", slice(0, 200))
    session.finish()
    session.control.adopt(1)
    session.runner.pass_time()
    session.control.pin(0)
    session.runner.pass_time()
    assert session.title == "prediction: the first teacher (pinned)"
    assert (session.layer.data[:, 376:] == TUMOUR).all()
    assert (session.layer.data[:, :376] == NORMAL).all()
    session.control.adopt(0)
    session.runner.pass_time()
    assert (session.view.teacher.result.mask.data[:, 376:] == TUMOUR).all()
    assert (session.view.teacher.result.mask.data[:, :376] == NORMAL).all()


def test_a_slider_moved_just_before_a_round_becomes_the_mask_spoils_nothing(session):
    session.start()
    session.do("unverified", slice(0, 200))
    session.finish()
    told = []
    notification_manager.notification_ready.connect(lambda notice: told.append(notice.message))
    before = session.view.teacher.result
    session.view.teacher.set_mask(threshold=0.7)
    before._mask_all()  # what is written of it waits for the slider to rest
    session.control.adopt(1)
    session.runner.pass_time()
    assert told == []
    assert not before.run.folder.exists()
    assert (session.view.teacher.result.mask.data[:, :200] == TUMOUR).all()


def test_a_round_becomes_the_mask_as_it_is_on_screen(session):
    session.start()
    session.do("unverified", slice(0, 300))
    session.finish()
    session.view.teacher.set_mask(threshold=0.4, smoothing_um=0.0, support=0.9)
    session.runner.pass_time()
    seen = session.layer.data.copy()
    assert not (seen[:, 280:300] == TUMOUR).any()
    session.control.adopt(1)
    session.runner.pass_time()
    np.testing.assert_array_equal(session.view.teacher.result.mask.data, seen)
    assert session.view.teacher.mask_settings == MaskSettings(0.4, 0.0, 0.9)
    np.testing.assert_array_equal(session.entry.pseudo_mask()[:], seen)


def test_a_comparison_follows_edited_tissue_and_the_support_of_the_mask(session):
    session.start()
    session.do("unverified", slice(0, 100))
    session.do("unverified", slice(0, 300))
    session.finish()
    comparison = session.view.comparison
    comparison.compare(1, 2)
    session.runner.pass_time()
    assert (comparison.data[:, 100:300] == 1).all()
    tissue = np.ones((220, 300), np.uint8)
    tissue[110:] = 0
    session.view.teacher.result.tissue_changed(tissue)
    session.runner.pass_time()
    assert (comparison.data[:270, 100:300] == 1).all()
    assert not comparison.data[280:].any()
    session.view.teacher.set_mask(support=0.9)  # tumour needs it on both sides of its edge
    session.runner.pass_time()
    assert not comparison.data[:, 280:300].any()
    assert (comparison.data[:200, 120:180] == 1).all()


def test_rounds_that_are_still_being_read_do_not_outlive_the_result(session, monkeypatch):
    session.start()
    session.do("unverified")
    session.finish()
    run, held = session.runner.start, []
    monkeypatch.setattr(session.runner, "start", lambda job, **callbacks: held.append((job, callbacks)))
    session.control.reload()
    session.view.teacher.release()  # as an import does
    for job, callbacks in held:
        run(job, **callbacks)
    assert session.control.history.rounds == ()


def test_a_label_is_written_in_the_background_and_is_there_before_rounds_begin(session, monkeypatch):
    control, run = session.control, session.runner.start
    held = []
    monkeypatch.setattr(session.runner, "start", lambda job, **callbacks: held.append((job, callbacks)))
    control.set_label(SlideLabel.TUMOUR)
    control.set_label(SlideLabel.NORMAL)
    assert control.history.label is SlideLabel.NORMAL
    assert session.entry.label is SlideLabel.UNKNOWN
    control.reload()  # reads what is not written yet
    job, callbacks = held.pop()
    run(job, **callbacks)
    assert control.history.label is SlideLabel.NORMAL
    monkeypatch.undo()
    monkeypatch.setattr(type(held[0][0]), "wait", lambda job: run(job, **held[0][1]))
    control.start()
    assert session.entry.label is SlideLabel.NORMAL
    session.finish()
    assert control.history.label is SlideLabel.NORMAL


def test_a_label_that_cannot_be_written_is_told_and_the_study_s_is_shown(session, monkeypatch):
    told = []
    notification_manager.notification_ready.connect(lambda notice: told.append(notice.message))
    monkeypatch.setattr(StudySlide, "save", raising(HistodistillError("The disk is full: free space.")))
    session.control.set_label(SlideLabel.NORMAL)
    assert told == ["The disk is full: free space."]
    assert session.control.history.label is SlideLabel.UNKNOWN


def test_no_round_becomes_the_mask_while_the_teacher_runs_or_the_model_learns(session):
    session.start()
    session.do("unverified", slice(0, 200))
    assert "learning" in session.control.adopt_reason
    session.finish()
    assert session.control.adopt_reason == ""
    session.view.tissue.find()
    session.runner.pass_time()
    session.view.teacher.run()
    assert "teacher is running" in session.control.adopt_reason
    session.control.adopt(1)
    assert "adopted" not in session.entry.run.record.settings


def test_the_first_teacher_is_known_after_a_round_was_taken_as_the_mask(session):
    session.start()
    session.do("unverified", slice(0, 200))
    session.finish()
    assert shown_prediction(session.view).teacher == OWN
    session.control.adopt(1)
    session.runner.pass_time()
    shown = shown_prediction(session.view)
    assert (shown.name, shown.teacher) == ("0001-0001", "0001-0000")
    session.control.pin(0)
    session.runner.pass_time()
    shown = shown_prediction(session.view)
    assert (shown.name, shown.teacher) == ("0001-0000", None)  # not the mask, which is round 1 by now


def test_two_rounds_are_compared_where_nothing_was_corrected(session):
    session.start()
    for tumour in (100, 200):
        session.do("unverified", slice(0, tumour))
    comparison = session.view.comparison
    comparison.compare(2, 1)
    session.runner.pass_time()
    layer = session.view.layer(Role.COMPARISON)
    assert (layer.name, comparison.rounds) == ("difference: round 2 against round 1", (1, 2))
    assert (layer.data[:, 100:200] == 1).all()
    assert np.count_nonzero(layer.data) == 100 * SHAPE[0]
    session.view.layer(Role.PSEUDO_MASK).paint((300, 150), NORMAL)
    assert layer.data[300, 150] == 0
    comparison.compare(0, 1)
    session.runner.pass_time()
    layer = session.view.layer(Role.COMPARISON)
    assert layer.name == "difference: round 1 against the first teacher"
    assert (layer.data[:, :100] == 1).all()
    assert (layer.data[:, 376:] == 2).all()
    comparison.compare(1, 7)
    assert "no prediction of round 7" in notification_manager.records[-1].message
    assert comparison.layer is None
    session.runner.pass_time()
    assert (layer.name, layer.visible, layer.data.any()) == ("comparison (off)", False, False)
    comparison.compare(1, 2)
    session.runner.pass_time()
    assert comparison.layer is session.view.layer(Role.COMPARISON) is layer  # the same one each time
    assert layer.visible
    untouched = session.view.teacher.result.mask.hand[:, 100:200] == 0
    np.testing.assert_array_equal(layer.data[:, 100:200], untouched)
    session.view.teacher.release()
    assert comparison.layer is None
    assert not layer.visible


# What is shown, and its name


def test_titles_say_what_is_shown(session):
    """The cases of the issue."""
    session.start()
    session.do("promoted")
    assert session.title == "prediction: round 1, promoted"
    session.do("not better", slice(0, 50))
    assert session.title == "prediction: round 2 not better, showing round 1"
    assert session.control.shown == 1
    session.do("promoted", slice(0, 30))
    assert session.title == "prediction: round 3, promoted"
    session.do("not better", slice(0, 50))
    assert session.title == "prediction: round 4 not better, showing round 3"
    assert (session.layer.data[:, :30] == TUMOUR).all()
    assert (session.layer.data[:, 30:] == NORMAL).all()
    session.do("unverified")
    assert session.title == "prediction: round 5, unverified"
    session.finish()
    assert session.title == "prediction: round 5, unverified"
    assert session.control.history.best == 3


def test_where_no_round_is_better_the_teacher_is_shown(session):
    session.start()
    session.do("not better")
    assert session.title == "prediction: round 1 not better, showing the teacher"
    assert (session.layer.data[:, 376:] == TUMOUR).all()
    assert session.control.on_screen.title_of(session.control.shown) == session.title


def test_a_round_that_is_pinned_stays_until_the_user_follows_again(session):
    session.start()
    session.do("unverified", slice(0, 100))
    session.control.pin(1)
    assert session.title == "prediction: round 1, unverified (pinned)"
    session.do("unverified", slice(0, 200))
    assert (session.title, session.control.shown) == ("prediction: round 1, unverified (pinned)", 1)
    assert (session.layer.data[:, 100:] == NORMAL).all()
    session.control.pin(None)
    session.runner.pass_time()
    assert session.title == "prediction: round 2, unverified"
    assert (session.layer.data[:, :200] == TUMOUR).all()
    session.control.pin(0)
    session.runner.pass_time()
    assert session.title == "prediction: the first teacher (pinned)"
    assert (session.layer.data[:, 376:] == TUMOUR).all()


def test_the_round_that_a_person_takes_is_shown_and_teaches(session):
    session.start()
    for tumour in (100, 200, 300):
        session.do("unverified", slice(0, tumour))
    session.control.take(1)
    assert session.control.history.best == 0  # not while rounds are done
    session.finish()
    session.control.take(1)
    session.runner.pass_time()
    assert session.title == "prediction: round 1, taken"
    assert (session.layer.data[:, 100:] == NORMAL).all()
    assert session.rounds().roles.teacher == "rounds/1"
    assert (session.rounds().folder / "model.json").read_text() == "student 1"
    session.control.take(0)
    session.runner.pass_time()
    assert session.title == "prediction: the first teacher, taken"
    assert session.rounds().roles.best == "teacher"
    session.start()
    session.do("unverified")
    assert session.title == "prediction: round 4, unverified"


def test_a_round_becomes_the_mask_and_corrections_stay(session):
    session.view.teacher.result.mask.paint((slice(0, 4), slice(0, 4)), np.ones((4, 4), bool), NORMAL, "brush")
    session.view.teacher.result.mask.commit()
    session.start()
    session.do("unverified", slice(0, 200))
    session.control.adopt(1)
    assert session.entry.predictions()
    assert "adopted" not in session.entry.run.record.settings  # not while rounds are done
    session.finish()
    session.control.adopt(1)
    session.runner.pass_time()
    assert session.entry.run.record.settings["adopted"].endswith("-0001")
    mask = session.view.teacher.result.mask.data
    assert (mask[10:, :200] == TUMOUR).all()
    assert (mask[10:, 376:] == NORMAL).all()
    assert (mask[:4, :4] == NORMAL).all()


def test_taking_is_refused_in_words_while_another_program_does_rounds_or_the_model_is_gone(session):
    session.start()
    session.do("unverified")
    session.finish()
    with Study.open(session.study).distillation_lock():
        session.control.take(1)
    assert "in use by process" in notification_manager.records[-1].message
    shutil.rmtree(session.rounds().folder / "rounds")
    session.control.take(1)
    assert "cannot be read" in notification_manager.records[-1].message
    assert session.rounds().roles.best == "teacher"


def test_corrected_pixels_never_change(session):
    session.view.layer(Role.PSEUDO_MASK).paint((300, 50), NORMAL)
    session.runner.pass_time()
    session.start()
    for tumour in (100, 200):
        session.do("unverified", slice(0, tumour))
        assert session.layer.data[300, 50] == NORMAL
        assert session.layer.data[10, 50] == TUMOUR
    session.view.layer(Role.PSEUDO_MASK).paint((10, 50), NORMAL)
    assert session.layer.data[10, 50] == NORMAL


def test_the_first_preview_is_marked_and_goes_when_the_round_is_stopped(session):
    child = session.start()
    child.tell(Begun(session.rounds().folder, 1))
    preview = Preview(session.entry.fingerprint, 0, 0, np.full((512, 512), 255, np.uint8), 1, 1)
    child.tell(Preview("another slide", 0, 0, preview.probability, 1, 1))
    assert session.layer is None
    child.tell(preview)
    assert session.title == "preview of round 1 (still learning)"
    assert (session.layer.data[:512, :512] == TUMOUR).all()
    session.control._load()
    assert session.layer is not None
    session.control.stop()
    child.failed(JobCancelled("Cancelled."))
    assert session.layer is None


def test_a_round_that_this_slide_has_no_prediction_of_is_said(session, mark, study):
    session.start()
    session.do("unverified", predict=False)
    assert session.title == "prediction: round 1, unverified"  # about to land
    session.control.stop()
    session.child.failed(JobCancelled("Cancelled."))
    session.runner.pass_time()
    assert session.title == "prediction: round 1, unverified; this slide is not all predicted"


def test_a_layer_that_the_user_removed_comes_back(session):
    session.start()
    session.do("unverified")
    session.viewer.layers.remove(session.layer)
    session.control.pin(1)
    session.runner.pass_time()
    assert (session.layer.data[:, :100] == TUMOUR).all()


def test_a_new_threshold_changes_prediction_and_difference(session):
    session.start()
    name = "0001-0001"
    session.do("unverified", predict=False)
    run = session.entry.new_prediction(name, {})
    run.probability.write(0, 0, np.full(SHAPE, 100, np.uint8))
    run.record.finished = {0, 1, 2, 3}
    session.entry.complete_run(run, {})
    session.child.tell(Landed(session.entry.fingerprint, name, TileDone(0, 0, *SHAPE)))
    session.runner.pass_time()
    session.control.prediction.show_difference(on=True)
    session.runner.pass_time()
    difference = session.view.layer(Role.DIFFERENCE)
    assert (session.layer.data == NORMAL).all()
    assert (difference.data[:, 376:] == 2).all()
    session.view.teacher.result.set(MaskSettings(0.2, 0.0))
    session.runner.pass_time()
    assert (session.layer.data == TUMOUR).all()
    assert (difference.data[:, :376] == 1).all()
    assert (difference.data[:, 376:] == 0).all()
    session.control.prediction.show_difference(on=False)
    assert session.control.prediction.difference is None
    session.runner.pass_time()
    assert (difference.name, difference.visible, difference.data.any()) == ("difference (off)", False, False)
    session.control.prediction.show_difference(on=True)
    session.runner.pass_time()
    assert session.control.prediction.difference is session.view.layer(Role.DIFFERENCE) is difference
    assert (difference.name, difference.visible) == ("difference", True)


# Rounds that are not those on screen


def test_another_teacher_begins_another_history(session):
    session.start()
    for _ in range(3):
        session.do("unverified", slice(0, 300))
    session.control.pin(3)
    session.finish()
    session.start()
    session.do("unverified", slice(0, 100), distillation="0002")
    assert [r.number for r in session.control.history.rounds] == [1]
    assert session.title == "prediction: round 1, unverified"
    assert (session.layer.data[:, 100:] == NORMAL).all()


def test_epochs_know_their_round(session):
    session.start()
    session.do("unverified")
    session.do("unverified")
    assert [number for number, _ in session.control.epochs] == [1, 2]


def test_epochs_of_a_round_that_was_stopped_go_when_it_begins_anew_or_another_study_comes(session, tmp_path):
    for _ in range(2):
        child = session.start()
        child.tell(Begun(session.rounds().folder, 1))
        child.tell(Epoch(1, 0.5, {"kd": 0.5}, None, 1.0))
        assert len(session.control.epochs) == 1
        session.control.stop()
        child.failed(JobCancelled("Cancelled."))
        session.runner.pass_time()
    shutil.copytree(session.study, tmp_path / "another")
    session.view.teacher.choose_study(tmp_path / "another")
    session.runner.pass_time()
    assert session.control.history.rounds == ()
    assert session.control.epochs == []


def test_epochs_of_rounds_on_disk_are_there_after_a_restart(mark, study, session, new_parent_runner):
    session.start()
    done = session.do("unverified", epochs=[asdict(Epoch(number, 0.5, {"kd": 0.5}, None, 1.0)) for number in (1, 2)])
    session.control._load()
    assert len(done.epochs) == len(session.control.epochs) == 2  # what was told of them is not counted again
    session.finish()
    session.views.close()
    again = Session(mark.path, study, new_parent_runner())
    assert [(number, epoch.number) for number, epoch in again.control.epochs] == [(1, 1), (1, 2)]
    again.views.close()


def test_where_the_last_round_is_no_better_nobody_is_told_to_take_it(session):
    session.start()
    session.do("unverified")
    session.finish()
    assert "take it" in next_step("Distil", session.view)
    session.start()
    session.do("not better")
    session.finish()
    assert "take" not in next_step("Distil", session.view)
    assert "correct more" in next_step("Distil", session.view)


def test_news_of_a_round_that_was_read_from_disk_do_not_count_it_twice(session):
    child = session.start()
    child.tell(Begun(session.rounds().folder, 1))
    done = session.do("unverified", news=False)
    session.control._load()
    child.tell(done)
    assert [r.number for r in session.control.history.rounds] == [1]


def test_late_news_of_a_job_that_is_over_are_dropped(session):
    child = session.start()
    session.do("unverified")
    session.finish()
    child.tell(Epoch(7, 0.1, {}, None, 1.0))
    child.failed(HistodistillError("late"))
    assert len(session.control.epochs) == 1
    assert session.control.state is DistilState.READY


def test_a_result_that_is_replaced_meanwhile_shows_the_rounds_too(session):
    session.start()
    session.do("unverified", slice(0, 100))
    teacher = session.view.teacher
    teacher.release()  # as an import does
    assert session.layer is None
    assert session.control.state.busy
    session.do("unverified", slice(0, 200))
    teacher.choose_study(session.study)
    session.runner.pass_time()
    assert session.title == "prediction: round 2, unverified"
    assert (session.layer.data[:, :200] == TUMOUR).all()


def test_another_study_ends_the_rounds_of_the_one_before(session, tmp_path):
    child = session.start()
    session.do("unverified")
    session.view.teacher.choose_study(tmp_path / "other")
    assert child.commands == ["cancel"]
    child.tell(Begun(tmp_path, 5))
    assert session.control.history.rounds == ()
    assert session.control.state is DistilState.NO_RESULT


def test_a_study_that_is_deleted_ends_in_words_and_not_in_an_exception(session):
    child = session.start()
    session.do("unverified")
    fingerprint = session.entry.fingerprint
    shutil.rmtree(session.study)
    child.tell(Landed(fingerprint, "0001-0001", TileDone(0, 0, 10, 10)))
    child.failed(HistodistillError("The study is gone."))
    session.runner.pass_time()
    messages = [record.message for record in notification_manager.records]
    assert any("The study is gone." in message for message in messages)
    assert not session.control.state.busy
    session.control.pin(1)
    session.control.take(1)


def test_closing_the_slide_ends_the_rounds(session):
    child = session.start()
    session.do("unverified")
    session.viewer.layers.clear()
    session.runner.pass_time()
    assert child.commands == ["cancel"]
    child.tell(Epoch(1, 0.5, {}, None, 1.0))
    assert len(session.viewer.layers) == 0


def test_the_window_never_imports_torch():
    modules = "napari_histodistill.viewer.distil, napari_histodistill.widgets.distil"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
