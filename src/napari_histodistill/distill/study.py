"""Rounds on the slides of a study: material read anew for every round, previews, and a prediction after each."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.distill.distillation import StudentPlan, distil_rounds, judge_best
from napari_histodistill.distill.job import Begun, Landed, LeftOut, StudyRequest, StudyResult
from napari_histodistill.distill.preview import Previewer
from napari_histodistill.distill.rounds import ROUND_FORMAT, VERSION, Rounds, require_same
from napari_histodistill.distill.selection import NoEvidence
from napari_histodistill.distill.slides import NothingToLearnError, StudyMaterial, TileSettings, tile_side
from napari_histodistill.mil.trainer import CHECKPOINT, make_fabric
from napari_histodistill.nets.card import model_folder, read_card
from napari_histodistill.nets.threads import torch_threads
from napari_histodistill.predict import PredictRequest, TileDone, predict_slide
from napari_histodistill.study import RunState, Study, StudyError
from napari_histodistill.study.files import read_document, write_document

if TYPE_CHECKING:
    from napari_histodistill.distill.recipe import DistillRecipe
    from napari_histodistill.distill.rounds import Round
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.study import StudySlide


def run_study(request: StudyRequest, control: JobControl) -> StudyResult:
    """See `job.distill_study`."""
    study = Study.open(request.study)
    try:
        with torch_threads(request.threads):
            return _run(study, request, control)
    except OSError as error:
        raise StudyError(
            f"{error.filename or study.folder} cannot be read or written any more ({error.strerror or error}): see "
            "that the study is where it was, can be written, and that its disk has room, then go on."
        ) from error


def _run(study: Study, request: StudyRequest, control: JobControl) -> StudyResult:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise StudyError("A study learns in one process: run this without torchrun, or distil on a data set (--data).")
    _entries(study, request, control)  # before anything is written
    teacher = model_folder(request.teacher)
    with study.distillation_lock():
        rounds = _open_rounds(study, teacher)
        if not request.resume:
            (rounds.folder / CHECKPOINT).unlink(missing_ok=True)
        _finish_predictions(rounds, _entries(study, request, control).shown, request, control)
        done: list[Round] = []
        for _ in range(request.rounds):
            _one_round(rounds, _entries(study, request, control), request, control)
            done.append(rounds.rounds[-1])
        return StudyResult(rounds.folder, tuple(done))


@dataclass(frozen=True)
class _Entries:
    """Slides to learn from, slides to predict, and those of the study that are left out because they have moved."""

    learn: list[StudySlide]
    shown: list[StudySlide]
    moved: list[StudySlide]


def _entries(study: Study, request: StudyRequest, control: JobControl) -> _Entries:
    """The slides that a request means, as they are now.

    Where it means all slides of the study, one that has moved is left out, and that is told; a slide that is named must
    be there, or else opening it says what is wrong.
    """
    every = study.slides()
    learn, moved = _ready(study, every, request.learn), []
    if not request.learn:
        moved = [entry for entry in learn if not entry.is_there]
        if len(moved) == len(learn):
            moved = []  # opening the first says what to do
        learn = [entry for entry in learn if entry not in moved]
    if moved:
        control.progress(0, 0, "Looking for the slides", LeftOut(tuple(entry.known_path.name for entry in moved)))
    return _Entries(learn, _ready(study, every, request.show) if request.show else learn, moved)


def _ready(study: Study, entries: list[StudySlide], fingerprints: tuple[str, ...]) -> list[StudySlide]:
    """The named slides, or all, that have a teacher's result."""
    by_name = {entry.fingerprint: entry for entry in entries}
    chosen = [by_name[f] for f in fingerprints if f in by_name] if fingerprints else entries
    ready = [entry for entry in chosen if entry.pseudo_mask() is not None]
    if not ready:
        raise NothingToLearnError(
            f"No slide of the study {study.folder.name} has a pseudo-mask yet: run the teacher on a slide first."
        )
    return ready


def _open_rounds(study: Study, teacher: Path) -> Rounds:
    """The study's distillation if it began with this teacher, else a new one."""
    card = read_card(teacher)
    settings: dict[str, Any] = {"teacher": f"{card.name} {card.digest(teacher)}"}
    earlier = study.distillations()
    if earlier:
        rounds = Rounds.open(earlier[-1])
        if rounds.settings == settings:
            return rounds
    number = int(earlier[-1].name) + 1 if earlier else 1
    return Rounds.begin(study.folder / "distillations" / f"{number:04d}", teacher, settings)


