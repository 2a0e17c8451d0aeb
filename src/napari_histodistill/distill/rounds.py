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
import zlib
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import HistodistillError, reason
from napari_histodistill.nets.card import CARD_NAME, WEIGHTS_NAME
from napari_histodistill.study.files import (
    DamagedError,
    read_document,
    way_out,
    write_atomically,
    write_document,
    writing,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.mil.settings import Epoch

FORMAT, VERSION = "histodistill-rounds", 1
ROUND_FORMAT = "histodistill-round"
"""Of ``round.json``: what the round of a study that is under way was begun with."""
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
    """The folder of a distillation: rounds so far, the roles after them, and checksums of the models' files."""

    def __init__(self, folder: Path, settings: dict[str, Any], roles: Roles, rounds: list[Round]) -> None:
        self.folder, self.settings, self.roles, self.rounds = folder, settings, roles, rounds
        self.checksums: dict[str, dict[str, int]] = {}

    @classmethod
    def begin(cls, folder: Path, teacher: Path, settings: dict[str, Any]) -> Rounds:
        """Begin in a folder, with a copy of the first teacher; what an earlier distillation left there goes.

        Raises
        ------
        RoundsError
            If the teacher lies in the folder and would go too, or another model that no distillation left there.
        """
        if teacher.resolve().is_relative_to(folder.resolve()):
            raise RoundsError(
                f"The teacher {teacher} lies in {folder}, where what is there makes room for the new rounds: choose "
                "another folder for them, or resume."
            )
        if (folder / CARD_NAME).exists() and not (folder / TEACHER).exists():
            raise RoundsError(f"{folder} holds a model, which would be lost: choose another folder for the rounds.")
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # The state goes first, so that a crash leaves none that names models which are gone.
        for name in ("state.json.copy", "state.json", "rounds.jsonl", "checkpoint.pt", CARD_NAME, WEIGHTS_NAME):
            (folder / name).unlink(missing_ok=True)
        for name in ("rounds", TEACHER):
            shutil.rmtree(folder / name, ignore_errors=True)
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
            rounds.checksums = dict(document.get("checksums", {}))
            for name in (rounds.roles.best, rounds.roles.teacher, rounds.roles.displaced):
                _check_name(name)
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{folder / 'state.json'} is damaged ({reason(error)}): {way_out(folder)}.") from error
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

    def make_room(self, name: str) -> Path:
        """The folder for a model that the roles are to name; not what is above, which may be away for the moment."""
        folder = self.model(name)
        with writing(folder):
            folder.parent.mkdir(exist_ok=True)
            folder.mkdir(exist_ok=True)
        return folder

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
        copy_model(self.model(self.roles.best), self.folder)
        write_atomically(self.folder / "rounds.jsonl", self.lines().encode())
        content = {
            "settings": self.settings,
            "roles": asdict(self.roles),
            "rounds": [asdict(r) for r in self.rounds],
            "checksums": self._checksums(),
        }
        write_document(self.folder / "state.json", FORMAT, VERSION, content, copy=True)

    def lines(self) -> str:
        """The text of ``rounds.jsonl``."""
        return "".join(json.dumps(asdict(record), allow_nan=False) + "\n" for record in self.rounds)

    def _checksums(self) -> dict[str, dict[str, int]]:
        """Of the files of every model, by its folder; those of models from before stay as they were."""
        for name in (TEACHER, *(f"rounds/{r.number}" for r in self.rounds)):
            if name not in self.checksums and (self.model(name) / WEIGHTS_NAME).exists():
                self.checksums[name] = model_checksums(self.model(name))
        return self.checksums


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


def model_checksums(folder: Path) -> dict[str, int]:
    """CRC-32 of weights and card of a model, by file name."""
    return {name: zlib.crc32((folder / name).read_bytes()) for name in (WEIGHTS_NAME, CARD_NAME)}


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
    with writing(target):
        target.mkdir(exist_ok=True)
    for name, data in content.items():
        write_atomically(target / name, data)
