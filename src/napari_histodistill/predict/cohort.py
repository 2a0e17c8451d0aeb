"""Many slides: one after another in this process, or spread over the workers of a cluster."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import JobCancelled
from napari_histodistill.predict.cluster import connected
from napari_histodistill.predict.engine import PREDICTING, Here
from napari_histodistill.predict.predict import predict_slide
from napari_histodistill.predict.request import Notice, PredictRequest, PredictSummary
from napari_histodistill.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.predict.engine import Engine

_log = logging.getLogger(__name__)

SLIDES_AT_ONCE = 3
"""On a cluster: while one slide's last tiles are computed, tissue is found on the next."""


@dataclass(frozen=True)
class CohortRequest:
    """A prediction of several slides.

    Parameters
    ----------
    slides : tuple of PredictRequest
        One per slide; slides of one study or of several.
    scheduler : str
        Address of a dask scheduler whose workers compute; empty for none.
    local_workers : int
        Worker processes to start on this machine instead; 0 for none.
    """

    slides: tuple[PredictRequest, ...]
    scheduler: str = ""
    local_workers: int = 0


@dataclass(frozen=True)
class SlideFailure:
    """A slide that could not be predicted, and the sentence that says why; payload of a progress report too."""

    slide: Path
    sentence: str


Outcome: TypeAlias = PredictSummary | SlideFailure


@dataclass(frozen=True)
class CohortResult:
    """What came of a cohort: summaries in the order of the request, and what failed."""

    summaries: tuple[PredictSummary, ...]
    failures: tuple[SlideFailure, ...]


def predict_cohort(request: CohortRequest, control: JobControl) -> CohortResult:
    """Predict slides; one that fails is reported, and the others go on.

    Progress counts hundredths of slides; reports carry a `Notice` that names its slide, or a `SlideFailure`. Of a
    single slide progress is that of `predict_slide`.

    Raises
    ------
    HistodistillError
        If the cluster cannot be used, or a study folder.
    JobCancelled
        After a cancel; what was computed is kept.
    """
    for folder in dict.fromkeys(one.study_folder for one in request.slides if len(request.slides) > 1):
        Study.open_or_create(folder)  # before several threads would
    cohort, numbers = _Cohort(request.slides, control), range(len(request.slides))
    if request.scheduler or request.local_workers:
        with connected(request.scheduler, request.local_workers) as engine:
            outcomes = _at_once(lambda number: cohort.predict(number, engine), numbers)
    else:
        outcomes = [cohort.predict(number, Here()) for number in numbers]
    return CohortResult(
        tuple(one for one in outcomes if isinstance(one, PredictSummary)),
        tuple(one for one in outcomes if isinstance(one, SlideFailure)),
    )


def _at_once(work: Callable[[int], Outcome], numbers: range) -> list[Outcome]:
    """Do it for several numbers at a time; if one raises, no further one is begun."""
    with ThreadPoolExecutor(SLIDES_AT_ONCE, "slide") as pool:
        futures = [pool.submit(work, number) for number in numbers]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()
    # The exception comes first: only what follows it can have been cancelled.
    return [future.result() for future in sorted(futures, key=Future.cancelled)]


class _Cohort:
    """How far each slide of a cohort is."""

    def __init__(self, slides: tuple[PredictRequest, ...], control: JobControl) -> None:
        self.slides, self.control = slides, control
        self._lock = threading.Lock()
        self._shares = [0.0] * len(slides)
        self._done = self._failed = 0

    def predict(self, index: int, engine: Engine) -> Outcome:
        """Predict a slide. Raises JobCancelled, and of a single slide what was not foreseen."""
        request = self.slides[index]
        self.control.checkpoint()
        control = self.control if len(self.slides) == 1 else _SlideControl(self, index)
        outcome: Outcome
        try:
            outcome = predict_slide(request, control, engine=engine)
        except HistodistillError as error:
            outcome = SlideFailure(request.slide_path, str(error))
        except Exception as error:
            if len(self.slides) == 1 or isinstance(error, JobCancelled):
                raise
            _log.exception("%s failed", request.slide_path)
            what = f"{type(error).__name__}: {error}"
            outcome = SlideFailure(request.slide_path, f"Something that was not foreseen ({what}): please report it.")
        with self._lock:
            if isinstance(outcome, SlideFailure):
                self._failed += 1
            else:
                self._done += 1
        self.report(index, 1.0, outcome if isinstance(outcome, SlideFailure) else None)
        return outcome

    def report(self, index: int, share: float, payload: Any = None) -> None:
        """Tell how far a slide is, from 0 to 1; it never goes back."""
        with self._lock:
            self._shares[index] = max(self._shares[index], share)
            done, count = round(100 * sum(self._shares)), len(self.slides)
            message = f"{self._done} of {count} slides done" + (f", {self._failed} failed" if self._failed else "")
        if count > 1 or payload:
            self.control.progress(done, 100 * count, message, payload)


class _SlideControl:
    """The control that one slide of a cohort sees."""

    def __init__(self, cohort: _Cohort, index: int) -> None:
        self._cohort, self._index = cohort, index

    def progress(self, done: int, total: int, message: str = "", payload: Any = None) -> None:
        """Pass on how many tiles are done, and warnings under the slide's name."""
        if isinstance(payload, Notice):
            payload = Notice(f"{self._cohort.slides[self._index].slide_path.name}: {payload.sentence}")
        share = 0.99 * done / total if total and message == PREDICTING else 0.0
        self._cohort.report(self._index, share, payload if isinstance(payload, Notice) else None)

    def checkpoint(self) -> None:
        """As of the cohort."""
        self._cohort.control.checkpoint()