def _one_round(rounds: Rounds, entries: _Entries, request: StudyRequest, control: JobControl) -> None:
    shown = entries.shown
    recipe, card = recipe_for_slides(request), read_card(rounds.model("teacher"))
    encoder = request.encoder or card.architecture.encoder
    fabric = make_fabric(request.device, encoder)
    number = rounds.next
    _begin_round(rounds, request, entries.moved)
    control.progress(0, 0, f"Round {number} begins", Begun(rounds.folder, number))
    settings = TileSettings(tile_side(recipe), request.most_tiles, request.window, request.seed + number)
    source = StudyMaterial(entries.learn, card, settings, both_stains=recipe.both_stains)
    try:
        material = source.material(control)
        evidence = source.evidence() or NoEvidence()
        here = source.opened(shown[0].fingerprint)
        preview = Previewer(shown[0], card, request.center, number, control, here)
    finally:
        source.close()
    # Corrections have been added since the best model was judged.
    rounds.set_best_score(judge_best(rounds, evidence, str(fabric.device)))
    plan = StudentPlan(encoder, card, f"study {request.study.name}")
    distil_rounds(
        rounds,
        material,
        evidence,
        recipe,
        plan,
        number,
        request.seed,
        fabric,
        control,
        correction_weight=request.correction_weight,
        preview=preview,
    )
    for entry in shown:
        _predict(rounds, number, entry, request, control, first=entry is shown[0])


def _begin_round(rounds: Rounds, request: StudyRequest, moved: list[StudySlide]) -> None:
    """Note what a round is begun with, or see that the one that was cut goes on under the same.

    Raises
    ------
    RoundsError
        If it does not.
    """
    roles = rounds.roles
    begun_with: dict[str, Any] = {
        "number": rounds.next,
        "start": [roles.teacher, roles.best, roles.displaced],
        "slides": request.learn,
        "part": request.window,
        "tiles": request.most_tiles,
        "weight of corrections": request.correction_weight,
        "encoder": request.encoder,
        "seed": request.seed,
        "recipe": asdict(recipe_for_slides(request)),
    }
    if moved:
        begun_with["slides left out"] = [entry.fingerprint for entry in moved]
    now = json.loads(json.dumps(begun_with))
    path = rounds.folder / "round.json"
    before = read_document(path, ROUND_FORMAT, VERSION)["settings"] if (rounds.folder / CHECKPOINT).exists() else {}
    if before.get("number") == rounds.next:  # else the checkpoint is of a round that was killed when it was done
        require_same(f"Round {rounds.next} in {rounds.folder}", before, now)
    else:
        write_document(path, ROUND_FORMAT, VERSION, {"settings": now})


def recipe_for_slides(request: StudyRequest) -> DistillRecipe:
    """The recipe as few slides need it: BatchNorm keeps its statistics, which a few colours would bend."""
    recipe = request.recipe if request.epochs is None else replace(request.recipe, epochs=request.epochs)
    return replace(recipe, optimisation=replace(recipe.optimisation, frozen_norm=True))


def prediction_name(rounds: Path, number: int) -> str:
    """Name of a round's prediction of a slide, see `StudySlide.predictions`."""
    return f"{rounds.name}-{number:04d}"


def _finish_predictions(rounds: Rounds, shown: list[StudySlide], request: StudyRequest, control: JobControl) -> None:
    """Make the predictions of the last round whole that a cut left in part or, to resume, not even begun."""
    if not rounds.rounds:
        return
    number = rounds.rounds[-1].number
    for entry in shown:
        found = entry.prediction(prediction_name(rounds.folder, number))
        if request.resume if found is None else found.record.state is not RunState.COMPLETE:
            _predict(rounds, number, entry, request, control, first=entry is shown[0])


def _predict(
    rounds: Rounds, number: int, entry: StudySlide, request: StudyRequest, control: JobControl, *, first: bool
) -> None:
    name = prediction_name(rounds.folder, number)
    predict_slide(
        PredictRequest(
            slide_path=entry.slide_path,
            study_folder=request.study,
            model=str(rounds.model(f"rounds/{number}")),
            device=request.device,
            mpp=entry.mpp,
            resume=True,  # what an earlier job left of it
            force=True,  # the teacher was let run on it
            center=request.center if first else None,
            threads=request.threads,
            prediction=name,
        ),
        _Landing(control, entry.fingerprint, name),
    )


class _Landing:
    """A `JobControl` that says of which slide and round a window has landed."""

    def __init__(self, control: JobControl, fingerprint: str, prediction: str) -> None:
        self._control, self._fingerprint, self._prediction = control, fingerprint, prediction

    def progress(self, done: int, total: int, message: str = "", payload: Any = None) -> None:
        if isinstance(payload, TileDone):
            payload = Landed(self._fingerprint, self._prediction, payload)
        self._control.progress(done, total, message, payload)

    def checkpoint(self) -> None:
        self._control.checkpoint()
