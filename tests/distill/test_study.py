"""Rounds on a study with the bundled teacher: what is told, what is written, what a person sets, what a cut leaves."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_histodistill.distill import Begun, Landed, LeftOut, Preview, StudyRequest, distill_study, find_recipe
from napari_histodistill.distill.rounds import Round, Rounds, RoundsError
from napari_histodistill.distill.slides import NothingToLearnError, StudyMaterial
from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import InlineControl, JobCancelled, ProcessJob, Progress
from napari_histodistill.mil.settings import Epoch
from napari_histodistill.nets import read_card
from napari_histodistill.nets.card import CARD_NAME, WEIGHTS_NAME, model_folder
from napari_histodistill.predict import PredictRequest, predict_slide
from napari_histodistill.slide import SlideError
from napari_histodistill.slide.labels import NORMAL, TUMOUR
from napari_histodistill.slide.tissue import TissueSettings
from napari_histodistill.study import RunState, SlideLabel, Study, StudyError, StudySlide

from .conftest import DARK, make_study, texture
from .conftest import correct as set_by_hand

RECIPE = find_recipe("default")
RECIPE = replace(RECIPE, targets=replace(RECIPE.targets, views=1), batch=2, crop=64)
DEFAULTS = {"rounds": 1, "epochs": 1, "recipe": RECIPE, "most_tiles": 2, "device": "cpu", "threads": 1}


class StandIn:
    """A teacher for the bundled one's card that calls dark pixels tumour."""

    device = "cpu"

    def __init__(self) -> None:
        self.card = replace(read_card("bundled"), stain_normalisation=None)

    def predict(self, images):
        return (np.abs(images - DARK.astype(float)).sum(-1) < 60).astype(np.float32)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def plain_teacher(tmp_path_factory) -> Path:
    """The bundled teacher, taking colours as they are: fitting them is most of a small round."""
    folder = tmp_path_factory.mktemp("plain")
    shutil.copy(model_folder("bundled") / WEIGHTS_NAME, folder)
    (folder / CARD_NAME).write_text(StandIn().card.to_json(), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _teach(plain_teacher, monkeypatch):
    monkeypatch.setitem(DEFAULTS, "teacher", str(plain_teacher))


@pytest.fixture
def entry(small_path, tmp_path) -> StudySlide:
    """A slide of 134 x 200 working-grid px that the stand-in was run on; it holds tumour."""
    folder = tmp_path / "study"
    tissue = TissueSettings(threshold_offset=-0.01)  # not the default, as a user chose it
    predict_slide(PredictRequest(small_path, folder, tissue=tissue, threads=1), InlineControl(), StandIn())
    entry = Study.open(folder).slides()[0]
    entry.label = SlideLabel.TUMOUR
    entry.save()
    return entry


def request_for(entry: StudySlide, **changes: object) -> StudyRequest:
    return StudyRequest(entry.folder.parents[1], **{**DEFAULTS, **changes})


def saved(folder: Path) -> dict[str, bytes]:
    """Everything in a study but what a round under way leaves for `resume`, and locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and path.name not in {"checkpoint.pt", "round.json"}
    }


def test_a_round_tells_what_it_does_and_leaves_model_and_prediction(entry, recorder):
    set_by_hand(entry, (0, 0, 30, 30), TUMOUR)
    before = entry.tissue()
    hand = entry.corrections()[:]
    result = distill_study(request_for(entry, rounds=2), recorder)
    told = (Begun, Preview, Epoch, Round, Landed)
    kinds = [type(payload) for payload in recorder.payloads if isinstance(payload, told)]
    first = kinds[: kinds.index(Begun, 1)]
    assert tuple(kind for i, kind in enumerate(first) if i == 0 or kind is not first[i - 1]) == told
    assert kinds.count(Round) == 2
    assert [p.round for p in recorder.payloads if isinstance(p, Begun)] == [1, 2]
    assert result.folder == entry.folder.parents[1] / "distillations" / "0001"
    assert [r.outcome for r in result.rounds] == ["unverified", "unverified"]  # nothing to judge by
    assert Rounds.open(result.folder).roles.best == "teacher"
    assert entry.predictions() == ["0001-0001", "0001-0002"]
    for name in entry.predictions():
        run = entry.prediction(name)
        assert run.record.state is RunState.COMPLETE
        assert run.probability.levels[0][:].any()
        _, shown = next(entry.mask_blocks(run))
        assert (shown[:30, :30] == TUMOUR).all()
        landed = [p for p in recorder.payloads if isinstance(p, Landed) and p.prediction == name]
        assert landed
        assert {p.fingerprint for p in landed} == {entry.fingerprint}
    np.testing.assert_array_equal(entry.corrections()[:], hand)
    after = entry.tissue()
    assert (after.settings, after.edited) == (before.settings, before.edited)
    np.testing.assert_array_equal(after.mask, before.mask)
    assert len(entry.runs()) == 1


class Judge:
    """Evidence with scores given beforehand."""

    name = "given"

    def __init__(self, *scores: float) -> None:
        self._scores = iter(scores)

    def score(self, _model) -> float:
        return next(self._scores)


def test_with_evidence_the_better_student_is_promoted_and_the_worse_is_not(entry, recorder, monkeypatch):
    judge = Judge(0.5, 0.7, 0.6, 0.55)  # teacher, student 1; the best again on what is new, student 2
    monkeypatch.setattr(StudyMaterial, "evidence", lambda _self: judge)
    result = distill_study(request_for(entry, rounds=2), recorder)
    assert [(r.outcome, r.teacher, r.best_before) for r in result.rounds] == [
        ("promoted", "teacher", 0.5),
        ("not better", "rounds/1", 0.6),
    ]
    rounds = Rounds.open(result.folder)
    assert (rounds.roles.best, rounds.roles.score) == ("rounds/1", 0.6)
    weights = [(result.folder / name / "model.safetensors").read_bytes() for name in (".", "rounds/1")]
    assert weights[0] == weights[1]


def test_corrections_that_are_made_during_a_round_are_in_the_next(entry, monkeypatch):
    seen = []
    original = StudyMaterial.material

    def spy(self, control):
        material = original(self, control)
        seen.append(sum(int(np.count_nonzero(place == NORMAL)) for place in material.set_by_hand))
        return material

    def paint(progress: Progress) -> None:
        if isinstance(progress.payload, Epoch) and len(seen) == 1:
            set_by_hand(entry, (20, 20, 100, 60), NORMAL)

    monkeypatch.setattr(StudyMaterial, "material", spy)
    monkeypatch.setattr("napari_histodistill.distill.slides.is_held_out", lambda *_: False)
    distill_study(request_for(entry, rounds=2), InlineControl(paint))
    assert seen[0] == 0
    assert seen[1] > 0


def cancel_at(kind: type):
    """A control that is cancelled as soon as a payload of a kind comes."""

    def watch(progress: Progress) -> None:
        if isinstance(progress.payload, kind):
            control.cancel()

    control = InlineControl(watch)
    return control


@pytest.mark.parametrize("moment", [Begun, Epoch])
def test_a_round_that_was_cut_changes_nothing_that_was_saved(entry, recorder, moment, monkeypatch):
    judge = Judge(0.5, 0.7, 0.4, 0.3, 0.2, 0.1)
    monkeypatch.setattr(StudyMaterial, "evidence", lambda _self: judge)
    request = request_for(entry)
    distill_study(request, recorder)
    before = saved(request.study)
    with pytest.raises(JobCancelled):
        distill_study(replace(request, epochs=2), cancel_at(moment))
    assert saved(request.study) == before


def test_a_cut_round_goes_on_to_the_same_weights_but_under_the_same_settings_only(entry, recorder):
    request = request_for(entry, epochs=2)
    with pytest.raises(JobCancelled):
        distill_study(request, cancel_at(Epoch))
    with pytest.raises(RoundsError, match="tiles was 2, now it is 5"):
        distill_study(replace(request, resume=True, most_tiles=5), recorder)
    resumed = distill_study(replace(request, resume=True), recorder)
    assert [epoch["number"] for epoch in resumed.rounds[0].epochs] == [1, 2]
    weights = (resumed.folder / "rounds/1/model.safetensors").read_bytes()
    again = entry.folder.parents[1] / "distillations"
    again.rename(again.with_name("elsewhere"))
    whole = distill_study(request, recorder)
    assert (whole.folder / "rounds/1/model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("moment", [Round, Landed])
def test_a_prediction_that_was_cut_is_made_whole_by_resuming(entry, recorder, moment):
    request = request_for(entry)
    with pytest.raises(JobCancelled):
        distill_study(request, cancel_at(moment))
    rounds = Rounds.open(Study.open(request.study).distillations()[-1])
    assert [r.number for r in rounds.rounds] == [1]  # the round itself was over
    distill_study(replace(request, resume=True), recorder)
    for name in ("0001-0001", "0001-0002"):
        assert entry.prediction(name).record.state is RunState.COMPLETE


def test_another_teacher_begins_another_distillation_and_the_first_stays(entry, recorder, tmp_path):
    first = distill_study(request_for(entry), recorder)
    other = distill_study(request_for(entry, teacher=str(first.folder / "rounds/1")), recorder)
    assert other.folder.name == "0002"
    assert other.rounds[0].number == 1
    assert [p.folder.name for p in recorder.payloads if isinstance(p, Begun)] == ["0001", "0002"]
    assert len(Rounds.open(first.folder).rounds) == 1
    assert entry.predictions() == ["0001-0001", "0002-0001"]


def test_a_round_goes_on_from_the_model_that_a_person_took(entry, recorder):
    request = request_for(entry)
    folder = distill_study(request, recorder).folder
    Rounds.open(folder).take(1)
    assert distill_study(request, recorder).rounds[0].teacher == "rounds/1"


def test_two_jobs_on_one_study_are_refused_in_words(entry, recorder):
    with (
        Study.open(entry.folder.parents[1]).distillation_lock(),
        pytest.raises(StudyError, match="in use by process"),
    ):
        distill_study(request_for(entry), recorder)


def test_a_teacher_at_work_on_the_slide_does_not_keep_the_prediction_waiting(entry, recorder):
    with entry.lock():
        distill_study(request_for(entry), recorder)
    assert entry.prediction("0001-0001").record.state is RunState.COMPLETE


def test_a_study_without_a_result_says_what_to_do(tmp_path, recorder):
    Study.create(tmp_path / "empty")
    with pytest.raises(NothingToLearnError, match="run the teacher"):
        distill_study(StudyRequest(tmp_path / "empty"), recorder)


def test_a_slide_that_is_gone_or_broken_is_said(entry, recorder, tmp_path):
    entry.known_path = tmp_path / "gone.tiff"
    entry.save()
    with pytest.raises(StudyError, match="no longer there"):
        distill_study(request_for(entry), recorder)
    entry.known_path.write_bytes(b"no slide")
    with pytest.raises(SlideError):
        distill_study(request_for(entry), recorder)


def add_another(entry: StudySlide, path: Path) -> StudySlide:
    """A second slide of the study, with a teacher's result."""
    image = texture((800, 1200), 3)
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3)
    return make_study(entry.folder.parents[1], path)


