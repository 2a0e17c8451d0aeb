"""Rounds of distillation on a slide, for the "Distil" widget: the job, its news, the rounds so far, what is shown."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from psygnal import Signal

from napari_histodistill.distill import Landed, Preview, StudyRequest, distill_study, find_recipe
from napari_histodistill.distill.rounds import TEACHER, Roles, Round, Rounds
from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import JobCancelled, JobControl, JobState, ProcessJob, ThreadJob
from napari_histodistill.mil.settings import Epoch
from napari_histodistill.slide.labels import NORMAL
from napari_histodistill.study import SlideLabel, Study
from napari_histodistill.viewer.editing import window_of
from napari_histodistill.viewer.geometry import view_centre, visible_window
from napari_histodistill.viewer.prediction import PredictionView
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from napari_histodistill.distill import StudyResult
    from napari_histodistill.jobs import Progress
    from napari_histodistill.study import Run
    from napari_histodistill.viewer.result import ResultView
    from napari_histodistill.viewer.slides import OpenSlideView

BEST: Final = 0
"""Number under which the first teacher stands among the rounds."""


class Scope(enum.Enum):
    """What students learn from; the value is what the user reads."""

    SLIDE = "This slide"
    REGION = "What is in view"
    STUDY = "All slides of the study"


class DistilState(enum.Enum):
    """Where the distillation stands with a slide; the value is what the user reads."""

    NO_RESULT = "Run the teacher on this slide first"
    READY = "Ready"
    RUNNING = "Learning"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    PREDICTING = "Refreshing the prediction"

    @property
    def busy(self) -> bool:
        """Whether work is under way."""
        return self not in {DistilState.NO_RESULT, DistilState.READY}


@dataclass
class DistilSettings:
    """What the user chose; see `StudyRequest`."""

    rounds: int = 3
    epochs: int = 3
    recipe: str = "default"
    encoder: str | None = None
    device: str = "auto"
    correction_weight: float = 5.0
    most_tiles: int = 200
    scope: Scope = Scope.SLIDE


@dataclass(frozen=True)
class History:
    """The rounds of a study's distillation on disk, and which of them a slide has a prediction of."""

    folder: Path | None = None
    rounds: tuple[Round, ...] = ()
    roles: Roles = field(default_factory=Roles)
    label: SlideLabel = SlideLabel.UNKNOWN
    normal_slides: int = 0

    @property
    def best(self) -> int:
        """Number of the best round; `BEST` while it is the first teacher."""
        return BEST if self.roles.best == TEACHER else int(self.roles.best.rsplit("/", 1)[1])


