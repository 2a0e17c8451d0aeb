"""The study: a folder on disk with everything about a piece of work on a set of slides.

::

    study.json                          format and version
    slides/<name>-<id>/slide.json       where the slide lies, its fingerprint, grid and mpp
                       slide.lock, predictions.lock   held while a run, or a round's prediction, is written
                       tissue.json, tissue.ome.zarr   tissue and artefacts, on their own coarse grid
                       corrections.journal    what a person set, stroke by stroke
                       corrections.ome.zarr   the same as an array, 255 = nothing
                       audit.json       tissue drawn at random and what a person says of it; review.json, places seen
                       runs/0001/       what the teacher says: run.json, probability and pseudo-mask
                       predictions/0001-0002/   the same of round 2 of distillation 1
                       thumbnail.png    a small picture of the slide
    removed/<name>-<id>/                slides that were taken out, see `membership`
    distillations/0001/                 rounds and their models, see `distill.rounds`
    distill.lock                        held while rounds are done

Documents have a copy beside them, ``study.json.copy``, that is read when they are damaged.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill import __version__
from napari_histodistill.slide.grid import WorkingGrid
from napari_histodistill.study.files import (
    StudyError,
    copy_of,
    read_document,
    refuse_links,
    write_document,
    writing,
)
from napari_histodistill.study.locks import FileLock
from napari_histodistill.study.slide import StudySlide
from napari_histodistill.urls import UrlPath, require_disk, to_path

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slide import Slide

    UInt8 = npt.NDArray[np.uint8]

STUDY_FORMAT, VERSION = "histodistill-study", 1
ID_DIGITS = 10
"""Of a slide's fingerprint, in the name of its folder."""
MPP_TOLERANCE = 0.001
"""Relative difference up to which two pixel sizes are the same."""


class Study:
    """A study folder; make one with `create`, `open` or `open_or_create`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path | str) -> Study:
        """Begin a study in a new or empty folder."""
        folder = to_path(folder).absolute()
        require_disk(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StudyError(f"{folder} is not an empty folder: choose another for the new study.")
        try:
            (folder / "slides").mkdir(parents=True)
        except OSError as error:
            raise StudyError(f"{folder} cannot be made ({error.strerror}): choose another folder.") from error
        content = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "software": __version__}
        write_document(folder / "study.json", STUDY_FORMAT, VERSION, content, copy=True)
        return cls(folder)

    @classmethod
    def open(cls, folder: Path | str) -> Study:
        """Open a study; refuses a folder that holds none, or one of a newer version."""
        folder = to_path(folder).absolute()
        read_document(folder / "study.json", STUDY_FORMAT, VERSION)
        for part in (folder / "slides", folder / "distillations", folder / "removed"):
            if not isinstance(part, UrlPath) and (part.is_symlink() or part.is_dir()):
                refuse_links(part)
        return cls(folder)

    @classmethod
    def open_or_create(cls, folder: Path | str) -> Study:
        """Open the study in ``folder``, or begin one if the folder is missing or empty."""
        folder = to_path(folder)
        empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
        return cls.create(folder) if empty else cls.open(folder)

    def distillations(self) -> list[Path]:
        """Folders of the distillations, oldest first; the last one goes on."""
        return sorted(path.parent for path in (self.folder / "distillations").glob("[0-9]*/state.json"))

    def distillation_lock(self) -> FileLock:
        """The lock that whoever changes a distillation of this study must hold."""
        return FileLock(self.folder / "distill.lock", f"The distillation of {self.folder.name}")

    def slide_folders(self) -> list[Path]:
        """Folder of every slide of the study, by name."""
        return sorted(path.parent for path in (self.folder / "slides").glob("*/slide.json"))

    def slides(self) -> list[StudySlide]:
        """Every slide of the study, by name."""
        return [StudySlide.open(folder) for folder in self.slide_folders()]

    def legible_slides(self) -> tuple[list[StudySlide], dict[Path, StudyError]]:
        """The slides whose records can be read, by name; and of the others, by folder, why not."""
        found: list[StudySlide] = []
        problems: dict[Path, StudyError] = {}
        for folder in self.slide_folders():
            try:
                found.append(StudySlide.open(folder))
            except StudyError as error:
                problems[folder] = error
        return found, problems

    def holds(self, fingerprint: str) -> bool:
        """Whether the study seems to hold a slide, without reading what it knows of any."""
        return any((self.folder / "slides").glob(f"*-{fingerprint[:ID_DIGITS]}/slide.json"))

    def slide(self, fingerprint: str) -> StudySlide | None:
        """The entry of the slide with this fingerprint, if it has one."""
        return next((slide for slide in self.slides() if slide.fingerprint == fingerprint), None)

    def slide_named(self, name: str | None = None) -> StudySlide:
        """The slide with this file name (with or without its ending), or the only one.

        Raises
        ------
        StudyError
            If none or several are meant; the sentence lists what there is.
        """
        slides = self.slides()
        found = [one for one in slides if name in {None, one.known_path.name, one.known_path.stem, one.folder.name}]
        if len(found) == 1:
            return found[0]
        names = ", ".join(repr(one.folder.name if len(found) > 1 else one.known_path.name) for one in found or slides)
        if not slides:
            raise StudyError(f"{self.folder} holds no slides yet: segment one first.")
        if not found:
            raise StudyError(f"{self.folder} has no slide {name!r}: choose from {names}.")
        raise StudyError(f"{self.folder} has several slides that may be meant: choose one of {names}.")

    def add_slide(self, slide: Slide, target_mpp: float = 2.0) -> StudySlide:
        """The slide's entry: a new one, or the one it has (its path is brought up to date).

        Parameters
        ----------
        slide : Slide
            Its mpp must be known (`MppError`).
        target_mpp : float
            Wanted pixel size of the working grid in µm; an existing entry keeps its grid.

        Raises
        ------
        StudyError
            If the study holds this slide with another pixel size.
        """
        mpp = slide.require_mpp()
        entry = self.slide(slide.fingerprint)
        if entry is None:
            name = re.sub(r"[^\w.-]+", "_", slide.path.stem)[:60]
            entry = StudySlide(
                folder=self.folder / "slides" / f"{name}-{slide.fingerprint[:ID_DIGITS]}",
                fingerprint=slide.fingerprint,
                grid=WorkingGrid.for_slide(slide, target_mpp),
                known_path=slide.path.absolute(),
                origin=(0, 0) if slide.metadata.bounds is None else slide.metadata.bounds[:2],
            )
            with writing(entry.folder):
                entry.folder.parent.mkdir(exist_ok=True)
                entry.folder.mkdir(exist_ok=True)
            entry.save()
        elif not np.allclose(entry.mpp, mpp, rtol=MPP_TOLERANCE):
            raise StudyError(
                f"This study holds {slide.path.name} at {entry.mpp[0]:g} µm/px, not at {mpp[0]:g}: use that pixel size "
                "or another study folder."
            )
        elif entry.known_path != slide.path.absolute() or not copy_of(entry.folder / "slide.json").exists():
            entry.known_path = slide.path.absolute()
            entry.save()
        return entry