def test_a_slide_that_has_moved_is_left_out_of_all_slides_and_that_is_told(entry, recorder, tmp_path):
    other = add_another(entry, tmp_path / "other.tiff")
    (tmp_path / "other.tiff").rename(tmp_path / "moved.tiff")
    result = distill_study(request_for(entry), recorder)
    assert len(result.rounds) == 1
    told = {str(payload) for payload in recorder.payloads if isinstance(payload, LeftOut)}
    assert told == {"other.tiff is not where it was and is left out: relink it in the study to learn from it too."}
    assert entry.predictions() == ["0001-0001"]
    assert other.predictions() == []
    with pytest.raises(StudyError, match="no longer there"):  # one that is named must be there
        distill_study(request_for(entry, learn=(other.fingerprint,)), recorder)


def test_a_cut_round_does_not_go_on_without_a_slide_that_it_began_with(entry, recorder, tmp_path):
    add_another(entry, tmp_path / "other.tiff")
    with pytest.raises(JobCancelled):
        distill_study(request_for(entry, epochs=2), cancel_at(Epoch))
    (tmp_path / "other.tiff").rename(tmp_path / "moved.tiff")
    with pytest.raises(RoundsError, match="slides left out"):
        distill_study(request_for(entry, epochs=2, resume=True), recorder)


