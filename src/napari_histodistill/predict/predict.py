"""Predict a slide: open it, find tissue, run the model over it, leave probability and pseudo-mask in the study."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import HistodistillError
from napari_histodistill.heap import kept_heap
from napari_histodistill.nets import read_card
from napari_histodistill.nets.card import model_folder
from napari_histodistill.predict.engine import Here, Work, report, store
from napari_histodistill.predict.figures import COUNTED, Figures, summarise_blocks
from napari_histodistill.predict.mask import mask_blocks
from napari_histodistill.predict.request import Notice, PredictSummary
from napari_histodistill.predict.stain import fit_recolouring
from napari_histodistill.predict.tiling import BLOCK, Tiling
from napari_histodistill.predict.writer import BlockWriter
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.tissue import TISSUE, find_tissue
from napari_histodistill.study import Run, Study, StudySlide, TissueOnGrid

if TYPE_CHECKING:
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.nets import ModelCard
    from napari_histodistill.nets.masking import MaskSettings
    from napari_histodistill.predict.engine import Engine, Predictor
    from napari_histodistill.predict.request import PredictRequest
    from napari_histodistill.slide import Slide
    from napari_histodistill.study import Pyramid

GRID_FACTOR = 2
"""The working grid is about this much coarser than what the model reads."""
COARSEST = 2.0
"""A slide coarser than this many times the model's mpp is refused unless forced."""


class TooCoarseError(HistodistillError):
    """The slide shows less than the model needs to see."""


def predict_slide(
    request: PredictRequest, control: JobControl, model: Predictor | None = None, engine: Engine | None = None
) -> PredictSummary:
    """Predict a slide into a study.

    The result streams into the study's newest run as tiles land; a run that is cancelled or killed stays on disk as a
    partial one and can be resumed. Memory does not grow with the slide.

    Parameters
    ----------
    request : PredictRequest
    control : JobControl
        Reports carry a `TileDone` when pixels of a window were written.
    model : Predictor, optional
        Used instead of loading ``request.model``.
    engine : Engine, optional
        What computes the tiles; this process by default.

    Returns
    -------
    PredictSummary

    Raises
    ------
    HistodistillError
        If slide, model, study or device cannot be used as asked; the message says why and what to do.
    JobCancelled
        After a cancel; what was computed is kept.
    """
    started = time.monotonic()
    with kept_heap(), open_slide(request.slide_path, mpp=request.mpp) as slide:
        card = model.card if model else read_card(request.model)
        require_fine_enough(slide, card, force=request.force)
        study = Study.open_or_create(request.study_folder)
        entry = study.add_slide(slide, target_mpp=GRID_FACTOR * card.mpp)
        with entry.predictions_lock() if request.prediction else entry.lock():
            warnings = [*slide.warnings, *_settle_tissue(entry, slide, request, control)]
            run, tiling = _settle_run(entry, card, _model_id(request.model, model), request)
            with run.in_progress():
                tiles = tissue_tiles(tiling, entry.tissue_on_grid())
                device, computed = _compute_missing(
                    request, control, slide, entry, run, tiling, tiles, card, engine or Here(model)
                )
                settings = card.mask_settings.given(request.threshold, request.smoothing_um, request.support)
                corrections = entry.all_corrections().journal_bytes
                figures = write_pseudo_mask(entry, run, settings, control)
            unreadable = max(slide.unreadable, len(run.record.unreadable))
            if unreadable:
                warnings.append(f"Regions of {slide.name} that could not be read and count as no tissue: {unreadable}.")
            summary = PredictSummary(
                slide=str(slide.path),
                study_folder=str(study.folder),
                slide_folder=str(entry.folder),
                model=card.name,
                device=device,
                **asdict(figures),
                **asdict(settings),
                pixel_size_um=entry.grid.pixel_size_um,
                unreadable=unreadable,
                tiles=len(tiles),
                tiles_computed=computed,
                seconds=time.monotonic() - started,
                warnings=warnings,
            )
            entry.complete_run(run, summary.as_dict() | {COUNTED: corrections})
    return summary


def require_fine_enough(slide: Slide, card: ModelCard, *, force: bool = False) -> None:
    """Refuse a slide that shows less than the model needs.

    Raises
    ------
    MppError
        If the slide's pixel size is unknown.
    TooCoarseError
        If it is more than `COARSEST` times the model's and ``force`` is not set.
    """
    coarsest = max(slide.require_mpp())
    if coarsest > COARSEST * card.mpp and not force:
        raise TooCoarseError(
            f"{slide.name} has {coarsest:g} µm per pixel, more than {COARSEST:g} times the {card.mpp:g} that the model "
            f"{card.name} was trained on, so it cannot show what the model looks for: use a finer scan, or force it."
        )


