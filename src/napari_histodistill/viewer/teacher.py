"""Runs a teacher over a slide for the "Teacher" widget: model, study, job, and the result that comes of it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from napari.utils.notifications import show_info, show_warning
from psygnal import Signal

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import JobCancelled, JobState, ProcessJob, ThreadJob
from napari_histodistill.nets import ModelCard, read_card
from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.predict import PredictRequest, PredictSummary, TileDone, predict_slide
from napari_histodistill.predict.predict import COARSEST
from napari_histodistill.study import RunState, StudyError
from napari_histodistill.viewer.editing import window_of
from napari_histodistill.viewer.geometry import view_centre
from napari_histodistill.viewer.result import ResultView
from napari_histodistill.viewer.teacher_work import (
    Loaded,
    LoadRequest,
    Preparation,
    is_replaced,
    load,
    prepare,
)
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from napari_histodistill.jobs import Progress
    from napari_histodistill.viewer.editing import Window
    from napari_histodistill.viewer.slide_view import OpenSlideView

BUNDLED: Final = "bundled"


class TeacherState(enum.Enum):
    """Where the teacher stands with a slide; the value is what the user reads."""

    NO_MPP = "Pixel size unknown: enter it in the Slide dock"
    READY = "Ready"
    TISSUE = "Finding tissue"
    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    PARTIAL = "Stopped: can be resumed"
    DONE = "Done"
    STALE = "Result is of an earlier tissue mask or model: run again to bring it up to date"

    @property
    def busy(self) -> bool:
        """Whether work is under way."""
        return self in {TeacherState.TISSUE, TeacherState.RUNNING, TeacherState.PAUSED, TeacherState.STOPPING}


class TeacherControl:
    """The teacher of one slide in a viewer.

    Parameters
    ----------
    view : OpenSlideView

    Attributes
    ----------
    model : str
        Name of a model that comes with the package, or a folder.
    card : ModelCard or None
        Of the model; None if it cannot be read.
    device : str
        "auto", "cpu", "cuda" or "mps".
    study_folder : Path
    state : TeacherState
    problem : str
        What keeps the teacher from running, in a sentence; empty if nothing does.
    progress : Progress or None
        Of the run that is under way.
    result : ResultView or None
    ask : callable
        Asks the user a question and returns whether to go on. The widget sets it; without one the answer is yes.
    changed : Signal
        Something that a widget shows has changed.
    """

    changed = Signal()

    def __init__(self, view: OpenSlideView) -> None:
        self._view = view
        self.model = BUNDLED
        self.card: ModelCard | None = None
        self.device = "auto"
        self.study_folder = view.study_folder
        self.problem = ""
        self.progress: Progress | None = None
        self.result: ResultView | None = None
        self.ask: Callable[[str], bool] = lambda _question: True
        self._stopping = self._stale = self._waiting_for_tissue = False
        self._shows_current_run = False
        self._landed: list[Window] = []
        """Windows of the current run that landed before it was on screen."""
        self._work, self._loading, self._opening, self._watching = (Latest(view.runner) for _ in range(4))
        self._looks_without = 0
        self.mask_settings = MaskSettings(0.5)
        self._next_settings: MaskSettings | None = None
        """Of a model that was chosen beside the result of another, or of an import; they hold from its run on."""
        view.moved.connect(self._on_moved)
        view.tissue.changed.connect(self._on_tissue_state)
        view.tissue.mask_changed.connect(self._on_tissue_mask)
        self.choose_model(BUNDLED)
        self.choose_study(self.study_folder)

    # State

    @property
    def state(self) -> TeacherState:
        """Where things stand."""
        job = self._work.job
        if self._view.slide.mpp is None:
            return TeacherState.NO_MPP
        if self._waiting_for_tissue:
            return TeacherState.TISSUE
        if job is not None:
            if self._stopping:
                return TeacherState.STOPPING
            return TeacherState.PAUSED if job.state is JobState.PAUSED else TeacherState.RUNNING
        if self.result is None:
            return TeacherState.READY
        if self._stale:
            return TeacherState.STALE
        return TeacherState.DONE if self.result.run.record.state is RunState.COMPLETE else TeacherState.PARTIAL

    # Choices

    def choose_model(self, model: str) -> None:
        """Choose a model by name, or a folder with ``model.json``; a broken one is told and not taken."""
        try:
            card = read_card(model)
        except HistodistillError as error:
            tell(error)
            self.changed.emit()
            return
        self.model, self.card = model, card
        if self.result is None:
            self.mask_settings = card.mask_settings
        else:
            self._next_settings = card.mask_settings
            self._stale = True
        self.changed.emit()

    def choose_device(self, device: str) -> None:
        """Choose where to compute."""
        self.device = device

    def choose_study(self, folder: Path) -> None:
        """Choose the study folder; a result that it holds for this slide is shown."""
        self._close_result()
        self.study_folder, self.problem, self._stale = folder, "", False
        if (folder / "study.json").exists():
            self._loading.start(
                ThreadJob(load, self._load_request),
                done=self._on_loaded,
                failed=self._on_load_failed,
            )
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            self.problem = f"{folder} holds other files: choose a new or empty folder, or one with a study."
        self.changed.emit()

    def release(self) -> None:
        """Write what is not written and take the result off the screen; `choose_study` brings it back."""
        self._close_result()
        self.changed.emit()

    def set_mask(self, **changes: float) -> None:
        """Change some of `MaskSettings`; a result follows at once."""
        self.mask_settings, self._next_settings = replace(self.mask_settings, **changes), None
        if self.result is not None:
            self.result.set(self.mask_settings)

    # Running

    def run(self, *, resume: bool = False) -> None:
        """Find tissue if need be, ask what must be asked, start the teacher or ``resume`` the run that was stopped."""
        if self.state.busy or self.card is None or self._view.slide.mpp is None or self.problem:
            return
        self._resume = resume
        if self._view.tissue.mask is None:
            self._waiting_for_tissue = True
            self._view.tissue.find()
            self.changed.emit()
        else:
            self._start()

    def _start(self) -> None:
        if not all(self.ask(question) for question in self._questions()):
            self.changed.emit()
            return
        self._stopping = self._shows_current_run = False
        self._landed.clear()
        self._opening.cancel()
        if self._next_settings is not None and not self._resume:
            self.mask_settings, self._next_settings = self._next_settings, None
        self._work.start(ThreadJob(prepare, self._preparation()), done=self._launch, failed=self._on_failed)
        self.changed.emit()

    def _launch(self, request: PredictRequest) -> None:
        """The study is ready: let a child do the rest, unless the user cancelled meanwhile."""
        if self._stopping:
            self._on_failed(JobCancelled("Cancelled."))
            return
        self._work.start(
            ProcessJob(predict_slide, request),
            progress=self._on_progress,
            done=self._on_done,
            failed=self._on_failed,
        )
        self.changed.emit()

    def _questions(self) -> list[str]:
        """What the user should know before the run, each a question to agree to."""
        questions = []
        if self._view.tissue.looks_like_he is False:
            questions.append(
                "This slide does not look like H&E, the only stain that the model knows. Run it all the same?"
            )
        if self._too_coarse():
            assert self.card is not None
            questions.append(
                f"This slide has {max(self._mpp):g} µm per pixel, too coarse for a model that reads {self.card.mpp:g}. "
                "Run it all the same?"
            )
        if self.result is not None and not self._resume and self.result.run.record.state is RunState.COMPLETE:
            questions.append(
                "The study holds a result for this slide. Run again and replace it? Your corrections are kept."
            )
        return questions

    def _too_coarse(self) -> bool:
        return self.card is not None and max(self._mpp) > COARSEST * self.card.mpp

    @property
    def _mpp(self) -> tuple[float, float]:
        return self._view.slide.require_mpp()

    def _preparation(self) -> Preparation:
        """A snapshot of everything that the run needs."""
        assert self.card is not None
        y, x = view_centre(self._view.viewer)
        request = PredictRequest(
            slide_path=self._view.slide.path,
            study_folder=self.study_folder,
            model=self.model,
            device=self.device,
            mpp=self._mpp,
            tissue=self._view.tissue.settings,
            resume=self._resume,
            force=self._too_coarse(),
            center=(y / self._mpp[0] + 0.5, x / self._mpp[1] + 0.5),
            **asdict(self.mask_settings),
        )
        return Preparation(request, self._view.slide, 2 * self.card.mpp, self._view.tissue.saved_form())

    def pause(self) -> None:
        """Hold the run, or let it go on."""
        self._work.pause()
        self.changed.emit()

    def cancel(self) -> None:
        """Stop the run; what was computed stays, and what still comes in is dropped."""
        if self._waiting_for_tissue:
            self._waiting_for_tissue = False
            self._view.tissue.cancel()
        if self._work.job is not None:
            self._stopping = True
            self._work.job.cancel()
        self.changed.emit()

    # News of the run

    def _on_progress(self, progress: Progress) -> None:
        if self._stopping:
            return
        self.progress = progress
        tile = progress.payload
        if isinstance(tile, TileDone):
            window = window_of(tile.y, tile.x, tile.height, tile.width)
            if self._shows_current_run and self.result is not None:
                self.result.land_window(window)
            else:
                self._landed.append(window)
                self._open_current_run()
        self.changed.emit()

    def _open_current_run(self) -> None:
        """Bring the result of the run that is under way on screen."""
        if not self._opening.busy:
            self._opening.start(ThreadJob(load, self._load_request), done=self._on_opened)

    def _on_opened(self, loaded: Loaded | None) -> None:
        if loaded is None or loaded.run is None:
            return  # the next window that lands tries again
        self._show(self._with_present_corrections(loaded))
        self._shows_current_run = True
        assert self.result is not None
        for window in self._landed:
            self.result.land_window(window)
        self._landed.clear()
        self.changed.emit()

    def _with_present_corrections(self, loaded: Loaded) -> Loaded:
        """What was corrected so far is on screen, if there was a result, and may be more than the study has."""
        if self.result is None:
            return loaded
        self.result.close()
        return replace(loaded, corrections=self.result.corrections())

    def _on_done(self, summary: PredictSummary) -> None:
        self._opening.cancel()
        done = partial(self._on_complete, summary)
        self._work.start(ThreadJob(load, self._load_request), done=done, failed=self._on_failed)

    def _on_complete(self, summary: PredictSummary, loaded: Loaded | None) -> None:
        self.progress, self._stale, self._stopping = None, False, False
        if loaded is not None and loaded.run is not None:
            if not self._shows_current_run:
                self._on_opened(loaded)
            assert self.result is not None
            self.result.complete(loaded.run)
            if self.mask_settings != MaskSettings(summary.threshold, summary.smoothing_um, summary.support):
                self.result.set(self.mask_settings)
        self.changed.emit()

    def _on_failed(self, error: Exception) -> None:
        self.progress, self._stopping = None, False
        if not isinstance(error, JobCancelled):
            tell(error)
        self.changed.emit()

    # Results

    @property
    def _load_request(self) -> LoadRequest:
        return LoadRequest(self.study_folder, self._view.slide.fingerprint)

    def _on_loaded(self, loaded: Loaded | None) -> None:
        if loaded is not None:
            if self._view.slide.mpp is None:
                self._view.set_mpp(loaded.entry.mpp)
            if loaded.tissue is not None:
                self._view.tissue.adopt(loaded.tissue)
            for problem in loaded.corrections.problems:
                show_warning(problem)
            if loaded.run is not None:
                self._show(loaded)
                mask, tissue = self._view.tissue.mask, loaded.tissue
                self._stale = mask is not None and tissue is not None and not np.array_equal(mask.data, tissue.mask)
        self.changed.emit()

    def _on_load_failed(self, error: Exception) -> None:
        self.problem = str(error)
        if not isinstance(error, StudyError):
            tell(error)
        self.changed.emit()

    def _show(self, loaded: Loaded) -> None:
        self._close_result()
        assert loaded.run is not None
        tissue, saved = self._view.tissue.mask, loaded.tissue
        if tissue is not None:
            mask = tissue.data
        else:
            assert saved is not None, "no result is loaded without its tissue"
            mask = saved.mask
        if summary := loaded.run.record.summary:
            self.mask_settings = MaskSettings.of_record(summary)
            if self.card is not None and loaded.run.model_name not in {"", self.card.name}:
                self._next_settings = self.card.mask_settings
        self.result = ResultView(self._view, loaded.entry, loaded.run, mask, loaded.corrections, self.mask_settings)
        self.result.figures_changed.connect(self._on_result_news)
        self.result.saved.connect(self._on_result_news)

    def _on_result_news(self, _news: object) -> None:
        self.changed.emit()

    def _close_result(self) -> None:
        if self.result is not None:
            self.result.close(remove_layers=True)
            self.result = None

    # News of others

    def look_for_news(self) -> None:
        """Show corrections and results that other programs have written; cheap enough to be called every second."""
        if self.result is None:
            return
        self.result.look_if_changed()
        if not (self.state.busy or self._loading.busy or self._watching.busy):
            job = ThreadJob(is_replaced, self.result)
            self._watching.start(job, done=partial(self._on_watched, self.result))

    def _on_watched(self, result: ResultView, replaced: bool) -> None:
        """Take over at the second look, as this window may have put it there, once corrections here are on disk."""
        self._looks_without = self._looks_without + 1 if replaced and result is self.result else 0
        if self._looks_without > 1 and result.all_saved and not (self.state.busy or self._loading.busy):
            self._looks_without = 0
            show_info(f"Another program has segmented {self._view.slide.name} anew: its result is shown.")
            self.choose_study(self.study_folder)

    # News of the slide

    def _on_moved(self) -> None:
        self.changed.emit()

    def _on_tissue_state(self) -> None:
        if self._waiting_for_tissue and not self._view.tissue.busy:
            self._waiting_for_tissue = False
            if self._view.tissue.mask is not None:
                self._start()
        self.changed.emit()

    def _on_tissue_mask(self) -> None:
        tissue = self._view.tissue.mask
        if self.result is not None and tissue is not None:
            self._stale = True
            self.result.tissue_changed(tissue.data)

    def close(self, *, wait: bool = False) -> None:
        """Stop the run and write what is not written; see `ResultView.close`."""
        for work in (self._work, self._loading, self._opening, self._watching):
            work.cancel()
        if self.result is not None:
            self.result.close(wait=wait)
