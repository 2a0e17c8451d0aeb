"""How good masks are: F1, IoU, pooled Dice, Hausdorff distances, and what a few patients leave uncertain.

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

Pixels are those of the images' masks, so an image with more pixels weighs more in the pooled measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MEASURES = ("f1_positive", "f1_negative", "miou", "miou_image", "dice_pooled", "hd95_um", "hd_max_um")


@dataclass(frozen=True)
class ImageScore:
    """What one predicted mask scored: pixels by outcome, and Hausdorff distances in µm (NaN for negative images)."""

    patient: str
    label: int
    tp: int
    fp: int
    fn: int
    tn: int
    hd95_um: float
    hd_max_um: float


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
) -> ImageScore:
    """Compare a predicted with a true tumour mask, both (h, w), of an image with the image-level ``label``."""
    if predicted.shape != truth.shape:
        raise ValueError(f"masks differ in shape: {predicted.shape} and {truth.shape}")
    tp = int(np.count_nonzero(predicted & truth))
    fp, fn = int(np.count_nonzero(predicted)) - tp, int(np.count_nonzero(truth)) - tp
    hd95, hd_max = hausdorff(predicted, truth, pixel_um) if label else (float("nan"), float("nan"))
    return ImageScore(patient, label, tp, fp, fn, truth.size - tp - fp - fn, hd95, hd_max)


def summarise(scores: Sequence[ImageScore]) -> dict[str, float | None]:
    """The measures in `MEASURES` over a set of images; None for a mean over no image."""
    tp, fp, fn, tn = (np.array([getattr(s, name) for s in scores], float) for name in ("tp", "fp", "fn", "tn"))
    positive = np.array([s.label for s in scores], bool)
    tumour_f1, tumour_iou = _f1_iou(tp, fp, fn)
    background_f1, background_iou = _f1_iou(tn, fn, fp)
    pooled_f1, pooled_iou = _f1_iou(tp.sum(), fp.sum(), fn.sum())
    values = {
        "f1_positive": _mean(tumour_f1[positive]),
        "f1_negative": _mean(background_f1[~positive]),
        "miou": float((pooled_iou + _f1_iou(tn.sum(), fn.sum(), fp.sum())[1]) / 2),
        "miou_image": _mean(np.where(positive, tumour_iou, background_iou)),
        "dice_pooled": float(pooled_f1),
    }
    for name in ("hd95_um", "hd_max_um"):
        values[name] = _mean(np.array([getattr(s, name) for s in scores])[positive])
    return values


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


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None


def bootstrap_dice(scores: Sequence[ImageScore], draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95% interval of ``dice_pooled`` when patients are drawn with replacement (percentile bootstrap)."""
    patients = sorted({s.patient for s in scores})
    index = {name: i for i, name in enumerate(patients)}
    counts = np.zeros((len(patients), 2))
    for s in scores:
        counts[index[s.patient]] += 2 * s.tp, 2 * s.tp + s.fp + s.fn
    drawn = np.random.default_rng(seed).integers(len(patients), size=(draws, len(patients)))
    both, either = counts[drawn].sum(1).T
    low, high = np.percentile(np.where(either > 0, both / np.maximum(either, 1), 1.0), [2.5, 97.5])
    return float(low), float(high)
