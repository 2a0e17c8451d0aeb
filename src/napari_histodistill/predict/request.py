"""What a prediction is asked and what it answers: plain frozen data that crosses to a child process and to JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from napari_histodistill.slide.tissue import TissueSettings

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class PredictRequest:
    """A prediction of one slide.

    Parameters
    ----------
    slide_path : Path
    study_folder : Path
        Made if it does not exist.
    model : str
        Folder of a model, or "bundled".
    device : str
        "auto", "cpu", "cuda" or "mps".
    mpp : float, pair of float (y, x) or None
        Pixel size of the slide in µm that overrides what the file says.
    tissue : TissueSettings
        Used unless the study holds a tissue mask that a person edited.
    resume : bool
        Go on with the slide's newest run; start one if there is none.
    force : bool
        Predict even if the slide is much coarser than the model expects.
    center : pair of float or None
        Level-0 position (y, x) around which to begin; None goes from top to bottom.
    threshold, smoothing_um, support : float or None
        Of the pseudo-mask, see `nets.masking.MaskSettings`. None takes the model card's.
    threads : int or None
        Threads to compute with on a CPU, see `nets.threads.torch_threads`.
    prediction : str
        Name of the prediction to make, see `StudySlide.predictions`; empty for a teacher's run.
    """

    slide_path: Path
    study_folder: Path
    model: str = "bundled"
    device: str = "auto"
    mpp: float | tuple[float, float] | None = None
    tissue: TissueSettings = field(default_factory=TissueSettings)
    resume: bool = False
    force: bool = False
    center: tuple[float, float] | None = None
    threshold: float | None = None
    smoothing_um: float | None = None
    support: float | None = None
    threads: int | None = None
    prediction: str = ""


@dataclass(frozen=True)
class TileDone:
    """Payload of a progress report: this window of the probability, in working-grid px, has new pixels."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True)
class Notice:
    """Payload of a progress report: a warning for the user, which the summary repeats."""

    sentence: str


@dataclass(frozen=True)
class PredictSummary:
    """What a prediction found.

    Attributes
    ----------
    slide, study_folder, slide_folder : str
        Paths; ``slide_folder`` is the slide's entry in the study.
    model, device : str
    tumour_mm2, tissue_mm2 : float
        Areas of the corrected pseudo-mask; tissue is tumour and normal tissue, without what is ignored.
    tumour_percent : float
        Tumour in percent of tissue, 0 without tissue.
    mean_probability : float
        Over tissue, from 0 to 1; 0 without tissue.
    threshold, smoothing_um, support : float
        What the pseudo-mask was made with.
    pixel_size_um : pair of float
        Of the working grid, (y, x).
    unreadable : int
        Regions of the slide that could not be read and count as no tissue.
    tiles, tiles_computed : int
        Tiles of the slide's tissue, and how many of them this call computed: fewer after a resume.
    seconds : float
        Duration of this call.
    warnings : list of str
        Sentences for the user.
    """

    slide: str
    study_folder: str
    slide_folder: str
    model: str
    device: str
    tumour_mm2: float
    tissue_mm2: float
    tumour_percent: float
    mean_probability: float
    threshold: float
    smoothing_um: float
    support: float
    pixel_size_um: tuple[float, float]
    unreadable: int
    tiles: int
    tiles_computed: int
    seconds: float
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
