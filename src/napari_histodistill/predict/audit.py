"""Draw the patches of an audit, and say what a labelled audit tells of every prediction of a slide; see `survey`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_histodistill.errors import HistodistillError
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study import RunState
from napari_histodistill.study.audit import (
    PATCHES_A_SIDE,
    Audit,
    AuditPatch,
    change_audit,
    square_side,
    write_audit,
)
from napari_histodistill.survey import Sample, dice_change, estimate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.study import Run, StudySlide
    from napari_histodistill.survey import Estimate, Interval

DRAWS: Final = 30
"""That count at first: about five minutes of labelling."""
MOST_DRAWS: Final = 300
OWN: Final = ""
"""Name of the slide's own result, beside the names of `StudySlide.predictions`."""


@dataclass(frozen=True)
class DrawRequest:
    """What `draw_audit` needs.

    Parameters
    ----------
    entry : StudySlide
    prediction : str
        Whose tumour makes the strata: a name of `StudySlide.predictions`, or `OWN`.
    draws : int
    seed : int
    """

    entry: StudySlide
    prediction: str = OWN
    draws: int = DRAWS
    seed: int = 0


def draw_audit(request: DrawRequest, control: JobControl) -> Audit:
    """Draw patches at random and keep them in the study, in place of an earlier audit.

    Half of the draws fall on patches with predicted tumour, half on the others; see `survey` for the chances.

    Raises
    ------
    HistodistillError
        If the slide has no tissue with a prediction.
    """
    entry = request.entry
    run = _run(entry, request.prediction)
    stored = None if run is None else run.pseudo_mask
    if stored is None:
        raise HistodistillError(f"{entry.known_path.name} has no prediction to audit yet: run the teacher first.")
    side = square_side(entry.grid.pixel_size_um)
    edges = [patch_edges(size, side) for size in entry.grid.shape]
    tissue, tumour = _count(stored.levels[0], edges, side, control)
    sizes = tuple(int(tissue[(tumour > 0) == there].sum()) for there in (False, True))
    order = list(_alternating(tissue, tumour > 0, np.random.default_rng(request.seed)))
    if not order:
        raise HistodistillError(f"{entry.known_path.name} has no tissue to audit: find tissue first.")
    found = list(dict.fromkeys(order))
    patches = tuple(_patch(cell, edges, entry.grid.shape, side, tissue, tumour) for cell in found)
    audit = Audit(
        request.seed,
        side,
        request.prediction,
        (sizes[0], sizes[1]),
        patches,
        tuple(found.index(cell) for cell in order),
        min(request.draws, len(order)),
        tuple(entry.predictions()),
    )
    write_audit(entry.folder, audit)
    return audit


