"""Distillation of a study: what is asked, the news that come of it, and the work that a child process does.

Importing this does not load torch: a window makes the request and reads the news, the child does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_histodistill.distill.recipe import DistillRecipe

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_histodistill.distill.rounds import Round
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.predict import TileDone


@dataclass(frozen=True)
class StudyRequest:
    """Distil on the slides of a study.

    Attributes
    ----------
    study : Path
    teacher : str
        Folder of the first teacher, or "bundled". A study's distillation goes on while this stays the same, and another
        begins when it changes.
    learn : tuple of str
        Fingerprints of the slides to learn from; if empty all that a teacher has seen, without those that have moved.
    show : tuple of str
        Fingerprints of the slides that every round predicts, in this order; those learnt from if empty.
    window : (y, x, height, width), optional
        Learn from this part of the working grid only.
    center : (y, x), optional
        Level-0 position on the first shown slide around which predictions begin and previews are made.
    rounds : int
        To do now.
    epochs : int, optional
        Of each round; the recipe's if None.
    recipe : DistillRecipe
    encoder : str, optional
        Of students that start new; the teacher's if None.
    correction_weight : float
        Weight of a corrected pixel; pseudo-targets weigh 1. At most 15.
    most_tiles : int
        Tiles that a round learns from.
    seed : int
    device : str
    threads : int, optional
        CPU threads, see `nets.threads.torch_threads`.
    resume : bool
        Go on with a round that was cut, under the same settings; the corrections should be those it began with. Where
        only the predictions of the last round were cut, they are made whole before the next.
    """

    study: Path
    teacher: str = "bundled"
    learn: tuple[str, ...] = ()
    show: tuple[str, ...] = ()
    window: tuple[int, int, int, int] | None = None
    center: tuple[float, float] | None = None
    rounds: int = 3
    epochs: int | None = None
    recipe: DistillRecipe = field(default_factory=DistillRecipe)
    encoder: str | None = None
    correction_weight: float = 5.0
    most_tiles: int = 200
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    resume: bool = False


@dataclass(frozen=True)
class LeftOut:
    """Slides of the study, by file name, that are not learnt from because they are not where they were."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        if len(self.names) == 1:
            return f"{self.names[0]} is not where it was and is left out: relink it in the study to learn from it too."
        names = ", ".join(self.names)
        return f"{len(self.names)} slides are not where they were and are left out ({names}): relink them in the study."


@dataclass(frozen=True)
class Begun:
    """A round begins.

    Attributes
    ----------
    folder : Path
        Of the distillation that the study goes on with, or has begun.
    round : int
    """

    folder: Path
    round: int


@dataclass(frozen=True)
class Preview:
    """What an unfinished student says of the place in view; saved nowhere.

    Attributes
    ----------
    fingerprint : str
        The slide.
    y, x : int
        Where it lies, in working-grid px.
    probability : uint8 (h, w)
        Tumour probability x 255.
    round, epoch : int
    """

    fingerprint: str
    y: int
    x: int
    probability: NDArray[np.uint8]
    round: int
    epoch: int


@dataclass(frozen=True)
class Landed:
    """A window of a round's prediction is on disk.

    Attributes
    ----------
    fingerprint : str
        The slide.
    prediction : str
        Name in `StudySlide.predictions`.
    tile : TileDone
    """

    fingerprint: str
    prediction: str
    tile: TileDone


@dataclass(frozen=True)
class StudyResult:
    """What came of it: the folder of the distillation and the rounds that were done now."""

    folder: Path
    rounds: tuple[Round, ...]


def distill_study(request: StudyRequest, control: JobControl) -> StudyResult:
    """Do rounds on the slides of a study; each leaves a model and a prediction of every slide shown.

    What a round began and did not end changes nothing that was saved. Reports carry `Begun`, `Epoch`, `Preview`,
    `Round` and `Landed` as they come, and `LeftOut` if slides have moved.

    Raises
    ------
    HistodistillError
        If study, slides or teacher cannot be used as asked.
    JobCancelled
        After a cancel.
    """
    from napari_histodistill.distill.study import run_study

    return run_study(request, control)
