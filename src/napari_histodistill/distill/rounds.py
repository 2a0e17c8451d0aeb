"""The rounds of a distillation and who is who in them: best model, teacher, start of the next student.

On disk: ``state.json`` is the truth, and is written last; ``rounds.jsonl`` repeats it, a line a round, for programs.

::

    DIR/state.json, rounds.jsonl, curves.png
        teacher/                 the first teacher, a copy
        rounds/K/                the student of round K: model.json, model.safetensors
        model.json, ...          the best model so far, a copy
        checkpoint.pt            the round that is under way
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import HistodistillError, reason
from napari_histodistill.nets.card import CARD_NAME, WEIGHTS_NAME
from napari_histodistill.study.files import read_document, write_atomically, write_document

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.mil.settings import Epoch

FORMAT, VERSION = "histodistill-rounds", 1
TEACHER = "teacher"


class RoundsError(HistodistillError):
    """A folder of rounds that cannot be gone on with."""


@dataclass(frozen=True)
class Round:
    """What came of a round.

    Attributes
    ----------
    number : int
        From 1.
    teacher, start : str
        Folder of the model that taught, and of the one that the student began as; "" for a new network.
    score, best_before : float or None
        Selection score of the student, and of the best model before; None without evidence.
    outcome : {"promoted", "not better", "unverified"}
    epochs : list of dict
        Record of every epoch, as `mil.trainer.Epoch`.
    seconds : float
    """

    number: int
    teacher: str
    start: str
    score: float | None
    best_before: float | None
    outcome: str
    epochs: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        score = "" if self.score is None else f": score {self.score:.4f} (best before {self.best_before:.4f})"
        return f"round {self.number}, {self.outcome}{score}"


@dataclass(frozen=True)
class Roles:
    """Who is who, as folders below the rounds' own.

    Attributes
    ----------
    best : str
        The model that counts: what is shown, exported, and teaches.
    score : float or None
        Its selection score.
    displaced : str
        The teacher that the last promotion displaced; "" before the first.
    teacher : str
        Who teaches the next round; the best model unless promotion is automatic.
    taken : int or None
        How many rounds were done when a person chose the best model; None where a score did.
    """

    best: str = TEACHER
    score: float | None = None
    displaced: str = ""
    teacher: str = TEACHER
    taken: int | None = None

    def after(self, folder: str, score: float | None, *, always: bool) -> tuple[Roles, str]:
        """The roles after a round whose student lies in ``folder``, and the outcome in words.

        A student that scores higher than the best becomes best and teacher. With ``always`` it becomes teacher whatever
        it scores, as in the paper; best it becomes by its score only. Without a score nothing is promoted.
        """
        if score is not None and (self.score is None or score > self.score):
            return Roles(folder, score, self.teacher, folder), "promoted"
        outcome = "unverified" if score is None else "not better"
        return (replace(self, displaced=self.teacher, teacher=folder) if always else self), outcome


class Rounds:
    """The folder of a distillation: rounds so far and the roles after them."""

    def __init__(self, folder: Path, settings: dict[str, Any], roles: Roles, rounds: list[Round]) -> None:
        self.folder, self.settings, self.roles, self.rounds = folder, settings, roles, rounds

    @classmethod
    def begin(cls, folder: Path, teacher: Path, settings: dict[str, Any]) -> Rounds:
        """Begin in a folder, with a copy of the first teacher; what an earlier distillation left there goes.

        Raises
        ------
        RoundsError
            If the teacher lies in the folder and would go too.
        """
        if teacher.resolve().is_relative_to(folder.resolve()):
            raise RoundsError(
                f"The teacher {teacher} lies in {folder}, where what is there makes room for the new rounds: choose "
                "another folder for them, or resume."
            )
        for name in ("rounds", TEACHER):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("state.json", "rounds.jsonl", "checkpoint.pt", CARD_NAME, WEIGHTS_NAME):
            (folder / name).unlink(missing_ok=True)
        copy_model(teacher, folder / TEACHER)
        rounds = cls(folder, settings, Roles(), [])
        rounds.save()
        return rounds

    @classmethod
    def open(cls, folder: Path, settings: dict[str, Any] | None = None) -> Rounds:
        """Open what `begin` and `finish` wrote; with ``settings``, to go on under the same.

        Raises
        ------
        RoundsError
            If the rounds there were begun with other settings: names the first that differs.
        """
        document = read_document(folder / "state.json", FORMAT, VERSION)
        try:
            rounds = cls(
                folder, dict(document["settings"]), Roles(**document["roles"]), [Round(**r) for r in document["rounds"]]
            )
            for name in (rounds.roles.best, rounds.roles.teacher, rounds.roles.displaced):
                _check_name(name)
        except (KeyError, TypeError, ValueError) as error:
            raise RoundsError(
                f"{folder / 'state.json'} is damaged ({reason(error)}): begin anew in another folder."
            ) from error
        if settings is not None:
            require_same(f"The distillation in {folder}", rounds.settings, settings)
        return rounds

    @property
    def next(self) -> int:
        """Number of the round that comes next."""
        return len(self.rounds) + 1

    def model(self, name: str) -> Path:
        """The folder of a model that the roles name."""
        return self.folder / name

    def finish(self, record: Round, roles: Roles) -> None:
        """Record a round whose student lies in its folder; the state is written last."""
        self.rounds.append(record)
        self.roles = roles
        self.save()
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)

    def take(self, number: int) -> None:
        """Make the student of a round, 0 for the first teacher, best model and next teacher: a person says so.

        Raises
        ------
        RoundsError
            If the folder has no model of that round.
        """
        folder = f"rounds/{number}" if number else TEACHER
        displaced = self.roles.displaced if folder == self.roles.teacher else self.roles.teacher
        self.roles = Roles(folder, None, displaced, folder, len(self.rounds))
        self.save()

    def set_best_score(self, score: float | None) -> None:
        """The best model's score on evidence that is new; on disk once the round is that is judged by it."""
        self.roles = replace(self.roles, score=score)

    def save(self) -> None:
        """Write the best model's copy, the lines, and the state."""
        self.folder.mkdir(parents=True, exist_ok=True)
        copy_model(self.model(self.roles.best), self.folder)
        lines = "".join(json.dumps(asdict(r), allow_nan=False) + "\n" for r in self.rounds)
        write_atomically(self.folder / "rounds.jsonl", lines.encode())
        content = {
            "settings": self.settings,
            "roles": asdict(self.roles),
            "rounds": [asdict(r) for r in self.rounds],
        }
        write_document(self.folder / "state.json", FORMAT, VERSION, content)


