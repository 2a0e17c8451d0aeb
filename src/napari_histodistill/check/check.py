"""Checks a study as a whole, and repairs it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.check.distillations import check_distillation
from napari_histodistill.check.inspection import ASIDE, Inspection, Report
from napari_histodistill.check.slides import check_slide
from napari_histodistill.check.walk import FORBIDDEN, LINK, YOUNG_S, is_young, leftovers, obstacles
from napari_histodistill.study import FileLock, StudyError
from napari_histodistill.study.files import ForbiddenError, refuse_link, write_document
from napari_histodistill.study.locks import Holder
from napari_histodistill.study.slide import BRIEF_LOCKS, LONG_LOCKS
from napari_histodistill.study.study import STUDY_FORMAT, VERSION
from napari_histodistill.urls import require_disk, to_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_histodistill.jobs import JobControl


@dataclass(frozen=True)
class CheckRequest:
    """What to check.

    Parameters
    ----------
    study : Path
    repair : bool
        Mend what can be mended; what is damaged is moved into the study's ``damaged`` folder, nothing is deleted.
    break_lock : bool
        Set aside locks of processes that are not known to run on this computer.
    """

    study: Path
    repair: bool = False
    break_lock: bool = False


def check_study(request: CheckRequest, control: JobControl) -> Report:
    """Read everything of a study and say what is damaged; with ``repair``, mend it.

    Without ``repair`` nothing is written. What another process writes at the moment is left alone.

    Raises
    ------
    StudyError
        If the folder holds no study, may not be read or holds a link in the place of a folder, if a newer version wrote
        it, or, to repair, another process is writing to it.
    """
    require_disk(to_path(request.study))
    folder = request.study.absolute()
    try:
        there = (folder / "study.json").exists() or (folder / "slides").is_dir()
    except PermissionError as error:
        raise ForbiddenError(folder) from error
    if not there:
        raise StudyError(f"{folder} holds no study: choose a folder with study.json in it.")
    for name in ("slides", "distillations", "removed", ASIDE):
        refuse_link(folder / name)
    inspection = Inspection(folder, repair=request.repair)
    if request.break_lock:
        _break_locks(inspection)
    with ExitStack() as held:
        for lock in _locks(folder):
            if request.repair:
                held.enter_context(lock)
            elif _is_held(lock):
                inspection.report.held.append(f"{_name(lock, folder)} is held by {Holder.read(lock.path)}.")
        _check_parts(inspection, control)
    return inspection.report


def _check_parts(inspection: Inspection, control: JobControl) -> None:
    folder = inspection.folder
    record = folder / "study.json"
    document, problem = inspection.document(record, STUDY_FORMAT, VERSION)
    if document is None:

        def mend() -> None:
            inspection.set_aside(record)
            write_document(record, STUDY_FORMAT, VERSION, {"created": "", "software": ""}, copy=True)

        inspection.found(record, problem, "write it anew", mend, lost="when the study was begun")
    parts = list(_parts(inspection))
    for number, part in enumerate(parts):
        control.progress(number, len(parts), "Checking")
        _check_part(inspection, part, control)
        control.checkpoint()
    if not inspection.report.held:
        for left in leftovers(folder):
            _settle_leftover(inspection, left)
    control.progress(len(parts), len(parts), "Checking")


def _parts(inspection: Inspection) -> Iterator[Path]:
    """Folders of slides and distillations; a link among them, or a folder that may not be listed, is told."""
    for name, first in (("slides", ""), ("distillations", "0123456789"), ("removed", None)):
        folder = inspection.folder / name
        if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
            inspection.unchecked(folder, FORBIDDEN)
            continue
        for path in sorted(folder.glob("*")):
            if path.is_symlink():
                inspection.unchecked(path, LINK)
            elif first is not None and path.is_dir() and (not first or path.name[0] in first):
                yield path


def _check_part(inspection: Inspection, part: Path, control: JobControl) -> None:
    """A slide or a distillation; one that holds a link, or what may not be read, is told and left alone."""
    found = list(obstacles(part))
    for path, problem in found:
        inspection.unchecked(path, problem)
    if found:
        return
    try:
        if part.parent.name == "slides":
            check_slide(inspection, part, control)
        elif inspection.repair or not FileLock(inspection.folder / "distill.lock", "").held_by_anyone():
            check_distillation(inspection, part)
    except ForbiddenError as error:  # as Windows has it, which does not tell beforehand
        inspection.unchecked(part, f"cannot be checked ({error})")


def _settle_leftover(inspection: Inspection, left: Path) -> None:
    if is_young(left):
        problem = f"may be being written at this moment, it is younger than {YOUNG_S / 60:g} minutes"
        inspection.found(left, problem, "it is left alone; check again later if it stays", harmless=True)
        return
    problem, remedy = "is what an interrupted write left behind", "move it aside"
    inspection.found(left, problem, remedy, partial(inspection.set_aside, left), harmless=True)


def _locks(folder: Path) -> list[FileLock]:
    """Every lock of a study that is held for longer than a moment."""
    locks = [FileLock(folder / "distill.lock", f"The distillation of {folder.name}")]
    for slide in sorted(path for path in (folder / "slides").glob("*/") if not path.is_symlink()):
        locks += [FileLock(slide / name, slide.name) for name in LONG_LOCKS]
    return locks


def _is_held(lock: FileLock) -> bool:
    """Whether a lock is held; of one that may not be read, the check of its folder tells."""
    try:
        return lock.held_by_anyone()
    except ForbiddenError:
        return False


def _name(lock: FileLock, folder: Path) -> str:
    return lock.path.relative_to(folder).as_posix()


def _break_locks(inspection: Inspection) -> None:
    """Move the files of held locks aside: who comes next locks a new one.

    Raises
    ------
    StudyError
        If a process of this computer holds one and runs.
    """
    brief = [FileLock(path, "") for name in BRIEF_LOCKS for path in sorted(inspection.folder.glob(f"slides/*/{name}"))]
    for lock in [*_locks(inspection.folder), *brief]:
        if not lock.held_by_anyone():
            continue
        holder = Holder.read(lock.path)
        if holder.runs:
            raise StudyError(f"{lock.path} is held by {holder}, which is running on this computer: end it instead.")
        inspection.set_aside(lock.path)
        inspection.report.held.append(f"{_name(lock, inspection.folder)} was held by {holder}; it was broken.")
