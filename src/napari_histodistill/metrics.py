"""How good masks and probabilities are: F1, IoU, Dice, Hausdorff, calibration, and what a few patients leave uncertain.

The measures of a set of images (the design's list):

- ``f1_positive``: F1 (= Dice) of tumour, mean over the positive images; 0 where nothing is found.
- ``f1_negative``: F1 of background, mean over the negative images; 1 where nothing is called tumour.
- ``dice_pooled``: Dice of tumour over the pixels of all images together.
- ``miou``: mean of the IoU of tumour and the IoU of background, each over the pixels of all images together.
- ``miou_image``: IoU of each image's own class (tumour in positive, background in negative images), mean over images.
- ``hd95_um``: mean over positive images of the 95th percentile Hausdorff distance, in µm; ``hd_max_um``: the mean of
  the greatest one. Distances run between the outlines of both masks, an outline being the mask's pixels that touch a
  pixel outside it or the border of the image; the larger of the two directions counts. If only one mask is empty, the
  distance is the image's diagonal; if both are, it is zero.
- ``calibration_error``: the expected calibration error (Guo et al. 2017) of pixel probabilities over the pixels of all
  images together: in 15 equal bins, open below and closed above, the distance between mean probability and share of
  tumour, weighted by the bin's pixels.
- ``brier``: mean squared distance of pixel probabilities from the truth (0 or 1), over the same pixels.

Every measure follows from sums over images, so that images can come one at a time. Pixels are those of the images'
masks, so an image with more pixels weighs more in the pooled measures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MASK_MEASURES = ("f1_positive", "f1_negative", "miou", "miou_image", "dice_pooled", "hd95_um", "hd_max_um")
PROBABILITY_MEASURES = ("calibration_error", "brier")
MEASURES = (*MASK_MEASURES, *PROBABILITY_MEASURES)
BINS = 15
"""Of the calibration error; the edges are multiples of 1 / 15."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Sums over the pixels of an image by bin of their probability, and over all of them.

    Attributes
    ----------
    pixels, tumour : int64 (15,)
        Number of pixels, and of those that are tumour.
    probability : float64 (15,)
        Sum of their probabilities.
    squared_error : float
        Sum over all pixels of the squared distance of probability and truth.
    """

    pixels: NDArray[np.int64]
    tumour: NDArray[np.int64]
    probability: NDArray[np.float64]
    squared_error: float


def calibrate(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> Calibration:
    """Sort the pixels of an image into bins: probabilities in [0, 1] and true tumour, both (h, w)."""
    if probability.shape != truth.shape:
        raise ValueError(f"probability and truth differ in shape: {probability.shape} and {truth.shape}")
    p, t = probability.astype(np.float64).ravel(), truth.ravel()
    index = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], p)
    return Calibration(
        np.bincount(index, minlength=BINS),
        np.bincount(index[t], minlength=BINS),
        np.bincount(index, p, BINS).astype(np.float64),
        float(np.sum((p - t) ** 2)),
    )


@dataclass(frozen=True)
class ImageScore:
    """What one image scored: pixels by outcome, Hausdorff distances in µm (NaN for negative images), probabilities."""

    patient: str
    label: int
    tp: int
    fp: int
    fn: int
    tn: int
    hd95_um: float
    hd_max_um: float
    calibration: Calibration | None = field(default=None, compare=False, repr=False)


def hausdorff(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], pixel_um: tuple[float, float]
) -> tuple[float, float]:
    """95th percentile and maximum Hausdorff distance between the outlines of two masks (h, w), in µm.

    See the module for the rule about outlines and empty masks; ``pixel_um`` is the pixel's (height, width).
    """
    if not predicted.any() or not truth.any():
        diagonal = float(np.hypot(*(n * s for n, s in zip(truth.shape, pixel_um, strict=True))))
        worst = 0.0 if predicted.any() == truth.any() else diagonal
        return worst, worst
    outlines = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted, truth)]
    distances = [ndimage.distance_transform_edt(~outline, sampling=pixel_um) for outline in outlines]
    there, back = distances[1][outlines[0]], distances[0][outlines[1]]
    return max(float(np.percentile(there, 95)), float(np.percentile(back, 95))), max(
        float(there.max()), float(back.max())
    )


def score_image(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    label: int,
    patient: str,
    pixel_um: tuple[float, float] = (1.0, 1.0),
    probability: NDArray[np.floating] | None = None,
) -> ImageScore:
    """Compare a predicted with a true tumour mask, both (h, w), of an image with the image-level ``label``.

    With the ``probability`` (h, w) that the mask was cut from, its calibration is measured too.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"masks differ in shape: {predicted.shape} and {truth.shape}")
    tp = int(np.count_nonzero(predicted & truth))
    fp, fn = int(np.count_nonzero(predicted)) - tp, int(np.count_nonzero(truth)) - tp
    hd95, hd_max = hausdorff(predicted, truth, pixel_um) if label else (float("nan"), float("nan"))
    calibration = None if probability is None else calibrate(probability, truth)
    return ImageScore(patient, label, tp, fp, fn, truth.size - tp - fp - fn, hd95, hd_max, calibration)


