"""What the "Study" widget has done in the background: listing, looking, adding, finding again, opening."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.errors import HistodistillError
from napari_histodistill.nets import read_card
from napari_histodistill.predict.overview import Overview, overview_of
from napari_histodistill.slide import MppError, open_slide
from napari_histodistill.study import (
    SlideLabel,
    Study,
    StudyError,
    StudySlide,
    relink_from,
    relink_slide,
    remove_slide,
    removed_slides,
    restore_slide,
)
from napari_histodistill.study.thumbnail import thumbnail_of
from napari_histodistill.viewer.recent import forget, remember

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.slide import Slide


@dataclass(frozen=True)
class ChooseRequest:
    """The folder of a study, and whether it may be a new one."""

    folder: Path
    new: bool = False


def choose_study(request: ChooseRequest, control: JobControl) -> bool:
    """Open a study or, in a folder without one, begin it, and remember it; gives whether it was begun.

    Raises
    ------
    StudyError
        If the folder holds none and can take none; then it is no longer remembered.
    """
    control.progress(0, 0, "Opening the study")
    begins = request.new and not (request.folder / "study.json").exists()
    try:
        if begins:
            Study.create(request.folder)
        else:
            Study.open(request.folder)
    except HistodistillError:
        forget(request.folder)
        raise
    remember(request.folder)
    return begins


@dataclass(frozen=True)
class SlideRow:
    """A slide of the study as the list shows it.

    Attributes
    ----------
    folder : Path
        In the study; tells rows apart.
    path : Path
        The slide file, where it was seen last.
    fingerprint : str
    label : SlideLabel
    mpp : (y, x) or None
        µm per level-0 px.
    there : bool
        Whether the slide file is where it was.
    problem : str
        What is damaged, in a sentence.
    overview : Overview or None
        None until it was read.
    """

    folder: Path
    path: Path
    fingerprint: str = ""
    label: SlideLabel = SlideLabel.UNKNOWN
    mpp: tuple[float, float] | None = None
    there: bool = True
    problem: str = ""
    overview: Overview | None = None

    @property
    def name(self) -> str:
        """Of the slide file."""
        return self.path.name


@dataclass(frozen=True)
class Removed:
    """A slide that was taken out of the study: its folder, and the name of its file."""

    folder: Path
    name: str


@dataclass(frozen=True)
class Listing:
    """The slides of a study, and those that were taken out."""

    rows: tuple[SlideRow, ...]
    removed: tuple[Removed, ...]


def list_study(folder: Path, control: JobControl) -> Listing:
    """What a study holds, without what it knows of each slide."""
    study = Study.open(folder)
    rows = []
    for one in study.slide_folders():
        control.checkpoint()
        rows.append(_row(one))
    return Listing(tuple(rows), tuple(Removed(one, _row(one).name) for one in removed_slides(study)))


def _row(folder: Path) -> SlideRow:
    try:
        entry = StudySlide.open(folder)
    except StudyError as error:
        return SlideRow(folder, Path(folder.name), problem=str(error))
    there = entry.is_there
    return SlideRow(folder, entry.known_path, entry.fingerprint, entry.label, entry.mpp, there)


@dataclass(frozen=True)
class Looked:
    """What was found out about a row; a problem is something that cannot be read."""

    folder: Path
    overview: Overview | None
    thumbnail: NDArray[np.uint8] | None
    problem: str = ""


def look_at_slides(rows: tuple[SlideRow, ...], control: JobControl) -> None:
    """Read what a study knows of slides, and their pictures; reports each as a `Looked`."""
    for number, row in enumerate(rows, start=1):
        control.checkpoint()
        overview, picture, problem = None, None, ""
        try:
            entry = StudySlide.open(row.folder)
            overview = overview_of(entry, control)
            picture = thumbnail_of(entry)
        except HistodistillError as error:
            problem = str(error)
        except OSError as error:
            problem = f"{row.folder} cannot be read ({error.strerror})."
        control.progress(number, len(rows), payload=Looked(row.folder, overview, picture, problem))


@dataclass(frozen=True)
class AddRequest:
    """Slide files, each with a pixel size where the file's is not to be trusted, for a study."""

    study: Path
    slides: tuple[tuple[Path, tuple[float, float] | None], ...]