class DistilControl:
    """The distillation of one slide in a viewer.

    Parameters
    ----------
    view : OpenSlideView

    Attributes
    ----------
    settings : DistilSettings
    history : History
    epochs : list of (int, Epoch)
        Round and record of every epoch of this session, for the curves.
    progress : Progress or None
        Of the job that is under way.
    pinned : int or None
        The round that the user wants to see; None follows the best or, without evidence, the latest.
    shown : int or None
        The round that the prediction layer shows.
    changed : Signal
        Something that a widget shows has changed.
    """

    changed = Signal()

    def __init__(self, view: OpenSlideView) -> None:
        self._view = view
        self.settings = DistilSettings()
        self.history = History()
        self.epochs: list[tuple[int, Epoch]] = []
        self.progress: Progress | None = None
        self.pinned: int | None = None
        self.shown: int | None = None
        self.prediction: PredictionView | None = None
        self._result: ResultView | None = None
        self._stopping = self._predicting = False
        self._round = 0
        self._work, self._loading = Latest(view.runner), Latest(view.runner)
        view.teacher.changed.connect(self._on_teacher)
        self._on_teacher()

    # State

    @property
    def state(self) -> DistilState:
        """Where things stand."""
        job = self._work.job
        if job is not None:
            if self._stopping:
                return DistilState.STOPPING
            if job.state is JobState.PAUSED:
                return DistilState.PAUSED
            return DistilState.PREDICTING if self._predicting else DistilState.RUNNING
        return DistilState.NO_RESULT if self._result is None else DistilState.READY

    @property
    def reason(self) -> str:
        """Why nothing can be started, in a sentence; empty if it can."""
        if self._result is None:
            return "There is no tumour mask to learn from yet: run the teacher on this slide first."
        if self._view.teacher.state.busy:
            return "The teacher is running on this slide: wait for it, or cancel it."
        return ""

    @property
    def advice(self) -> str:
        """What would make the rounds better, in a sentence or two; empty if nothing is missing."""
        if self._result is None:
            return ""
        parts = []
        if self.history.label is SlideLabel.UNKNOWN:
            parts.append("Say whether this slide holds tumour: without that no part of it is a positive example.")
        if not self._has_negatives():
            parts.append(
                "Nothing is known to be normal, so false tumour is hard to unlearn: paint some normal tissue, or add a "
                "slide without tumour to the study and label it normal."
            )
        return " ".join(parts)

    def _has_negatives(self) -> bool:
        if self.history.label is SlideLabel.NORMAL or self.history.normal_slides:
            return True
        assert self._result is not None
        return bool((self._result.mask.hand[::4, ::4] == NORMAL + 1).any())

    # Choices

    def set_label(self, label: SlideLabel) -> None:
        """Say whether the slide holds tumour; kept in the study."""
        if self._result is None or label is self.history.label:
            return
        self._result.entry.label = label
        try:
            self._result.entry.save()
        except HistodistillError as error:
            tell(error)
        self._load()

    def pin(self, number: int | None) -> None:
        """Show a round whatever comes, or follow again."""
        self.pinned = number
        self._show(self._to_show())
        self.changed.emit()

    def take(self, number: int) -> None:
        """Make a round the best model and the next teacher, because the user says so."""
        if self._work.busy or self.history.folder is None:
            return
        try:
            Rounds.open(self.history.folder).take(number)
        except HistodistillError as error:
            tell(error)
        self.pinned = None
        self._load()

    # Running

    def start(self) -> None:
        """Write what is painted, take a snapshot of the settings, and do the rounds in a child process."""
        if self.reason or self._work.busy or self._result is None:
            return
        self._result.flush()
        self._stopping = self._predicting = False
        self._round = len(self.history.rounds) + 1
        self._work.start(
            ProcessJob(distill_study, self._request(self._result)),
            progress=self._on_progress,
            done=self._on_done,
            failed=self._on_failed,
        )
        self.changed.emit()

    def _request(self, result: ResultView) -> StudyRequest:
        chosen, teacher = self.settings, self._view.teacher
        mine = result.entry.fingerprint
        window = None
        if chosen.scope is Scope.REGION and result.mask_layer is not None:
            rows, columns = visible_window(result.mask_layer)
            window = (rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
        y, x = view_centre(self._view.viewer)
        mpp = self._view.slide.require_mpp()
        return StudyRequest(
            study=teacher.study_folder,
            teacher=teacher.model,
            learn=() if chosen.scope is Scope.STUDY else (mine,),
            show=(mine,),
            window=window,
            center=(y / mpp[0] + 0.5, x / mpp[1] + 0.5),
            rounds=chosen.rounds,
            epochs=chosen.epochs,
            recipe=find_recipe(chosen.recipe),
            encoder=chosen.encoder,
            correction_weight=chosen.correction_weight,
            most_tiles=chosen.most_tiles,
            device=chosen.device,
        )

    def pause(self) -> None:
        """Hold the rounds, or let them go on."""
        self._work.pause()
        self.changed.emit()

    def stop(self) -> None:
        """End the rounds; the one that is under way changes nothing."""
        if self._work.job is not None:
            self._stopping = True
            self._work.job.cancel()
            self.changed.emit()

    # News

    def _on_progress(self, progress: Progress) -> None:
        if self._stopping:
            return
        self.progress = progress
        news = progress.payload
        if isinstance(news, Epoch):
            self.epochs.append((self._round, news))
        elif isinstance(news, Preview):
            self._on_preview(news)
        elif isinstance(news, Round):
            self._on_round(news)
        elif isinstance(news, Landed):
            self._on_landed(news)
        self.changed.emit()

    def _on_preview(self, preview: Preview) -> None:
        """A first look at a student, as long as there is no round to look at and none is pinned."""
        if self.prediction is not None and self.pinned is None and not self.history.rounds:
            self.prediction.preview(preview, f"preview of round {preview.round} (still learning)")

    def _on_round(self, done: Round) -> None:
        """A round was judged; its prediction begins to land."""
        self._predicting = True
        before = self.history
        promoted = done.outcome == "promoted"
        roles = replace(before.roles, best=f"rounds/{done.number}") if promoted else before.roles
        folder = before.folder or self._newest_distillation()
        self.history = History(folder, (*before.rounds, done), roles, before.label, before.normal_slides)
        self._show(self._to_show())

    def _on_landed(self, landed: Landed) -> None:
        if self._result is None or self.prediction is None or landed.fingerprint != self._result.entry.fingerprint:
            return
        number = int(landed.prediction.rsplit("-", 1)[1])
        if number == self.shown:
            run = self._result.entry.prediction(landed.prediction)
            if run is not None:
                tile = landed.tile
                self.prediction.land(run, window_of(tile.y, tile.x, tile.height, tile.width))

    def _on_done(self, _result: StudyResult) -> None:
        self._end()

    def _on_failed(self, error: Exception) -> None:
        if not isinstance(error, JobCancelled):
            tell(error)
        self._end()

    def _end(self) -> None:
        self.progress, self._stopping, self._predicting = None, False, False
        self._load()

    # What is shown

    def _to_show(self) -> int | None:
        """The pinned round; else the latest where nothing tells which is better; else the best."""
        if self.pinned is not None:
            return self.pinned
        rounds = self.history.rounds
        if not rounds:
            return None
        return rounds[-1].number if rounds[-1].outcome == "unverified" else self.history.best or None

    def title_of(self, number: int | None) -> str:
        """What the prediction layer is called while it shows a round."""
        rounds = self.history.rounds
        if number is None or not rounds:
            return "prediction: no round yet"
        this, last = rounds[number - 1], rounds[-1]
        if self.pinned is not None:
            return f"prediction: round {number}, {this.outcome} (pinned)"
        if number != last.number:
            return f"prediction: round {last.number} not better, showing round {number}"
        return f"prediction: round {number}, {this.outcome}"

    def _show(self, number: int | None) -> None:
        if self.prediction is None or self._result is None:
            return
        if number is None:
            if self.history.rounds:
                last = self.history.rounds[-1].number
                self.prediction.show(self._result.run, f"prediction: round {last} not better, showing the teacher")
                self.shown = None
            return
        title = self.title_of(number)
        if number == self.shown:
            self.prediction.set_title(title)
            return
        self.shown = number
        self.prediction.show(self._run_of(number), title)

    def _run_of(self, number: int) -> Run | None:
        """The prediction of a round on this slide, if it is on disk."""
        assert self._result is not None
        folder = self.history.folder
        return None if folder is None else self._result.entry.prediction(f"{folder.name}-{number:04d}")

    # Coming and going

    def _on_teacher(self) -> None:
        result = self._view.teacher.result
        if result is not self._result:
            if self.prediction is not None:
                self.prediction.close(remove_layers=True)
            self._result, self.shown, self.pinned = result, None, None
            self.prediction = None if result is None else PredictionView(self._view, result)
            self.history = History()
            if result is not None:
                self._load()
        self.changed.emit()

    def _newest_distillation(self) -> Path | None:
        found = Study.open(self._view.teacher.study_folder).distillations()
        return found[-1] if found else None

    def _load(self) -> None:
        if self._result is not None:
            request = _HistoryRequest(self._view.teacher.study_folder, self._result.entry.fingerprint)
            self._loading.start(ThreadJob(_load_history, request), done=self._on_loaded)
        self.changed.emit()

    def _on_loaded(self, history: History) -> None:
        self.history = history
        self._show(self._to_show())
        self.changed.emit()

    def close(self) -> None:
        """Stop the rounds."""
        self._work.cancel()
        self._loading.cancel()
        if self.prediction is not None:
            self.prediction.close()


@dataclass(frozen=True)
class _HistoryRequest:
    study: Path
    fingerprint: str


def _load_history(request: _HistoryRequest, control: JobControl) -> History:
    """What a study holds of rounds, and the labels of its slides."""
    control.progress(0, 0, "Opening the rounds")
    study = Study.open(request.study)
    entries = study.slides()
    label = next((e.label for e in entries if e.fingerprint == request.fingerprint), SlideLabel.UNKNOWN)
    normal = sum(e.label is SlideLabel.NORMAL for e in entries if e.fingerprint != request.fingerprint)
    folders = study.distillations()
    if not folders:
        return History(label=label, normal_slides=normal)
    rounds = Rounds.open(folders[-1])
    return History(folders[-1], tuple(rounds.rounds), rounds.roles, label, normal)