def summarise(scores: Sequence[ImageScore]) -> dict[str, float | None]:
    """The measures in `MEASURES` over a set of images; None for a mean over no image or no pixel."""
    totals = {name: values.sum(0) for name, values in _terms(scores).items()}
    return {name: None if np.isnan(value) else float(value) for name, value in _measures(totals).items()}


def bootstrap(scores: Sequence[ImageScore], draws: int = 1000, seed: int = 0) -> dict[str, tuple[float, float] | None]:
    """95% intervals of all measures when patients are drawn with replacement (percentile bootstrap).

    Draws in which a measure is not defined, such as those without a positive image, do not count for it; None where it
    is defined in none.
    """
    names, patient = np.unique([s.patient for s in scores], return_inverse=True)
    drawn = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    times = np.array([np.bincount(draw, minlength=len(names)) for draw in drawn])
    sums = {name: _sum_by(values, patient, len(names)) for name, values in _terms(scores).items()}
    measured = _measures({name: times @ of_patients for name, of_patients in sums.items()})
    return {name: _interval(values) for name, values in measured.items()}


def reliability(scores: Sequence[ImageScore]) -> list[dict[str, float | int | None]]:
    """The bins of the calibration error over all images together, for a reliability diagram.

    Each has its edges ``low`` and ``high``, its ``pixels``, their ``mean_probability`` and the share that is tumour,
    ``tumour_fraction`` (None in an empty bin).
    """
    terms = {name: values.sum(0) for name, values in _terms(scores).items()}
    bins: list[dict[str, float | int | None]] = []
    for i in range(BINS):
        pixels = int(terms["pixels"][i])
        mean, share = (float(terms[name][i]) / pixels if pixels else None for name in ("probability", "tumour"))
        edges = {"low": i / BINS, "high": (i + 1) / BINS}
        bins.append({**edges, "pixels": pixels, "mean_probability": mean, "tumour_fraction": share})
    return bins


def _terms(scores: Sequence[ImageScore]) -> dict[str, NDArray[np.float64]]:
    """What each image adds to the sums that `_measures` takes: (images,), or (images, 15) for bins."""
    tp, fp, fn, tn = (np.array([getattr(s, name) for s in scores], float) for name in ("tp", "fp", "fn", "tn"))
    positive = np.array([s.label for s in scores], bool)
    tumour_f1, tumour_iou = _f1_iou(tp, fp, fn)
    background_f1, background_iou = _f1_iou(tn, fn, fp)
    terms = {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    terms |= {"positive": positive.astype(float), "negative": (~positive).astype(float)}
    terms |= {"f1_positive": positive * tumour_f1, "f1_negative": ~positive * background_f1}
    terms |= {"iou": np.where(positive, tumour_iou, background_iou)}
    for name in ("hd95_um", "hd_max_um"):
        terms[name] = np.where(positive, [getattr(s, name) for s in scores], 0.0)
    nothing = np.zeros(BINS)
    for name in ("pixels", "tumour", "probability"):
        rows = [nothing if s.calibration is None else getattr(s.calibration, name) for s in scores]
        terms[name] = np.array(rows, float).reshape(-1, BINS)
    terms["squared_error"] = np.array([s.calibration.squared_error if s.calibration else 0.0 for s in scores])
    return terms


def _measures(total: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """The measures from sums over images (any leading shape; bins last), NaN where not defined."""
    pooled_f1, pooled_iou = _f1_iou(total["tp"], total["fp"], total["fn"])
    background_iou = _f1_iou(total["tn"], total["fn"], total["fp"])[1]
    images, pixels = total["positive"] + total["negative"], total["pixels"].sum(-1)
    return {
        "f1_positive": _ratio(total["f1_positive"], total["positive"]),
        "f1_negative": _ratio(total["f1_negative"], total["negative"]),
        "miou": (pooled_iou + background_iou) / 2,
        "miou_image": _ratio(total["iou"], images),
        "dice_pooled": pooled_f1,
        "hd95_um": _ratio(total["hd95_um"], total["positive"]),
        "hd_max_um": _ratio(total["hd_max_um"], total["positive"]),
        "calibration_error": _ratio(np.abs(total["probability"] - total["tumour"]).sum(-1), pixels),
        "brier": _ratio(total["squared_error"], pixels),
    }


def _f1_iou(
    tp: NDArray[np.float64], fp: NDArray[np.float64], fn: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F1 and IoU of one class; 1 where neither mask holds it."""
    either = np.asarray(tp + fp + fn)
    empty = either == 0
    return (
        np.where(empty, 1.0, 2 * tp / np.where(empty, 1.0, either + tp)),
        np.where(empty, 1.0, tp / np.where(empty, 1.0, either)),
    )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)


def _sum_by(values: NDArray[np.float64], group: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """Sums of rows by the number of their group: (count, ...)."""
    sums = np.zeros((count, *values.shape[1:]))
    np.add.at(sums, group, values)
    return sums


def _interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    defined = values[~np.isnan(values)]
    if not defined.size:
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)
