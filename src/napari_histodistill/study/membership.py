"""Which slides a study holds: taken out and put back, and found again where they were moved to."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_histodistill.slide.fingerprint import fingerprint
from napari_histodistill.study.files import StudyError, refuse_links
from napari_histodistill.study.locks import FileLock
from napari_histodistill.study.slide import BRIEF_LOCKS, LONG_LOCKS, StudySlide
from napari_histodistill.study.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_histodistill.jobs import JobControl

AGAIN: Final = "~"
"""Between the name of a removed slide's folder and a number, where a slide of that name was removed before."""


def remove_slide(folder: Path) -> Path:
    """Take a slide out of its study; everything about it is moved to the study's ``removed``, nothing is deleted.

    Parameters
    ----------
    folder : Path
        Of the slide in the study.

    Returns
    -------
    Path
        Where it lies now; `restore_slide` puts it back.

    Raises
    ------
    StudyError
        If something works on the slide, or rounds are done on the study, or the study cannot be written.
    """
    study, names = Study(folder.parents[1]), (*LONG_LOCKS, *BRIEF_LOCKS)
    locks = [study.distillation_lock(), *(FileLock(folder / name, f"The slide {folder.name}") for name in names)]
    try:
        with ExitStack() as held:  # nobody begins to work on it while it goes
            for lock in locks:
                held.enter_context(lock)
            target = study.folder / "removed" / folder.name
            target.parent.mkdir(exist_ok=True)
            refuse_links(target.parent)
            number = 2
            while target.exists():
                target = target.with_name(f"{folder.name}{AGAIN}{number}")
                number += 1
            if sys.platform == "win32":  # where a folder with an open file in it cannot be moved
                held.close()
            return folder.rename(target)
    except OSError as error:
        raise StudyError(
            f"{folder.name} cannot be taken out ({error.strerror}): see that the study {study.folder} can be written."
        ) from error


def removed_slides(study: Study) -> list[Path]:
    """Folders of the slides that were taken out, by name."""
    return sorted(path.parent for path in (study.folder / "removed").glob("*/slide.json"))


def restore_slide(folder: Path) -> StudySlide:
    """Put a slide back that `remove_slide` took out.

    Raises
    ------
    StudyError
        If the study holds the slide again, perhaps by another name, or cannot be written.
    """
    study, name = Study(folder.parents[1]), folder.name.partition(AGAIN)[0]
    target, again = study.folder / "slides" / name, study.slide(StudySlide.open(folder).fingerprint)
    if again is not None or target.exists():
        held = name if again is None else again.folder.name
        raise StudyError(f"The study holds {held} again: remove that first, then restore this one.")
    try:
        return StudySlide.open(folder.rename(target))
    except OSError as error:
        raise StudyError(
            f"{name} cannot be put back ({error.strerror}): see that {study.folder} can be written."
        ) from error


def relink_slide(entry: StudySlide, path: Path) -> None:
    """Say where a slide lies that has moved.

    Raises
    ------
    StudyError
        If the file cannot be read, or is another slide: its content is looked at, not its name.
    """
    try:
        found = fingerprint(path)
    except OSError as error:
        raise StudyError(f"{path.name} cannot be read ({error.strerror}): choose the slide's file.") from error
    if found != entry.fingerprint:
        raise StudyError(
            f"{path.name} is another slide than {entry.known_path.name}, its content differs: choose the file that was "
            "moved, or add this one to the study."
        )
    _link(entry, path)


def _link(entry: StudySlide, path: Path) -> None:
    """Write where a slide is into its record as that is now: a person may have labelled it during the search."""
    now = StudySlide.open(entry.folder)
    entry.label = now.label
    entry.known_path = now.known_path = path.absolute()
    now.save()


def relink_from(folder: Path, entries: Iterable[StudySlide], control: JobControl) -> list[StudySlide]:
    """Look for slides in a folder and those inside it, and relink every one that is found.

    Files with the ending of a slide that is looked for are compared by content, whatever they are called. Studies are
    not looked into, nor is an OME-Zarr slide; what cannot be read is passed over.

    Returns
    -------
    list of StudySlide
        Those that were found.
    """
    wanted = {entry.fingerprint: entry for entry in entries}
    endings = {entry.known_path.suffix.lower() for entry in wanted.values()}
    found: list[StudySlide] = []
    total = len(wanted)
    for number, path in enumerate(_candidates(folder, endings, control.checkpoint), start=1):
        control.progress(len(found), total, f"Looking in {folder.name}: {number} files")
        try:
            entry = wanted.pop(fingerprint(path), None)
        except OSError:
            continue
        if entry is not None:
            _link(entry, path)
            found.append(entry)
        if not wanted:
            break
    return found


def _candidates(folder: Path, endings: set[str], checkpoint: Callable[[], None]) -> Iterator[Path]:
    """Files, and folders that are slides, with one of the endings."""
    for place, folders, files in os.walk(folder):
        checkpoint()
        here = Path(place)
        if "study.json" in files:
            folders.clear()
            continue
        slides = [name for name in folders if Path(name).suffix.lower() in endings - {""}]
        folders[:] = [name for name in folders if name not in slides]
        for name in sorted([*slides, *(name for name in files if Path(name).suffix.lower() in endings)]):
            checkpoint()
            yield here / name