def record_of(number: int, roles: Roles, start: str, outcome: str, score: float | None, epochs: list[Epoch]) -> Round:
    """The record of a round that was taught and judged under ``roles``."""
    return Round(
        number=number,
        teacher=roles.teacher,
        start=start,
        score=score,
        best_before=roles.score,
        outcome=outcome,
        epochs=[asdict(epoch) for epoch in epochs],
        seconds=sum(epoch.seconds for epoch in epochs),
    )


def require_same(what: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on under other settings.

    Raises
    ------
    RoundsError
        Naming the first that differs.
    """
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise RoundsError(
                f"{what} cannot go on: its {name} was {before.get(name)}, now it is {now.get(name)}; use the same, or "
                "begin anew in another folder."
            )


def _check_name(name: str) -> None:
    """Refuse what names no model below the rounds' own folder."""
    if name not in {"", TEACHER} and not (name.startswith("rounds/") and name.removeprefix("rounds/").isdecimal()):
        raise ValueError(f"{name!r} is no model of a round")


def copy_model(source: Path, target: Path) -> None:
    """Copy weights and card of a model folder, each complete or not at all, the card last.

    Raises
    ------
    RoundsError
        If there is no such model any more.
    """
    try:
        content = {name: (source / name).read_bytes() for name in (WEIGHTS_NAME, CARD_NAME)}
    except OSError as error:
        raise RoundsError(f"{error.filename} cannot be read ({error.strerror}): choose another model.") from error
    target.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        write_atomically(target / name, data)
