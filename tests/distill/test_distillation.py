"""A tiny teacher and its students, end to end: rounds, roles, resume, the same result on two processes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_histodistill.distill import DistillRecipe, DistillRequest, Targets, distill, find_recipe
from napari_histodistill.distill.distillation import StudentPlan, build_student, start_of
from napari_histodistill.distill.recipe import RECIPES, RecipeError
from napari_histodistill.distill.rounds import Roles, Round, Rounds, RoundsError
from napari_histodistill.mil import Recipe, TrainRequest, evaluate_model, load_dataset, train_teacher
from napari_histodistill.mil.settings import Augmentation, Optimisation
from napari_histodistill.nets import load_model
from napari_histodistill.study import StudyError

SMALL = DistillRecipe(
    targets=Targets(views=1), epochs=2, optimisation=Optimisation(lr=1e-3, average=0.8), crop=64, batch=8
)

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def teacher(cohort, tmp_path_factory) -> Path:
    """A teacher that has learnt a little."""
    from napari_histodistill.jobs import InlineControl

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("teacher")
    recipe = Recipe(crop=64, batch=8, lr=1e-3, average=0.8, normalise=False)
    train_teacher(TrainRequest(cohort, folder, epochs=5, recipe=recipe, device="cpu"), InlineControl())
    return folder


@pytest.fixture
def request_for(cohort, teacher, tmp_path):
    def make(name: str = "out", **changes: object) -> DistillRequest:
        request = DistillRequest(str(teacher), cohort, tmp_path / name, rounds=2, device="cpu", recipe=SMALL)
        return replace(request, **changes)

    return make


@pytest.mark.parametrize("attention", [False, True])
def test_a_new_student_of_another_encoder_has_a_card_that_fits_it(teacher, tmp_path, attention):
    card = load_model(teacher, "cpu").card
    card = replace(card, architecture=replace(card.architecture, attention=attention))
    network, own = build_student(StudentPlan("vgg16", card, "data"), Rounds.begin(tmp_path, teacher, {}), "", seed=0)
    assert (own.architecture.encoder, own.architecture.attention) == ("vgg16", attention)
    assert (own.margin, own.multiple) == (network.margin, network.period)
    assert own.training.start.startswith("random weights")
    assert len(network.attention) == 3 * attention


@pytest.fixture
def script_of(tmp_path) -> Callable[[DistillRequest], list[str]]:
    """Arguments for a Python of its own that distils a request and prints what it is told."""
    script = tmp_path / "run.py"
    script.write_text(
        "import pickle, sys, torch\n"
        "torch.set_num_threads(1)\n"
        "from napari_histodistill.distill import distill\n"
        "from napari_histodistill.jobs import InlineControl\n"
        "distill(pickle.loads(bytes.fromhex(sys.argv[1])), InlineControl(lambda p: print(p.message, flush=True)))\n"
    )
    return lambda request: [str(script), pickle.dumps(request).hex()]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_rounds_leave_the_best_model_every_student_and_a_line_each(request_for, recorder, cohort, teacher):
    result = distill(request_for(select="masks"), recorder)
    assert [r.number for r in result.rounds] == [1, 2]
    lines = [json.loads(line) for line in (result.folder / "rounds.jsonl").read_text().splitlines()]
    assert [line["outcome"] for line in lines] == [r.outcome for r in result.rounds]
    assert weights(result.folder) == weights(result.folder / result.best)
    assert weights(result.folder / "teacher") == weights(teacher)
    before, after = (
        evaluate_model(load_model(folder, "cpu"), load_dataset(cohort), split="val").to_json()["miou"]
        for folder in (teacher, result.folder)
    )
    assert after >= before
    assert result.rounds[0].best_before == pytest.approx(before)
    assert (result.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [m for m in recorder.messages if m.startswith("epoch 2: loss") and "kd" in m and "wce" in m]
    assert recorder.payloads[-1] == result.rounds[-1]


def test_a_worse_student_is_not_promoted(request_for, recorder):
    useless = replace(SMALL, optimisation=Optimisation(lr=0.5, average=0.0, warmup=0, schedule="constant"))
    result = distill(request_for(recipe=useless, select="masks", epochs=1), recorder)
    assert result.best == "teacher"
    assert [r.outcome for r in result.rounds] == ["not better", "not better"]
    assert weights(result.folder) == weights(result.folder / "teacher")
    assert weights(result.folder / "rounds" / "1") != weights(result.folder / "teacher")


def test_the_paper_exchanges_the_roles_whatever_the_student_scores(request_for, recorder):
    paper = replace(RECIPES["paper"], crop=64, batch=8)
    result = distill(request_for(recipe=paper, epochs=1, rounds=3, select="masks"), recorder)
    assert [r.teacher for r in result.rounds] == ["teacher", "rounds/1", "rounds/2"]
    assert [r.start for r in result.rounds] == ["", "teacher", "rounds/1"]


def test_reversal_copies_and_does_not_alias(request_for, recorder):
    """A round that starts from the displaced teacher changes neither it nor the model that teaches now."""
    paper = replace(RECIPES["paper"], crop=64, batch=8)
    request = request_for(recipe=paper, epochs=1, rounds=1)
    folder = distill(request, recorder).folder
    before = {name: weights(folder / name) for name in ("teacher", "rounds/1")}
    distill(replace(request, rounds=2, resume=True), recorder)
    assert {name: weights(folder / name) for name in before} == before
    assert weights(folder / "rounds" / "2") not in before.values()


def test_the_same_seed_gives_the_same_weights_and_another_does_not(request_for, recorder):
    folders = [
        distill(request_for(name, seed=seed, rounds=1, epochs=1), recorder).folder
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    a, b, c = (weights(folder / "rounds" / "1") for folder in folders)
    assert a == b
    assert a != c


def test_killed_at_any_epoch_it_goes_on_to_the_same_weights(request_for, recorder, script_of):
    whole = distill(request_for("whole"), recorder).folder
    request = request_for("cut")
    for line in ("epoch 1:", "epoch 2:", "round 1,"):  # in the first round, at its end, and between the rounds
        child = subprocess.Popen(
            [sys.executable, *script_of(replace(request, resume=True))],
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert child.stdout is not None
        assert any(text.startswith(line) for text in child.stdout)
        child.kill()
        child.wait()
    result = distill(replace(request, resume=True), recorder)
    for name in ("rounds/1", "rounds/2", "."):
        assert weights(result.folder / name) == weights(whole / name)
    assert (result.folder / "state.json").exists()
    assert not (result.folder / "checkpoint.pt").exists()


def test_other_settings_do_not_go_on_with_a_distillation(request_for, recorder):
    request = request_for(rounds=1, epochs=1)
    distill(request, recorder)
    with pytest.raises(RoundsError, match="seed was 0, now it is 7"):
        distill(replace(request, seed=7, resume=True), recorder)


def test_a_distillation_is_never_overwritten_unasked(request_for, recorder):
    request = request_for(rounds=1, epochs=1)
    before = weights(distill(request, recorder).folder)
    with pytest.raises(RoundsError, match="resume it, or choose another folder"):
        distill(replace(request, seed=7), recorder)
    assert weights(request.out) == before


def test_two_processes_compute_the_loss_of_one(request_for, recorder, script_of, tmp_path):
    """With the statistics of BatchNorm frozen, a batch in two shares has the loss of the whole."""
    frozen = replace(SMALL, optimisation=replace(SMALL.optimisation, frozen_norm=True), augmentation=Augmentation())
    request = request_for("one", recipe=frozen, rounds=1, epochs=1)
    one = distill(request, recorder).rounds[0].epochs[0]
    out = tmp_path / "two"
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"),
            *script_of(replace(request, out=out)),
        ],
        check=True,
        timeout=120,
        env=ENVIRONMENT,
    )
    two = json.loads((out / "rounds.jsonl").read_text())["epochs"][0]
    for name, value in one["terms"].items():
        assert two["terms"][name] == pytest.approx(value, rel=1e-4)


def test_torchrun_of_the_command_gives_the_folder_that_one_process_gives(teacher, cohort, tmp_path):
    """Loss terms differ a little: BatchNorm takes its statistics from each process's share of a batch."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = {}
    for name, launcher in (("one", []), ("two", torchrun)):
        command = [*launcher, "-m", "napari_histodistill", "distill", "--teacher", teacher, "--data", cohort]
        options = ["--out", tmp_path / name, "--rounds", "1", "--epochs", "1", "--device", "cpu"]
        told = subprocess.run(
            [sys.executable, *map(str, command), *map(str, options)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=600,
            env=ENVIRONMENT,
        ).stdout
        assert told.count("Best model, from") == 1  # one process speaks
        found[name] = json.loads((tmp_path / name / "rounds.jsonl").read_text())["epochs"][0]
    for name, value in found["one"]["terms"].items():
        assert found["two"]["terms"][name] == pytest.approx(value, rel=0.2)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    assert load_model(tmp_path / "two", "cpu").card.mpp == load_model(tmp_path / "one", "cpu").card.mpp


def roles_after(*scores: float | None, always: bool = False) -> tuple[Roles, list[str]]:
    roles, outcomes = Roles(score=0.5 if scores[0] is not None else None), []
    for i, score in enumerate(scores, 1):
        roles, outcome = roles.after(f"rounds/{i}", score, always=always)
        outcomes.append(outcome)
    return roles, outcomes


def test_only_what_beats_the_best_so_far_is_promoted():
    roles, outcomes = roles_after(0.6, 0.55, 0.6, 0.7)
    assert outcomes == ["promoted", "not better", "not better", "promoted"]
    assert (roles.best, roles.teacher, roles.displaced, roles.score) == ("rounds/4", "rounds/4", "rounds/1", 0.7)


def test_without_evidence_nothing_is_promoted_by_itself():
    roles, outcomes = roles_after(None, None)
    assert outcomes == ["unverified", "unverified"]
    assert (roles.best, roles.teacher) == ("teacher", "teacher")


def test_automatic_promotion_teaches_but_is_best_by_its_score_only():
    roles, outcomes = roles_after(0.4, 0.6, 0.5, always=True)
    assert outcomes == ["not better", "promoted", "not better"]
    assert (roles.best, roles.teacher, roles.displaced) == ("rounds/2", "rounds/3", "rounds/2")


@pytest.mark.parametrize(
    ("start", "outcomes", "expected"),
    [
        ("new", ["promoted"], ""),
        ("warm", [], "teacher"),
        ("warm", ["promoted"], "rounds/1"),
        ("reversal", [], ""),
        ("reversal", ["promoted"], "teacher"),
        ("reversal", ["not better"], "teacher"),
        ("reversal", ["promoted", "not better"], "rounds/1"),
    ],
)
def test_what_the_next_student_starts_from(tmp_path, start, outcomes, expected):
    roles, records = Roles(score=0.5), []
    for i, outcome in enumerate(outcomes, 1):
        score = 0.5 + i if outcome == "promoted" else 0.0
        roles, _ = roles.after(f"rounds/{i}", score, always=False)
        records.append(Round(i, "", "", score, None, outcome))
    rounds = Rounds(tmp_path, {}, roles, records)
    assert start_of(replace(SMALL, start=start), rounds) == expected


def test_an_unknown_recipe_is_refused_with_the_ones_there_are():
    with pytest.raises(RecipeError, match="default, paper"):
        find_recipe("magic")


def test_a_damaged_state_is_said(request_for, recorder):
    folder = distill(request_for(rounds=1, epochs=1), recorder).folder
    state = json.loads((folder / "state.json").read_text())
    del state["roles"]
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "state.json.copy").unlink()
    with pytest.raises(StudyError, match="checksum differs"):
        distill(request_for(rounds=2, epochs=1, resume=True), recorder)
