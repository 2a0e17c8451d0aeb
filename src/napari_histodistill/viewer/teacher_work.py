"""Work of the "Teacher" widget that is done on a thread: a study is looked up, or prepared for a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import platformdirs

from napari_histodistill.slide.cache import cache_folder
from napari_histodistill.study import RunState, Study
from napari_histodistill.viewer.saving import read_corrections

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.predict import PredictRequest
    from napari_histodistill.slide import Slide
    from napari_histodistill.study import Run, SavedTissue, StudySlide
    from napari_histodistill.viewer.editing import Mask
    from napari_histodistill.viewer.result import ResultView
    from napari_histodistill.viewer.saving import SavedCorrections

LONGEST_STEM: Final = 200
"""Bytes of a slide's name in that of its study; file systems take 255 in all."""


@dataclass(frozen=True)
class Loaded:
    """What a study knows of a slide."""

    entry: StudySlide
    run: Run | None
    corrections: SavedCorrections
    tissue: SavedTissue | None


@dataclass(frozen=True)
class LoadRequest:
    """Of which slide of which study."""

    folder: Path
    fingerprint: str


def is_replaced(result: ResultView, _control: JobControl) -> bool:
    """Whether another complete run is where a result's run was."""
    if result.run.folder.exists() or not result.entry.folder.exists():
        return False
    run = result.entry.run
    return run is not None and run.record.state is RunState.COMPLETE


def load(request: LoadRequest, control: JobControl) -> Loaded | None:
    """What a study knows of a slide, or None."""
    control.progress(0, 0, "Opening the study")
    entry = Study.open(request.folder).slide(request.fingerprint)
    if entry is None:
        return None
    run = entry.run
    if run is not None:
        entry.tissue_on_grid()  # raises where a result came without its tissue
    return Loaded(entry, run, read_corrections(entry), entry.tissue())


@dataclass(frozen=True)
class Preparation:
    """What a run asks for, of which slide, with which tissue: mask, settings, whether it was edited."""

    request: PredictRequest
    slide: Slide
    target_mpp: float
    tissue: tuple[Mask, dict[str, Any], bool]


def prepare(preparation: Preparation, control: JobControl) -> PredictRequest:
    """Put slide and tissue mask into the study; gives what the child is asked for."""
    control.progress(0, 0, "Preparing the study")
    entry = Study.open_or_create(preparation.request.study_folder).add_slide(
        preparation.slide, target_mpp=preparation.target_mpp
    )
    mask, settings, edited = preparation.tissue
    entry.save_tissue(mask, settings=settings, edited=edited)
    control.checkpoint()
    return preparation.request


def default_study_folder(slide: Path) -> Path:
    """Folder beside the slide where that can be written, otherwise in the user's documents."""
    beside, stem = slide.parent, slide.stem
    while len(os.fsencode(stem)) > LONGEST_STEM:
        stem = stem[:-1]
    if os.access(beside, os.W_OK) and not beside.is_relative_to(cache_folder()):
        return beside / f"{stem}-study"
    return platformdirs.user_documents_path() / "HistoDistill" / f"{stem}-study"
