"""The slides of a study: record, tissue, corrections, runs and predictions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.check.arrays import compute_anew, damaged_chunks, settle_coarse, settle_heads
from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.predict.predict import write_pseudo_mask
from napari_histodistill.slide.grid import WorkingGrid
from napari_histodistill.study import NO_CORRECTION, Pyramid, Run, RunState, StudySlide
from napari_histodistill.study.audit import AUDIT
from napari_histodistill.study.files import DamagedError, ForbiddenError, StudyError, copy_of
from napari_histodistill.study.pyramid import Plan
from napari_histodistill.study.review import REVIEW
from napari_histodistill.study.run import FORMAT as RUN_FORMAT
from napari_histodistill.study.run import VERSION as RUN_VERSION
from napari_histodistill.study.slide import SLIDE_FORMAT, TISSUE_FORMAT, VERSION, tissue_array

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.check.inspection import Inspection
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.study.record import Record

_NO_HEAD = (OSError, LookupError, ValueError, TypeError, ArithmeticError)


def check_slide(inspection: Inspection, folder: Path, control: JobControl) -> None:
    """Check everything that a study knows of a slide.

    Raises
    ------
    StudyError
        If its folder is a link or holds one.
    """
    record = folder / "slide.json"
    document, problem = inspection.document(record, SLIDE_FORMAT, VERSION)
    if inspection.awaits_its_copy(record, document):
        return
    try:
        entry = StudySlide.open(folder) if document is not None else None
    except DamagedError as error:  # and not a link in the folder, which is told by itself: the record is sound
        entry, problem = None, str(error)
    if entry is None:
        inspection.found(
            record,
            problem,
            "move it aside; open the slide again with this study, and everything else of it is found again",
            lambda: inspection.set_aside(record, copy_of(record)),
            lost="the slide's label and where its file lies",
        )
        return
    _check_tissue(inspection, entry)
    _check_corrections(inspection, entry)
    _check_record(inspection, entry, AUDIT)
    _check_record(inspection, entry, REVIEW)
    for run in sorted([*folder.glob("runs/*/"), *folder.glob("predictions/*/")]):
        control.checkpoint()
        busy = entry.predictions_lock() if run.parent.name == "predictions" else entry.lock()
        if inspection.repair or not busy.held_by_anyone():
            _check_run(inspection, entry, run, control)


def _check_record(inspection: Inspection, entry: StudySlide, record: Record[Any]) -> None:
    """A document that nothing else can bring back but its copy: that it can be read, and says what can be."""
    path = record.path(entry.folder)
    if not path.exists() and not copy_of(path).exists():
        return

    def can_be(document: dict[str, Any]) -> bool:
        return not record.problem(document, entry.grid)

    document, problem = inspection.document(path, record.kind, record.version, copied=can_be)
    if document is not None:
        said = record.problem(document, entry.grid)
        if not said:
            return
        problem = f"says what cannot be ({said})"
        spare = inspection.read_one(copy_of(path), record.kind, record.version)[0]
        if spare is not None and can_be(spare):
            inspection.put_copy_back(path, problem)
            return
    remedy = "move it aside"
    inspection.found(path, problem, remedy, lambda: inspection.set_aside(path, copy_of(path)), lost=record.holds)


def _check_tissue(inspection: Inspection, entry: StudySlide) -> None:
    record = entry.folder / "tissue.json"
    if not record.exists() and not copy_of(record).exists():
        return
    document, problem = inspection.document(record, TISSUE_FORMAT, VERSION)
    array = None
    try:
        if document is not None:
            array = tissue_array(entry.folder, document)
            shape = _tissue_shape(entry, array)
            if shape is not None:
                grid = WorkingGrid(shape, entry.grid.slide_shape, entry.mpp)
                settle_heads(inspection, array, Plan(grid, "labels", "tissue", multiscale=False))
            saved = entry.tissue()
            if saved is None or not {"settings", "edited"} <= document.keys():
                problem = "is not complete"
            elif any(True for _ in damaged_chunks(inspection, Pyramid(array))):
                problem = f"its array {array.name} has damaged chunks"
    except ForbiddenError:
        raise
    except StudyError as error:
        problem = f"its array cannot be read ({error})"
    if problem:
        parts = [record, copy_of(record), *([array] if array is not None else [])]
        inspection.found(
            record,
            problem,
            "move it aside; tissue is found anew when the slide is segmented or opened",
            lambda: inspection.set_aside(*parts),
            lost="the tissue mask, with what was edited by hand",
        )


def _tissue_shape(entry: StudySlide, array: Path) -> tuple[int, int] | None:
    """The shape of the tissue's grid by one of the array's heads, the group's (where it says the scale) or its own."""
    try:
        scale = json.loads((array / "zarr.json").read_text(encoding="utf-8"))
        scale = scale["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
        height, width = (round(n * m / s) for n, m, s in zip(entry.grid.slide_shape, entry.mpp, scale, strict=True))
    except _NO_HEAD:
        try:
            height, width = json.loads((array / "0" / "zarr.json").read_text(encoding="utf-8"))["shape"]
        except _NO_HEAD:
            return None
    return (height, width) if min(height, width) > 0 else None


def _check_corrections(inspection: Inspection, entry: StudySlide) -> None:
    corrections = entry.all_corrections()
    journal, array = entry.folder / "corrections.journal", entry.folder / "corrections.ome.zarr"
    if not corrections.exist:
        if (entry.folder / "corrections.json").exists():
            problem, lost, mark = (
                "journal and array are both gone",
                "all corrections",
                entry.folder / "corrections.json",
            )
            inspection.found(journal, problem, "begin anew", lambda: inspection.set_aside(mark), lost=lost)
        return
    inspection.report.files += journal.exists()
    scan = corrections.entries()
    if scan.torn:
        remedy = "the next correction takes its place"
        inspection.found(
            journal, "its last entry was cut short while it was written", remedy, lambda: None, harmless=True
        )

    def mend() -> None:
        corrections.mend(inspection.keep_copy, inspection.set_aside)

    if not journal.exists():
        if (entry.folder / "corrections.json").exists():
            remedy, lost = "begin a new one with what the array holds", "undo of earlier strokes"
            inspection.found(journal, "is gone", remedy, mend, lost=lost)
            return
        plan = Plan(entry.grid, "labels", "corrections", NO_CORRECTION, multiscale=False)
        if settle_heads(inspection, array, plan) and corrections.unsound_tiles():
            count = len(corrections.unsound_tiles())
            remedy, lost = "keep the others, in a new journal", f"corrections in {count} tile(s) of 256 px"
            inspection.found(array, f"{count} of its chunks are damaged", remedy, mend, lost=lost)
        return
    sound = [problem for problem in corrections.problems() if "cut short" not in problem]
    if sound:
        damaged = scan.damaged
        problem = f"{damaged} stretch(es) of it are damaged" if damaged else "its head is damaged"
        remedy = "write it anew with everything that it and the array still hold"
        lost = f"undo of what was there, and strokes that the array did not hold yet ({damaged} or more)"
        inspection.found(journal, problem, remedy, mend, lost=lost if damaged else "")
        return
    before, tiles = corrections.stamp(), corrections.unsound_tiles()
    if tiles and corrections.stamp() == before:  # else somebody painted meanwhile, and the journal said less at first
        problem = f"{len(tiles)} of its tiles are not what the journal says"
        inspection.found(array, problem, "make it anew from the journal, which has it all", mend)


def _check_run(inspection: Inspection, entry: StudySlide, folder: Path, control: JobControl) -> None:
    record = folder / "run.json"
    if not record.exists() and not copy_of(record).exists():
        remedy = "move it aside"
        inspection.found(
            folder, "has no record, so it is no run", remedy, lambda: inspection.set_aside(folder), harmless=True
        )
        return
    document, problem = inspection.document(record, RUN_FORMAT, RUN_VERSION, copied=lambda _: False)
    if inspection.awaits_its_copy(record, document):
        return
    run = None
    heads = settle_heads(inspection, folder / "probability.ome.zarr", Plan(entry.grid, "image", "tumour probability"))
    if document is not None and heads:
        try:
            run = Run.open(folder, entry.grid, writable=inspection.repair)
        except DamagedError as error:
            problem = str(error)
    if run is None:
        if problem:
            inspection.found(
                record,
                problem,
                "move the run aside; segment the slide again",
                lambda: inspection.set_aside(folder),
                lost="what the model said of the slide",
            )
        return
    lost = _check_probability(inspection, run)
    _check_mask(inspection, entry, run, control, outdated=lost)
    _check_tiles(inspection, run)


def _check_probability(inspection: Inspection, run: Run) -> bool:
    """Whether chunks were lost, and the pseudo-mask no longer fits."""
    pyramid = run.probability
    damaged = list(damaged_chunks(inspection, pyramid))
    fine = [(path, window) for level, path, window in damaged if level == 0]

    def mend() -> None:
        if run.record.state is RunState.COMPLETE:
            run.record.unreadable.extend(window for _, window in fine if window not in run.record.unreadable)
        else:
            run.record.finished = set()
        run.save()  # first: chunks that are gone read as no tumour, and nothing would tell that they were lost
        compute_anew(inspection, pyramid, damaged)

    if fine:
        y, x = fine[0][1][:2]
        problem = f"{len(fine)} of its chunks are damaged, the first at y {y}, x {x}"
        if run.record.state is RunState.COMPLETE:
            remedy = "count them as no tissue, as regions that could not be read; segment the slide again to have all"
            lost = f"probabilities of {sum(h * w for _, (_, _, h, w) in fine)} px of the working grid"
        else:
            remedy, lost = "compute the run from its beginning when it is resumed", ""
        inspection.found(pyramid.folder, problem, remedy, mend, lost=lost)
    elif damaged:
        settle_coarse(inspection, pyramid, damaged)
    return bool(fine) and inspection.repair


def _check_mask(inspection: Inspection, entry: StudySlide, run: Run, control: JobControl, *, outdated: bool) -> None:
    folders = [folder for name in ("", "-old") if (folder := run.folder / f"pseudo-mask{name}.ome.zarr").exists()]
    complete = run.record.state is RunState.COMPLETE
    problem = "" if folders or not complete else "is gone"
    folder = folders[0] if folders else run.folder / "pseudo-mask.ome.zarr"
    if folders and not settle_heads(inspection, folder, Plan(entry.grid, "labels", "pseudo-mask")):
        return
    damaged = list(damaged_chunks(inspection, Pyramid(folder, "r+" if inspection.repair else "r"))) if folders else []
    if any(level == 0 for level, _, _ in damaged):
        problem = f"{len(damaged)} of its chunks are damaged"
    elif damaged and not outdated:
        settle_coarse(inspection, Pyramid(folder, "r+" if inspection.repair else "r"), damaged)
        return
    elif outdated and complete:
        problem = "no longer fits the probabilities"
    summary = run.record.summary or {}

    def mend() -> None:
        if not complete:
            inspection.set_aside(*folders)
            return
        try:
            settings = MaskSettings.of_record(summary)
        except (KeyError, TypeError, ValueError) as error:
            raise StudyError("its threshold is not known: open the slide in napari and move the threshold") from error
        entry.tissue_on_grid(run)  # without it there is no new mask, and the damaged one holds most of what it was
        inspection.set_aside(*folders)
        write_pseudo_mask(entry, run, settings, control)

    if problem:
        inspection.found(folder, problem, "compute it anew from the probabilities", mend)


def _check_tiles(inspection: Inspection, run: Run) -> None:
    """Tiles that an unfinished run keeps for the blocks beside them."""
    bad = []
    for path in sorted(run.tiles.glob("*.npy")):
        inspection.report.files += 1
        try:
            np.load(path, mmap_mode="r")
        except (OSError, EOFError, ValueError):
            bad.append(path)
    if bad:
        problem, remedy = f"{len(bad)} of the tiles that it keeps are damaged", "compute them again when it is resumed"
        inspection.found(run.tiles, problem, remedy, lambda: inspection.set_aside(*bad))