@dataclass(frozen=True)
class Outcome:
    """What was done, in a sentence, and what went wrong, a sentence each."""

    done: str
    problems: tuple[str, ...] = ()


def add_slides(request: AddRequest, control: JobControl) -> Outcome:
    """Put slides into a study; one that it holds has its place brought up to date."""
    study = Study.open(request.study)
    target_mpp = 2 * read_card("bundled").mpp
    added: list[str] = []
    known: list[str] = []
    problems: list[str] = []
    for number, (path, mpp) in enumerate(request.slides):
        control.checkpoint()
        control.progress(number, len(request.slides), f"Adding {path.name}")
        try:
            with open_slide(path, mpp=mpp) as slide:
                held = study.slide(slide.fingerprint) is not None
                study.add_slide(slide, target_mpp=target_mpp)
            (known if held else added).append(path.name)
        except MppError:
            problems.append(f"The pixel size of {path.name} is unknown: open it, enter the size in Slide, then add it.")
        except HistodistillError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path.name} cannot be added ({error.strerror}): see that it and the study can be used.")
    done = counted(len(added), "added")
    return Outcome(f"{done}, {len(known)} known before" if known else done, tuple(problems))


def holds_any(request: tuple[Path, tuple[str, ...]], control: JobControl) -> bool:
    """Whether a study holds one of the slides with these fingerprints."""
    control.progress(0, 0)
    study = Study(request[0])
    return any(study.holds(fingerprint) for fingerprint in request[1])


@dataclass(frozen=True)
class RelinkRequest:
    """The folder of a slide in a study, and the file that it is said to be."""

    folder: Path
    path: Path


def relink(request: RelinkRequest, control: JobControl) -> Outcome:
    """Say where a slide is that has moved."""
    control.progress(0, 0, f"Looking at {request.path.name}")
    relink_slide(StudySlide.open(request.folder), request.path)
    return Outcome(f"{request.path.name} is found again")


def remove_slides(rows: tuple[SlideRow, ...], control: JobControl) -> Outcome:
    """Take slides out of their study; one that is in use stays."""
    names, problems = [], []
    for number, row in enumerate(rows):
        control.checkpoint()
        control.progress(number, len(rows), f"Taking {row.name} out")
        try:
            remove_slide(row.folder)
            names.append(row.name)
        except HistodistillError as error:
            problems.append(str(error))
    done = f"{', '.join(names)} removed; Restore brings back what was done" if names else ""
    return Outcome(done, tuple(problems))


def restore(removed: Removed, control: JobControl) -> Outcome:
    """Put a slide back that was taken out."""
    control.progress(0, 0, f"Putting {removed.name} back")
    restore_slide(removed.folder)
    return Outcome(f"{removed.name} is back")


@dataclass(frozen=True)
class SearchRequest:
    """Folders of slides in a study, and where to look for their files."""

    folders: tuple[Path, ...]
    place: Path


def search(request: SearchRequest, control: JobControl) -> Outcome:
    """Look in a folder for slides that have moved."""
    found = relink_from(request.place, [StudySlide.open(folder) for folder in request.folders], control)
    done = counted(len(found), "found again")
    left = len(request.folders) - len(found)
    return Outcome(f"{done}; {left} not in {request.place.name}" if left else done)


@dataclass(frozen=True)
class Opened:
    """A slide that was opened for a row, and whether the study holds predictions of rounds of it."""

    row: SlideRow
    slide: Slide
    predicted: bool


def open_slides(rows: tuple[SlideRow, ...], control: JobControl) -> None:
    """Open slide files as the study knows them; reports each as an `Opened`."""
    for number, row in enumerate(rows, start=1):
        control.checkpoint()
        slide = open_slide(row.path, mpp=row.mpp)
        if slide.fingerprint != row.fingerprint:
            slide.close()
            raise StudyError(
                f"{row.name} is not the slide that the study knows by this name, its content differs: relink it, or "
                "add it to the study as another slide."
            )
        predicted = bool(StudySlide.open(row.folder).predictions())
        control.progress(number, len(rows), f"Opening {row.name}", Opened(row, slide, predicted))


def counted(number: int, what: str) -> str:
    """A number of slides in words."""
    return f"{number or 'No'} slide{'s' * (number != 1)} {what}"