@pytest.mark.parametrize("moment", [Begun, Epoch, Round])
def test_a_study_that_is_deleted_meanwhile_ends_the_job_in_words(entry, moment):
    folder = entry.folder.parents[1]

    def watch(progress: Progress) -> None:
        if isinstance(progress.payload, moment):
            shutil.rmtree(folder, ignore_errors=True)

    with pytest.raises(HistodistillError):
        distill_study(request_for(entry, rounds=2), InlineControl(watch))


def test_a_child_process_does_the_same_and_its_news_load_without_torch(entry):
    job = ProcessJob(distill_study, request_for(entry))
    news = list(job.events())
    assert any(isinstance(p.payload, Preview) for p in news)
    assert any(isinstance(p.payload, Landed) for p in news)
    assert job.result.rounds[0].outcome == "unverified"
    one_of_each = {type(p.payload): p for p in news if p.payload is not None}
    assert set(one_of_each) >= {Begun, Preview, Epoch, Round, Landed}
    loads = [pickle.dumps(load) for load in (*one_of_each.values(), job.result, request_for(entry))]
    script = (
        "import pickle, sys\n"
        "for load in pickle.load(sys.stdin.buffer): pickle.loads(load)\n"
        "import napari_histodistill.viewer.distil\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(loads), capture_output=True, check=True)
    assert done.stdout.strip() == b"False"
