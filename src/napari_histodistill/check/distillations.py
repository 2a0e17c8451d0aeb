"""The distillations of a study: state, models, and the round that is under way."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_histodistill.distill.rounds import (
    FORMAT,
    ROUND_FORMAT,
    TEACHER,
    VERSION,
    Roles,
    Round,
    Rounds,
    copy_model,
    model_checksums,
)
from napari_histodistill.nets.card import BUNDLED, CARD_NAME, WEIGHTS_NAME, ModelError, read_card
from napari_histodistill.study.files import DamagedError, StudyError, copy_of, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.check.inspection import Inspection

HEADER_LIMIT = 100_000_000


def check_distillation(inspection: Inspection, folder: Path) -> None:
    """Check a distillation's folder."""
    state = folder / "state.json"
    if not state.exists() and not copy_of(state).exists():
        _settle_beginning(inspection, folder)
        return
    document, problem = inspection.document(state, FORMAT, VERSION)
    if inspection.awaits_its_copy(state, document):
        return
    rounds = None
    if document is not None:
        try:
            rounds = Rounds.open(folder)
        except DamagedError as error:
            problem = str(error)
    if rounds is None:
        lost = "who is best, where a person had chosen; scores judged since"
        remedy = "make it anew from rounds.jsonl and the models that are there"
        if not inspection.found(state, problem, remedy, lambda: _remake_state(inspection, folder), lost=lost):
            return
        rounds = Rounds.open(folder)
    _check_models(inspection, rounds)
    _check_lines(inspection, rounds)
    _check_round_under_way(inspection, folder)


def _settle_beginning(inspection: Inspection, folder: Path) -> None:
    if (folder / "rounds").is_dir():  # a distillation begins with none
        lost = "who is best, where a person had chosen; scores judged since"
        remedy = "make it anew from rounds.jsonl and the models that are there"
        inspection.found(folder / "state.json", "is gone", remedy, lambda: _remake_state(inspection, folder), lost=lost)
    else:
        problem = "has no state, so nothing was begun"
        inspection.found(folder, problem, "move it aside", lambda: inspection.set_aside(folder), harmless=True)


def _remake_state(inspection: Inspection, folder: Path) -> None:
    """Write the state that the lines of ``rounds.jsonl`` and the models speak of."""
    if model_problem(folder / TEACHER):
        raise StudyError("its first teacher is gone too: begin a new distillation")
    card = read_card(folder / TEACHER)
    inspection.set_aside(folder / "state.json", copy_of(folder / "state.json"))
    rounds = Rounds(folder, {"teacher": f"{card.name} {card.digest(folder / TEACHER)}"}, Roles(), [])
    for record in _lines(folder):
        if model_problem(rounds.model(f"rounds/{record.number}")):
            break
        if record.outcome == "promoted":
            student = f"rounds/{record.number}"
            rounds.roles = Roles(student, record.score, rounds.roles.teacher, student)
        rounds.rounds.append(record)
    while not model_problem(rounds.model(f"rounds/{rounds.next}")):  # students that no line speaks of
        rounds.rounds.append(Round(rounds.next, TEACHER, "", None, None, "unverified"))
    rounds.save()