def tissue_tiles(tiling: Tiling, tissue: TissueOnGrid) -> set[int]:
    """Tiles whose block holds tissue."""
    windows = ((index, tiling.block_window(index)) for index in range(tiling.count))
    return {index for index, window in windows if (tissue[window.slices] == TISSUE).any()}


def write_pseudo_mask(entry: StudySlide, run: Run, settings: MaskSettings, control: JobControl) -> Figures:
    """Write what the model says as labels, with corrections left apart, and count it with them laid over."""
    probability = run.probability.levels[0]
    size = entry.grid.pixel_size_um
    rows = -(-entry.grid.shape[0] // BLOCK)

    def corrected_blocks(target: Pyramid) -> Any:
        tissue = entry.tissue_on_grid(run)
        for y, x, mask in mask_blocks(probability, tissue, settings, size, side=BLOCK):
            if x == 0:
                control.checkpoint()
                control.progress(y // BLOCK, rows, "Writing the mask")
            if mask.any():
                target.write(y, x, mask)
            height, width = mask.shape
            yield entry.corrected(y, x, mask), probability[y : y + height, x : x + width]

    with run.replace_pseudo_mask() as target:
        return summarise_blocks(corrected_blocks(target), size)


def _compute_missing(
    request: PredictRequest,
    control: JobControl,
    slide: Slide,
    entry: StudySlide,
    run: Run,
    tiling: Tiling,
    tiles: set[int],
    card: ModelCard,
    engine: Engine,
) -> tuple[str, int]:
    """Compute what the run lacks; the device and the number of tiles computed."""
    writer = BlockWriter(run, tiling, entry.tissue_on_grid(run), tiles)
    missing = writer.missing()
    done = len(tiles) - len(missing)
    report(control, done, len(tiles), writer.finish_stored())
    if not missing:
        return request.device, 0
    control.checkpoint()
    center = None if request.center is None else entry.grid.from_level0(*request.center)
    recolour = fit_recolouring(card, slide, tiling, tiles, entry.tissue_on_grid(run))
    work = Work(request, slide, tiling, tiling.ordered(missing, center), recolour, run.record.settings["model"])
    control.progress(done, len(tiles), "Loading the model")
    devices = store(
        engine.predicted(work, control),
        lambda tile: writer.take(tile.index, tile.map(tiling), tile.unreadable),
        writer.land,
        control=control,
        done=done,
        total=len(tiles),
    )
    return ", ".join(sorted(devices)), len(missing)


def tiling_of(entry: StudySlide, card: ModelCard) -> Tiling:
    """How a slide of a study is cut for a model."""
    pixel_size = float(np.mean(entry.grid.pixel_size_um))
    return Tiling.for_model(entry.grid.shape, pixel_size, card.mpp, card.margin)


def _settle_run(entry: StudySlide, card: ModelCard, model_id: str, request: PredictRequest) -> tuple[Run, Tiling]:
    tiling, saved, name = tiling_of(entry, card), entry.tissue(), request.prediction
    settings = {
        "model": model_id,
        "slide": entry.fingerprint,
        "tissue": "" if saved is None else hashlib.sha256(saved.mask.tobytes()).hexdigest()[:16],
        "tiling": f"{tiling.block}, {tiling.margin}, {tiling.ramp} px, {tiling.factor}-fold",
    }
    earlier = None
    if request.resume:
        earlier = entry.prediction(name, writable=True) if name else entry.resumable_run()
    if name and earlier is not None and earlier.record.settings != settings:
        earlier = None  # it is worth no more than the time it took
    if earlier is None:
        return entry.new_prediction(name, settings) if name else entry.new_run(settings), tiling
    earlier.require_same(settings)
    return earlier, tiling


def _settle_tissue(entry: StudySlide, slide: Slide, request: PredictRequest, control: JobControl) -> list[str]:
    """See that the study holds the slide's tissue; warnings for the user, which are reported at once.

    A round's prediction takes the tissue that the teacher's result was made with, as the pseudo-mask does.
    """
    settings: dict[str, Any] = json.loads(json.dumps(asdict(request.tissue)))
    saved = entry.tissue()
    if saved is not None and (request.prediction or saved.edited or saved.settings.get("request") == settings):
        warnings: list[str] = saved.settings.get("warnings", [])
    else:
        control.progress(0, 0, "Finding tissue")
        tissue = find_tissue(slide, request.tissue, control)
        warnings = list(tissue.warnings)
        entry.save_tissue(tissue.mask, settings={"request": settings, "warnings": warnings})
    for warning in warnings:
        control.progress(0, 0, "Finding tissue", Notice(warning))
    control.checkpoint()
    return warnings


def _model_id(where: str, model: Predictor | None) -> str:
    """Name of a model and a digest of what decides its answers; of a model that is handed in, of its card alone."""
    card = model.card if model else read_card(where)
    return f"{card.name} {card.digest(None if model else model_folder(where))}"
