"""The study: a folder on disk with slides, predictions, pseudo-masks and corrections; versioned, written atomically."""

from napari_histodistill.study.files import FileLock, StudyError
from napari_histodistill.study.pyramid import NO_CORRECTION, Pyramid
from napari_histodistill.study.run import Run, RunRecord, RunState
from napari_histodistill.study.study import SlideLabel, Study, StudySlide
from napari_histodistill.study.tissue import SavedTissue, TissueOnGrid

__all__ = [
    "NO_CORRECTION",
    "FileLock",
    "Pyramid",
    "Run",
    "RunRecord",
    "RunState",
    "SavedTissue",
    "SlideLabel",
    "Study",
    "StudyError",
    "StudySlide",
    "TissueOnGrid",
]
