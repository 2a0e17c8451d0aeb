"""Checks a study as a whole, and repairs it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.check.distillations import check_distillation
from napari_histodistill.check.inspection import ASIDE, Inspection, Report
from napari_histodistill.check.slides import check_slide
from napari_histodistill.study import FileLock, StudyError
from napari_histodistill.study.files import write_document
from napari_histodistill.study.locks import Holder
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
        If the folder holds no study, a newer version wrote it, or, to repair, another process is writing to it.
    """
    require_disk(to_path(request.study))
    folder = request.study.absolute()
    if not (folder / "study.json").exists() and not (folder / "slides").is_dir():
        raise StudyError(f"{folder} holds no study: choose a folder with study.json in it.")
    inspection = Inspection(folder, repair=request.repair)
    if request.break_lock:
        _break_locks(inspection)
    with ExitStack() as held:
        for lock in _locks(folder):
            if request.repair:
                held.enter_context(lock)
            elif lock.held_by_anyone():
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
    parts = [*sorted((folder / "slides").glob("*/")), *sorted((folder / "distillations").glob("[0-9]*/"))]
    for number, part in enumerate(parts):
        control.progress(number, len(parts), "Checking")
        if part.parent.name == "slides":
            check_slide(inspection, part, control)
        elif inspection.repair or not FileLock(folder / "distill.lock", "").held_by_anyone():
            check_distillation(inspection, part)
        control.checkpoint()
    if not inspection.report.held:
        for left in _leftovers(folder):
            problem, remedy = "is what an interrupted write left behind", "move it aside"
            inspection.found(left, problem, remedy, partial(inspection.set_aside, left), harmless=True)
    control.progress(len(parts), len(parts), "Checking")


def _locks(folder: Path) -> list[FileLock]:
    """Every lock of a study that is held for longer than a moment."""
    locks = [FileLock(folder / "distill.lock", f"The distillation of {folder.name}")]
    for slide in sorted((folder / "slides").glob("*/")):
        locks += [FileLock(slide / name, slide.name) for name in ("slide.lock", "predictions.lock")]
    return locks


def _name(lock: FileLock, folder: Path) -> str:
    return lock.path.relative_to(folder).as_posix()


def _break_locks(inspection: Inspection) -> None:
    """Move the files of held locks aside: who comes next locks a new one.

    Raises
    ------
    StudyError
        If a process of this computer holds one and runs.
    """
    names = ("corrections.lock", "audit.lock")
    brief = [FileLock(path, "") for name in names for path in sorted(inspection.folder.glob(f"slides/*/{name}"))]
    for lock in [*_locks(inspection.folder), *brief]:
        if not lock.held_by_anyone():
            continue
        holder = Holder.read(lock.path)
        if holder.runs:
            raise StudyError(f"{lock.path} is held by {holder}, which is running on this computer: end it instead.")
        inspection.set_aside(lock.path)
        inspection.report.held.append(f"{_name(lock, inspection.folder)} was held by {holder}; it was broken.")


def _leftovers(folder: Path) -> Iterator[Path]:
    """Files and folders that were to be renamed when they were whole."""
    for path in sorted(folder.rglob("*.partial")):
        inside = path.relative_to(folder).parts
        if inside[0] != ASIDE and not any(part.endswith(".partial") for part in inside[:-1]):
            yield path
    for name in ("-new", "-old"):
        for path in sorted(folder.glob(f"slides/*/*/*/pseudo-mask{name}.ome.zarr")):
            if (path.parent / "pseudo-mask.ome.zarr").exists():
                yield path
