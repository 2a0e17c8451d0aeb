"""The study: a folder on disk with slides, predictions, pseudo-masks and corrections; versioned, written atomically."""

from napari_histodistill.study.audit import Audit, AuditPatch
from napari_histodistill.study.corrections import Corrections, Origin
from napari_histodistill.study.files import StudyError
from napari_histodistill.study.journal import Entry, Patch, timeline
from napari_histodistill.study.locks import FileLock
from napari_histodistill.study.membership import (
    relink_from,
    relink_slide,
    remove_slide,
    removed_slides,
    restore_slide,
)
from napari_histodistill.study.pyramid import NO_CORRECTION, Pyramid
from napari_histodistill.study.run import Run, RunRecord, RunState
from napari_histodistill.study.slide import SlideLabel, StudySlide
from napari_histodistill.study.study import Study
from napari_histodistill.study.tissue import SavedTissue, TissueOnGrid

__all__ = [
    "NO_CORRECTION",
    "Audit",
    "AuditPatch",
    "Corrections",
    "Entry",
    "FileLock",
    "Origin",
    "Patch",
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
    "relink_from",
    "relink_slide",
    "remove_slide",
    "removed_slides",
    "restore_slide",
    "timeline",
]
