"""Rounds of distillation on a slide, for the "Distil" widget: the job, its news, the rounds so far."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from napari.utils.notifications import show_warning
from psygnal import Signal

from napari_histodistill.distill import Begun, Landed, LeftOut, Preview, StudyRequest, distill_study, find_recipe
from napari_histodistill.distill.rounds import Roles, Round
from napari_histodistill.jobs import JobCancelled, JobState, ProcessJob, ThreadJob
from napari_histodistill.mil.settings import Epoch
from napari_histodistill.slide.labels import NORMAL
from napari_histodistill.study import RunState, SlideLabel
from napari_histodistill.viewer.editing import clip_window
from napari_histodistill.viewer.following import ShownRound
from napari_histodistill.viewer.geometry import view_centre, visible_window
from napari_histodistill.viewer.history import (
    AdoptRequest,
    History,
    HistoryRequest,
    TakeRequest,
    adopt_round,
    load_history,
    take_round,
)
from napari_histodistill.viewer.labelling import LabelWriter
from napari_histodistill.viewer.teacher import TeacherState
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.distill import StudyResult
    from napari_histodistill.jobs import Progress
    from napari_histodistill.viewer.editing import Window
    from napari_histodistill.viewer.labelling import Labels
    from napari_histodistill.viewer.prediction import PredictionView
    from napari_histodistill.viewer.result import ResultView
    from napari_histodistill.viewer.slide_view import OpenSlideView

logger = logging.getLogger(__name__)


TEACHER_RUNS: Final = "The teacher is running on this slide: wait for it, or cancel it."


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


class DistilControl:
    """The distillation of one slide in a viewer.

    Parameters
    ----------
    view : OpenSlideView

    Attributes
    ----------
    settings : DistilSettings
    history : History
    progress : Progress or None
        Of the job that is under way.
    on_screen : ShownRound
        What the prediction layer shows.
    changed : Signal
        Something that a widget shows has changed.
    """

    changed = Signal()

    def __init__(self, view: OpenSlideView) -> None:
        self._view = view
        self.settings = DistilSettings()
        self.history = History()
        self._told_epochs: list[tuple[int, Epoch]] = []
        self.progress: Progress | None = None
        self.on_screen = ShownRound(view)
        self.on_screen.opened.connect(self.changed.emit)
        self._result: ResultView | None = None
        self._stopping = self._predicting = False
        self._round = 0
        self._told: set[LeftOut] = set()
        self._study: Path | None = None
        self._work, self._loading, self._taking, self._adopting = (Latest(view.runner) for _ in range(4))
        self._labels = LabelWriter(view.runner, self._on_labelled)
        view.teacher.changed.connect(self._on_teacher)
        self._on_teacher()

    # State

    @property
    def epochs(self) -> list[tuple[int, Epoch]]:
        """Round and record of every epoch, for the curves: of rounds on disk, then of the one that is under way."""
        done = [(each.number, Epoch(**record)) for each in self.history.rounds for record in each.epochs]
        known = {number for number, _ in done}
        return [*done, *((number, epoch) for number, epoch in self._told_epochs if number not in known)]

    @property
    def prediction(self) -> PredictionView | None:
        """The prediction layer's controller, None while there is no result."""
        return self.on_screen.prediction

    @property
    def pinned(self) -> int | None:
        """The round that the user wants to see; None follows the best or, without evidence, the latest."""
        return self.on_screen.pinned

    @property
    def shown(self) -> int | None:
        """The round that the prediction layer shows, `FIRST_TEACHER` or None for none."""
        return self.on_screen.number

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
            return TEACHER_RUNS
        if self._result.run.record.state is not RunState.COMPLETE:
            return "The teacher was stopped before it had seen all of this slide: resume it first."
        if self._taking.busy:
            return "The chosen round is being made the best model: a moment."
        return ""

    @property
    def adopt_reason(self) -> str:
        """Why no round can be made the mask now, in a sentence; empty if one can."""
        if self._view.teacher.state.busy:
            return TEACHER_RUNS
        if self._work.busy:
            return "The model is learning: wait until the rounds are over, or stop them."
        return "The chosen round is being made the mask: a moment." if self._adopting.busy else ""

    @property
    def advice(self) -> str:
        """What would make the rounds better, in a sentence or two; empty if nothing is missing."""
        if self._result is None:
            return ""
        parts = []
        if self._view.teacher.state is TeacherState.STALE:
            parts.append(
                "The mask is of an earlier tissue mask or model: run the teacher again to learn from this one."
            )
        if self.history.label is SlideLabel.UNKNOWN:
            parts.append("Say whether this slide holds tumour: without that no part of it is a positive example.")
        if not self._has_negatives():
            parts.append(
                "Nothing is known to be normal, so false tumour is hard to unlearn: paint some normal tissue, or add a "
                "slide without tumour to the study and label it normal."
            )
        if self.settings.scope is Scope.STUDY and self.history.moved:
            parts.append(str(LeftOut(self.history.moved)))
        return " ".join(parts)

    def _has_negatives(self) -> bool:
        history = self.history
        return history.label is SlideLabel.NORMAL or history.normal_slides > 0 or history.normal_by_hand

    # Choices

    def set_label(self, label: SlideLabel) -> None:
        """Say whether the slide holds tumour; kept in the study."""
        if self._result is None or label is self.history.label:
            return
        self._result.entry.label = label
        self.history = replace(self.history, label=label)
        self._labels.write([(self._result.entry.folder, label)])
        self.changed.emit()

    def _on_labelled(self, _labels: Labels, _problem: str) -> None:
        if not self._labels.busy:
            self._load()  # shows what the study holds

    def pin(self, number: int | None) -> None:
        """Show a round whatever comes, or follow again."""
        self.on_screen.pin(number)
        self.changed.emit()

    def take(self, number: int) -> None:
        """Make a round, or the first teacher, the best model and the next teacher, because the user says so."""
        if self._work.busy or self.history.folder is None:
            return
        request = TakeRequest(self._view.teacher.study_folder, self.history.folder, number)
        self._taking.start(ThreadJob(take_round, request), done=self._on_taken, failed=self._on_failed)
        self.changed.emit()

    def adopt(self, number: int) -> None:
        """Make what a round predicts the tumour mask that is corrected; corrections stay what they are."""
        name = self.history.prediction_name(number)
        if self.adopt_reason or self._result is None or name is None or number not in self.history.predicted:
            return
        self._result.flush()
        request = AdoptRequest(self._result.entry, name, self._result.settings)
        self._adopting.start(ThreadJob(adopt_round, request), done=self._on_adopted, failed=self._on_failed)
        self.changed.emit()

    def _on_adopted(self, _result: None) -> None:
        teacher = self._view.teacher
        teacher.choose_study(teacher.study_folder)  # shows the mask that the study holds now

    def _on_taken(self, _result: None) -> None:
        self.on_screen.pinned = None
        self._load()

    # Running

    def start(self) -> None:
        """Write what is painted, take a snapshot of the settings, and do the rounds in a child process."""
        if self.reason or self._work.busy or self._result is None:
            return
        self._result.flush()
        self._labels.finish()
        self._stopping = self._predicting = False
        if self.prediction is not None:
            self.prediction.expect()
        self._told.clear()
        self._study = self._view.teacher.study_folder
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
            rows, columns = clip_window(visible_window(result.mask_layer), result.mask.shape)
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
        if isinstance(news, Begun):
            self._on_begun(news)
        elif isinstance(news, Epoch):
            self._told_epochs.append((self._round, news))
        elif isinstance(news, Preview):
            self.on_screen.preview(news)
        elif isinstance(news, Round):
            self._on_round(news)
        elif isinstance(news, Landed):
            self.on_screen.land(news)
        elif isinstance(news, LeftOut) and news not in self._told:  # every round tells it
            self._told.add(news)
            show_warning(str(news))
        self.changed.emit()

    def _on_begun(self, begun: Begun) -> None:
        """A round begins, of the distillation on screen or of a new one because the teacher is another."""
        self._round, self._predicting, history = begun.round, False, self.history
        anew = begun.folder != history.folder
        self._told_epochs = [] if anew else [told for told in self._told_epochs if told[0] < begun.round]
        if anew:
            self.history = replace(history, folder=begun.folder, rounds=(), roles=Roles(), predicted=frozenset())
        elif self._round > 1:  # the one before was predicted first
            self.history = replace(history, predicted=history.predicted | {self._round - 1})
        self._follow()

    def _on_round(self, done: Round) -> None:
        """A round was judged; its prediction begins to land."""
        self._predicting = True
        before = self.history
        promoted = done.outcome == "promoted"
        roles = replace(before.roles, best=f"rounds/{done.number}", taken=None) if promoted else before.roles
        rounds = (*before.rounds[: done.number - 1], done)  # it may have been read from disk a moment ago
        self.history = replace(before, rounds=rounds, roles=roles)
        self._follow()

    def _follow(self) -> None:
        self.on_screen.follow(self.history, learning=self._work.busy)

    def _on_done(self, _result: StudyResult) -> None:
        self._end()

    def _on_failed(self, error: Exception) -> None:
        if not isinstance(error, JobCancelled):
            tell(error)
        self._end()

    def _end(self) -> None:
        self.progress, self._stopping, self._predicting, self._study = None, False, False, None
        self._load()

    # Coming and going

    def _on_teacher(self) -> None:
        result = self._view.teacher.result
        if self._study not in {None, self._view.teacher.study_folder}:
            self._work.cancel()  # its news are of another study
            self.progress, self._stopping, self._predicting, self._study = None, False, False, None
        if result is not self._result:
            self._labels.finish()
            self._loading.cancel()
            self.on_screen.begin(result)
            self._result, self.history = result, History()
            if not self._work.busy:
                self._told_epochs.clear()
            if result is not None:
                result.mask.edited.connect(self._on_edited)
                self._load()
        self.changed.emit()

    def _on_edited(self, window: Window) -> None:
        if self._result is not None and not self.history.normal_by_hand:
            by_hand = bool((self._result.mask.hand[window] == NORMAL + 1).any())
            self.history = replace(self.history, normal_by_hand=by_hand)

    def reload(self) -> None:
        """Read anew what the study knows of rounds and of its slides, which others may have changed."""
        self._load()

    def _load(self) -> None:
        if self._result is not None:
            request = HistoryRequest(self._view.teacher.study_folder, self._result.entry.fingerprint)
            self._loading.start(ThreadJob(load_history, request), done=self._on_loaded)
        self.changed.emit()

    def _on_loaded(self, history: History) -> None:
        before, self.history = self.history, history
        behind = self._work.busy and len(history.rounds) < len(before.rounds)
        if behind and history.folder == before.folder:  # it was read before the last round was over
            self.history = replace(history, rounds=before.rounds, roles=before.roles)
        if self._labels.busy and self._result is not None:  # it was read before the label was written
            self.history = replace(self.history, label=self._result.entry.label)
        self._follow()
        self.on_screen.read_again()
        self.changed.emit()

    def close(self) -> None:
        """Stop the rounds."""
        self._work.cancel()
        self._loading.cancel()
        self._taking.cancel()
        self._adopting.cancel()
        self._labels.finish()
        self.on_screen.close()