def _lines(folder: Path) -> list[Round]:
    """The rounds of ``rounds.jsonl`` as far as they can be read and follow each other."""
    found: list[Round] = []
    try:
        for line in (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines():
            record = Round(**json.loads(line))
            if record.number != len(found) + 1:
                break
            found.append(record)
    except (OSError, ValueError, TypeError):
        return found
    return found


def model_problem(folder: Path, checksums: dict[str, int] | None = None) -> str:
    """What is wrong with a model's files, by their checksums or else by what they must look like; empty if nothing."""
    for name in (WEIGHTS_NAME, CARD_NAME):
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            return f"its {name} cannot be read ({error.strerror})"
        if checksums is not None and zlib.crc32(data) != checksums.get(name):
            return f"its {name} is not as it was written"
        if name == WEIGHTS_NAME and not _is_safetensors(data):
            return f"its {name} is damaged"
    try:
        read_card(folder)
    except ModelError as error:
        return str(error)
    return ""


def _is_safetensors(data: bytes) -> bool:
    """Whether bytes have the head of a safetensors file and are as long as it says."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(HEADER_LIMIT, len(data)):
        return False
    try:
        head = json.loads(data[8 : 8 + length])
        ends = [entry["data_offsets"][1] for name, entry in head.items() if name != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    return len(data) == 8 + length + max(ends, default=0)


def _check_models(inspection: Inspection, rounds: Rounds) -> None:
    """See to the models of all rounds, then to the roles, then to the copy of the best one."""
    names = [TEACHER, *(f"rounds/{record.number}" for record in rounds.rounds)]
    sound = []
    for name in names:
        inspection.report.files += 2
        problem = model_problem(rounds.model(name), rounds.checksums.get(name))
        if not problem or _restore(inspection, rounds, name, problem):
            sound.append(name)
    roles = rounds.roles
    if sound and not {roles.best, roles.teacher} <= set(sound):
        promoted = [f"rounds/{record.number}" for record in rounds.rounds if record.outcome == "promoted"]
        best = next(name for name in (roles.best, *reversed(promoted), *sound) if name in sound)

        def mend() -> None:
            teacher = roles.teacher if roles.teacher in sound else best
            score = roles.score if best == roles.best else None
            displaced = roles.displaced if roles.displaced in sound else best
            rounds.roles = replace(roles, best=best, teacher=teacher, score=score, displaced=displaced)
            rounds.save()

        inspection.found(rounds.folder / "state.json", "names a model that is lost", f"go on from {best}", mend)
    best_folder = rounds.model(rounds.roles.best)
    if not model_problem(best_folder, rounds.checksums.get(rounds.roles.best)):
        problem = model_problem(rounds.folder, model_checksums(best_folder))
        if problem:
            # A kill between this copy and the state leaves the copy of a round that did not count yet.
            remedy = f"copy {rounds.roles.best} again"

            def copy() -> None:
                inspection.set_aside(rounds.folder / WEIGHTS_NAME, rounds.folder / CARD_NAME)
                copy_model(best_folder, rounds.folder)

            inspection.found(rounds.folder / WEIGHTS_NAME, "is no copy of the best model", remedy, copy, harmless=True)


def _restore(inspection: Inspection, rounds: Rounds, name: str, problem: str) -> bool:
    """Bring a damaged model back from a copy of it, or move it aside; whether it is sound now."""
    folder, wanted = rounds.model(name), rounds.checksums.get(name)
    others = [rounds.folder, rounds.model(TEACHER), *sorted((rounds.folder / "rounds").glob("*/")), *BUNDLED.values()]
    twin = None
    if wanted is not None:
        twin = next((other for other in others if other != folder and not model_problem(other, wanted)), None)

    def mend() -> None:
        inspection.set_aside(folder)
        if twin is not None:
            copy_model(twin, rounds.make_room(name))

    if twin is not None:
        return inspection.found(folder, problem, "copy it from where the same model lies", mend)
    inspection.found(folder, problem, "move it aside", mend, lost=f"the model {name}")
    return False


def _check_lines(inspection: Inspection, rounds: Rounds) -> None:
    path = rounds.folder / "rounds.jsonl"
    inspection.report.files += 1
    if _lines(rounds.folder) != rounds.rounds:
        text = rounds.lines()
        problem = "does not repeat what state.json says"

        def mend() -> None:
            inspection.set_aside(path)
            write_atomically(path, text.encode())

        inspection.found(path, problem, "write it anew", mend, harmless=True)


def _check_round_under_way(inspection: Inspection, folder: Path) -> None:
    """The checkpoint, and what the round was begun with; without either the round begins anew."""
    checkpoint, begun = folder / "checkpoint.pt", folder / "round.json"
    problem = ""
    if checkpoint.exists():
        inspection.report.files += 1
        try:
            with zipfile.ZipFile(checkpoint) as archive:
                broken = archive.testzip()
            problem = "" if broken is None else f"its part {broken} is damaged"
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            problem = f"cannot be read ({error})"
        if problem:
            inspection.found(
                checkpoint,
                problem,
                "move it aside; the round that was under way begins anew",
                lambda: inspection.set_aside(checkpoint),
                lost="the epochs of the round that was under way",
            )
    if begun.exists():
        document, problem = inspection.document(begun, ROUND_FORMAT, VERSION)
        if document is None:
            inspection.found(
                begun,
                problem,
                "move it and the checkpoint aside; the round that was under way begins anew",
                lambda: inspection.set_aside(begun, checkpoint),
                lost="the epochs of the round that was under way" if checkpoint.exists() else "",
            )
