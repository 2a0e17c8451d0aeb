"""The folder of rounds without networks: who is best, what a person takes, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_histodistill.distill.rounds import Roles, Round, Rounds, RoundsError

FILES = ("model.json", "model.safetensors")


def write_model(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def rounds(tmp_path) -> Rounds:
    """Two rounds that nothing told to be better."""
    rounds = Rounds.begin(tmp_path / "out", write_model(tmp_path / "first", "first"), {"seed": 0})
    for number in (1, 2):
        write_model(rounds.model(f"rounds/{number}"), f"student {number}")
        after, outcome = rounds.roles.after(f"rounds/{number}", None, always=False)
        rounds.finish(Round(number, "teacher", "teacher", None, None, outcome), after)
    return rounds


def best(rounds: Rounds) -> set[str]:
    return {(rounds.folder / name).read_text() for name in FILES}


def test_a_person_may_take_any_round_and_the_first_teacher(rounds):
    rounds.take(2)
    again = Rounds.open(rounds.folder)
    assert again.roles == Roles("rounds/2", None, "teacher", "rounds/2", taken=2)
    assert best(again) == {"student 2"}
    again.take(1)
    assert (again.roles.displaced, again.roles.teacher) == ("rounds/2", "rounds/1")
    again.take(0)
    assert Rounds.open(rounds.folder).roles.best == "teacher"
    assert best(again) == {"first"}


def test_taking_the_teacher_anew_does_not_make_it_its_own_predecessor(rounds):
    rounds.take(1)
    rounds.take(1)
    assert rounds.roles.displaced == "teacher"


def test_a_promotion_by_score_undoes_what_was_taken(rounds):
    rounds.take(1)
    after, outcome = rounds.roles.after("rounds/3", 0.7, always=False)
    assert outcome == "promoted"
    assert (after.best, after.displaced, after.taken) == ("rounds/3", "rounds/1", None)


def test_a_round_that_is_not_there_is_not_taken(rounds):
    before = (rounds.folder / "state.json").read_bytes()
    with pytest.raises(RoundsError, match="cannot be read"):
        rounds.take(7)
    assert (rounds.folder / "state.json").read_bytes() == before
    assert best(rounds) == {"first"}


def test_the_score_of_the_best_model_is_written_with_the_round_that_it_judged(rounds):
    before = (rounds.folder / "state.json").read_bytes()
    rounds.set_best_score(0.5)
    assert (rounds.folder / "state.json").read_bytes() == before
    assert rounds.roles.score == 0.5


def test_rounds_of_before_people_could_take_them_open(rounds):
    path = rounds.folder / "state.json"
    state = json.loads(path.read_text())
    del state["roles"]["taken"]
    path.write_text(json.dumps(state))
    assert Rounds.open(rounds.folder).roles.taken is None


@pytest.mark.parametrize("inside", [".", "rounds/2", "teacher"])
def test_a_teacher_in_the_folder_that_is_begun_anew_is_not_deleted(rounds, inside):
    with pytest.raises(RoundsError, match="another folder"):
        Rounds.begin(rounds.folder, rounds.folder / inside, {})
    assert len(Rounds.open(rounds.folder).rounds) == 2
    assert all((rounds.folder / inside / name).exists() for name in FILES)


def test_rounds_that_are_begun_anew_and_killed_leave_no_state_of_models_that_are_gone(rounds, tmp_path, monkeypatch):
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        Rounds.begin(rounds.folder, tmp_path / "first", {})
    assert not list(rounds.folder.glob("state.json*"))


def test_a_model_that_somebody_trained_is_not_replaced_by_rounds(tmp_path):
    first, mine = write_model(tmp_path / "first", "first"), write_model(tmp_path / "mine", "hours of training")
    with pytest.raises(RoundsError, match="holds a model, which would be lost: choose another folder"):
        Rounds.begin(mine, first, {})
    assert {(mine / name).read_text() for name in FILES} == {"hours of training"}
