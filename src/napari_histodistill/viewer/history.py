"""The rounds of a study as a widget shows them: read from disk, and changed there because the user says so."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_histodistill.distill.rounds import TEACHER, Roles, Round, Rounds
from napari_histodistill.errors import HistodistillError
from napari_histodistill.slide.labels import NORMAL
from napari_histodistill.study import RunState, SlideLabel, Study
from napari_histodistill.study.files import writing

if TYPE_CHECKING:
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.study import Run, StudySlide

logger = logging.getLogger(__name__)

ROWS: Final = 1024
"""Of the corrections that are looked through at a time."""
FIRST_TEACHER: Final = 0
"""Number under which the first teacher stands among the rounds."""


@dataclass(frozen=True)
class History:
    """The rounds of a study's distillation on disk, and what the study knows of one slide.

    Attributes
    ----------
    folder : Path or None
        Of the distillation; None before the first.
    rounds : tuple of Round
    roles : Roles
    predicted : frozenset of int
        Rounds of which the slide has a whole prediction.
    label : SlideLabel
    normal_slides : int
        Other slides of the study that are labelled normal.
    normal_by_hand : bool
        Whether a person set any of the slide to normal.
    moved : tuple of str
        File names of other slides of the study that are not where they were.
    """

    folder: Path | None = None
    rounds: tuple[Round, ...] = ()
    roles: Roles = field(default_factory=Roles)
    predicted: frozenset[int] = frozenset()
    label: SlideLabel = SlideLabel.UNKNOWN
    normal_slides: int = 0
    normal_by_hand: bool = False
    moved: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """Number of the best round; `FIRST_TEACHER` while it is that."""
        return FIRST_TEACHER if self.roles.best == TEACHER else int(self.roles.best.rsplit("/", 1)[1])

    def prediction_name(self, number: int) -> str | None:
        """The name in the study of what a round predicts, `FIRST_TEACHER` for the first teacher; None before any."""
        return None if self.folder is None else f"{self.folder.name}-{number:04d}"


@dataclass(frozen=True)
class HistoryRequest:
    """Of which slide of which study."""

    study: Path
    fingerprint: str


def load_history(request: HistoryRequest, control: JobControl) -> History:
    """What a study holds of rounds, and the labels of its slides."""
    control.progress(0, 0, "Opening the rounds")
    study = Study.open(request.study)
    entries = study.slides()
    entry = next((e for e in entries if e.fingerprint == request.fingerprint), None)
    others = [e for e in entries if e.fingerprint != request.fingerprint]
    normal = sum(e.label is SlideLabel.NORMAL for e in others)
    moved = tuple(e.known_path.name for e in others if not e.is_there)
    label = SlideLabel.UNKNOWN if entry is None else entry.label
    by_hand = entry is not None and _holds_normal(entry)
    history = History(label=label, normal_slides=normal, normal_by_hand=by_hand, moved=moved)
    folders = study.distillations()
    if not folders:
        return history
    rounds = Rounds.open(folders[-1])
    predicted = set()
    for name in [] if entry is None else entry.predictions():
        distillation, _, number = name.rpartition("-")
        run = entry.prediction(name) if entry is not None and distillation == folders[-1].name else None
        if run is not None and run.record.state is RunState.COMPLETE:
            predicted.add(int(number))
    return replace(
        history,
        folder=folders[-1],
        rounds=tuple(rounds.rounds),
        roles=rounds.roles,
        predicted=frozenset(predicted),
    )


def _holds_normal(entry: StudySlide) -> bool:
    """Whether a person set anything on a slide to normal."""
    corrections = entry.corrections()
    if corrections is None:
        return False
    return any((corrections[y : y + ROWS] == NORMAL).any() for y in range(0, entry.grid.shape[0], ROWS))


@dataclass(frozen=True)
class TakeRequest:
    """Which round of which distillation."""

    study: Path
    folder: Path
    number: int


def take_round(request: TakeRequest, control: JobControl) -> None:
    """Make a round the best model, unless rounds are being done on the study, here or elsewhere."""
    control.progress(0, 0, "Taking the round")
    advice = "make the folder writable, or copy the study to one that is"
    with writing(request.study, advice), Study.open(request.study).distillation_lock():
        Rounds.open(request.folder).take(request.number)


@dataclass(frozen=True)
class AdoptRequest:
    """Which prediction of which slide."""

    entry: StudySlide
    prediction: str


def adopt_round(request: AdoptRequest, control: JobControl) -> None:
    """Make what a round predicts the pseudo-mask of a slide; corrections stay."""
    control.progress(0, 0, "Making the prediction the mask")
    with writing(request.entry.folder, "free disk space or make it writable"), request.entry.lock():
        request.entry.adopt_prediction(request.prediction)


@dataclass(frozen=True)
class PredictionRequest:
    """Which round's prediction of which slide."""

    entry: StudySlide
    prediction: str
    number: int


def open_prediction(request: PredictionRequest, control: JobControl) -> Run | None:
    """Open what is on disk of a prediction, None if there is nothing (yet, or any more: who writes it tells that).

    What the first teacher says is the slide's own result until a round's takes its place, and then kept beside it.
    """
    control.progress(0, 0, "Opening the prediction")
    try:
        run = request.entry.prediction(request.prediction)
        return request.entry.run if run is None and request.number == FIRST_TEACHER else run
    except (HistodistillError, OSError):
        logger.exception("the prediction %s cannot be read", request.prediction)
        return None