def patch_edges(size: int, side: int) -> NDArray[np.intp]:
    """Where patches begin along an axis of ``size`` px: `PATCHES_A_SIDE` in each square of ``side`` px."""
    step = -(-side // PATCHES_A_SIDE)
    return np.array([at for start in range(0, size, side) for at in range(start, min(start + side, size), step)])


def _count(
    mask: Any, edges: list[NDArray[np.intp]], side: int, control: JobControl
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of tissue, and of predicted tumour, in every patch."""
    rows = -(-mask.shape[0] // side)
    counts: list[list[NDArray[np.int64]]] = [[], []]
    for row in range(rows):
        control.checkpoint()
        control.progress(row, rows, "Looking for tissue")
        strip = np.asarray(mask[row * side : (row + 1) * side])
        here = edges[0][(edges[0] >= row * side) & (edges[0] < (row + 1) * side)] - row * side
        for of, chosen in zip(counts, ((strip == TUMOUR) | (strip == NORMAL), strip == TUMOUR), strict=True):
            by_row = np.add.reduceat(chosen, here, axis=0, dtype=np.int64)
            of.append(np.add.reduceat(by_row, edges[1], axis=1))
    return np.concatenate(counts[0]), np.concatenate(counts[1])


def _alternating(
    tissue: NDArray[np.int64], tumour: NDArray[np.bool_], rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Draws (row, column of a patch) of both strata in turn, each with a chance in proportion to its tissue."""
    drawn = []
    for there in (True, False):
        chance = np.where(tumour == there, tissue, 0).ravel()
        if chance.any():
            drawn.append(rng.choice(chance.size, MOST_DRAWS // 2, p=chance / chance.sum()))
    for cells in zip(*drawn, strict=True):
        for cell in cells:
            yield int(cell) // tissue.shape[1], int(cell) % tissue.shape[1]


def _patch(
    cell: tuple[int, int],
    edges: list[NDArray[np.intp]],
    shape: tuple[int, int],
    side: int,
    tissue: NDArray[np.int64],
    tumour: NDArray[np.int64],
) -> AuditPatch:
    spans, neighbours = [], []
    for at, axis, size in zip(cell, edges, shape, strict=True):
        ends = [*axis[1:], size]
        spans.append((int(axis[at]), int(ends[at])))
        neighbours.append(axis // side == axis[at] // side)
    (top, bottom), (left, right) = spans
    square_tissue = int(tissue[np.ix_(*neighbours)].sum())
    return AuditPatch(top, left, bottom - top, right - left, int(tumour[cell] > 0), square_tissue)


def draw_more(entry: StudySlide, draws: int) -> Audit:
    """Let more of the draws count."""
    earlier = tuple(entry.predictions())
    return change_audit(entry.folder, lambda audit: audit.with_more(draws, earlier))


# Figures


@dataclass(frozen=True)
class Audited:
    """What an audit tells of a prediction.

    Attributes
    ----------
    prediction : str
        Its name; "" for the slide's own result, which is what the teacher says or a round that was taken as the mask.
    estimate : Estimate or None
        Dice, and the slide's tumour in mm²; None while too few patches are labelled.
    predicted_mm2 : float
        What the prediction itself calls tumour.
    change : (float, Interval) or None
        Of Dice since the prediction before it, with its 95% interval.
    on_corrections : float or None
        Share of what a person corrected, tumour and normal, on which it agrees: no fair sample, since corrections are
        made where a model was wrong, and later models learnt from them.
    may_have_learnt : bool
        Whether its model was trained before the patches were drawn, perhaps on them.
    """

    prediction: str
    estimate: Estimate | None
    predicted_mm2: float
    change: tuple[float, Interval] | None
    on_corrections: float | None
    may_have_learnt: bool

    def to_json(self) -> dict[str, Any]:
        """As plain values, with intervals as lists; what is not known is null."""
        found, change = self.estimate, self.change
        return {
            "prediction": self.prediction or "own result",
            "dice": found.dice if found else None,
            "dice_95": list(found.dice_95) if found else None,
            "tumour_mm2": found.area if found else None,
            "tumour_mm2_95": list(found.area_95) if found else None,
            "predicted_mm2": self.predicted_mm2,
            "dice_change": change[0] if change else None,
            "dice_change_95": list(change[1]) if change else None,
            "agreement_with_corrections": self.on_corrections,
            "may_have_learnt_from_the_patches": self.may_have_learnt,
        }


@dataclass(frozen=True)
class AuditFigures:
    """What is known of the predictions of a slide.

    Attributes
    ----------
    labelled, drawn : int
        Patches.
    held_share : float
        Share of the tissue that is kept from training.
    corrected_pixels : int
        Corrections to tumour or normal tissue, in px of the working grid.
    predictions : tuple of Audited
        In the order in which they were made.
    areas : dict
        Predicted tumour by prediction, in px, for a request that comes later.
    """

    labelled: int
    drawn: int
    held_share: float
    corrected_pixels: int
    predictions: tuple[Audited, ...]
    areas: dict[tuple[str, str], int] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "patches_labelled": self.labelled,
            "patches_drawn": self.drawn,
            "tissue_kept_from_training": self.held_share,
            "corrected_pixels": self.corrected_pixels,
            "predictions": [one.to_json() for one in self.predictions],
        }


@dataclass(frozen=True)
class FiguresRequest:
    """Of which slide, and what is known of areas from before."""

    entry: StudySlide
    areas: Mapping[tuple[str, str], int] = field(default_factory=dict)


def audit_figures(request: FiguresRequest, control: JobControl) -> AuditFigures:
    """What the audit and the corrections tell of every finished prediction of a slide; without an audit, the latter."""
    entry = request.entry
    audit = entry.audit()
    runs = {name: run for name in (OWN, *entry.predictions()) if (run := _finished(entry, name)) is not None}
    adopted = {name: str(run.record.settings.get("adopted", name)) for name, run in runs.items()}
    runs = dict(sorted(runs.items(), key=lambda item: adopted[item[0]]))  # as they were made; a taken one beside itself
    pixel_mm2 = float(np.prod(entry.grid.pixel_size_um)) / 1e6
    agreed, corrected = _on_corrections(entry, runs, control)
    areas: dict[tuple[str, str], int] = {}
    found: list[Audited] = []
    before: Sample | None = None
    for done, (name, run) in enumerate(runs.items()):
        control.checkpoint()
        control.progress(done, len(runs), "Comparing with the audit")
        key = name, _version(run)
        areas[key] = request.areas[key] if key in request.areas else _tumour_pixels(run, control)
        sample = None if audit is None else _sample(audit, run, pixel_mm2)
        predicted = areas[key] * pixel_mm2
        change = None if sample is None or before is None else dice_change(before, sample)
        before = sample
        found.append(
            Audited(
                name,
                None if sample is None else estimate(sample, predicted),
                predicted,
                change,
                agreed[name] / corrected if corrected else None,
                audit is not None and adopted[name] in audit.earlier,
            )
        )
    labelled, drawn = (0, 0) if audit is None else (len(audit.labelled), len(audit.active))
    return AuditFigures(labelled, drawn, audit.held_share if audit else 0.0, corrected, tuple(found), areas)


def _run(entry: StudySlide, name: str) -> Run | None:
    return entry.prediction(name) if name else entry.run


def _finished(entry: StudySlide, name: str) -> Run | None:
    run = _run(entry, name)
    whole = run is not None and run.record.state is RunState.COMPLETE and run.pseudo_mask is not None
    return run if whole else None


def _version(run: Run) -> str:
    """What differs once the mask is another: each is written into a folder of its own, under a new threshold too."""
    stored = run.pseudo_mask
    assert stored is not None, "only finished predictions are counted"
    return f"{run.folder.name} {(stored.folder / 'zarr.json').stat().st_mtime_ns}"


def _strips(entry_shape: tuple[int, int], rows: int = 512) -> Iterator[slice]:
    for y in range(0, entry_shape[0], rows):
        yield slice(y, min(y + rows, entry_shape[0]))


def _tumour_pixels(run: Run, control: JobControl) -> int:
    stored = run.pseudo_mask
    assert stored is not None, "only finished predictions are counted"
    total = 0
    for rows in _strips(stored.shape):
        control.checkpoint()
        total += int(np.count_nonzero(np.asarray(stored.levels[0][rows]) == TUMOUR))
    return total


def _sample(audit: Audit, run: Run, pixel_mm2: float) -> Sample:
    """How a prediction does on the patches that were labelled; a patch of which nothing can be told is no draw."""
    stored = run.pseudo_mask
    assert stored is not None, "only finished predictions are audited"
    shares: dict[int, list[float]] = {}
    for index in audit.labelled:
        patch = audit.patches[index]
        assert patch.labels is not None, "labelled patches have labels"
        judged = (patch.labels != OUTSIDE) & (patch.labels != IGNORE)
        said, truth = np.asarray(stored.levels[0][patch.slices]) == TUMOUR, patch.labels == TUMOUR
        if judged.any():
            counts = [np.count_nonzero(judged & both) for both in (said & truth, said & ~truth, ~said & truth)]
            shares[index] = [count / np.count_nonzero(judged) for count in counts]
    draws = [index for index in audit.order[: audit.drawn] if index in shares]
    return Sample(
        np.array([audit.patches[index].stratum for index in draws], np.intp),
        np.array([shares[index] for index in draws], np.float64).reshape(-1, 3),
        np.array(audit.sizes) * pixel_mm2,
    )


def _on_corrections(entry: StudySlide, runs: Mapping[str, Run], control: JobControl) -> tuple[dict[str, int], int]:
    """On how many corrected pixels each prediction agrees, and how many there are."""
    agreed, total = dict.fromkeys(runs, 0), 0
    corrections = entry.corrections()
    if corrections is None:
        return agreed, 0
    for rows in _strips(entry.grid.shape):
        control.checkpoint()
        by_hand = corrections[rows]
        counted = (by_hand == TUMOUR) | (by_hand == NORMAL)
        if not counted.any():
            continue
        total += int(np.count_nonzero(counted))
        for name, run in runs.items():
            stored = run.pseudo_mask
            assert stored is not None, "only finished predictions are asked"
            said = np.asarray(stored.levels[0][rows])
            agreed[name] += int(np.count_nonzero(counted & ((said == TUMOUR) == (by_hand == TUMOUR))))
    return agreed, total
