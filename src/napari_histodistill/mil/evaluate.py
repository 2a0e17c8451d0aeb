"""Measure a model on a data set with masks, beside the mask that calls everything tumour."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_histodistill.metrics import MEASURES, ImageScore, bootstrap, reliability, score_image, summarise
from napari_histodistill.mil.data import DatasetError
from napari_histodistill.mil.data.manifest import write_rows
from napari_histodistill.nets.card import ModelError
from napari_histodistill.nets.masking import supported
from napari_histodistill.nets.stain import REINHARD, StainStatistics
from napari_histodistill.nets.threads import torch_threads

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.mil.data import Bag, BagDataset
    from napari_histodistill.nets.card import ModelCard
    from napari_histodistill.nets.masking import MaskSettings
    from napari_histodistill.nets.model import Model

EvaluationSplit = Literal["auto", "all", "train", "val", "test"]


@dataclass(frozen=True)
class Evaluation:
    """Scores of every image under the model and under the all-foreground mask, and how they were made.

    Calibration is that of the probabilities after smoothing, on the pixels of the masks.
    """

    dataset: str
    split: str
    threshold: float
    smoothing_um: float
    support: float
    stain_normalisation: str | None
    left_out: int
    images: tuple[Path, ...]
    scores: tuple[ImageScore, ...]
    all_foreground: tuple[ImageScore, ...]

    def to_json(self) -> dict[str, Any]:
        """The measures of `metrics.summarise` as one JSON object, the baseline's under ``all_foreground``.

        ``<measure>_95`` is its interval over patients, ``reliability`` has the bins of the calibration error.
        """
        intervals = bootstrap(self.scores).items()
        return {
            "dataset": self.dataset,
            "split": self.split,
            "n_images": len(self.scores),
            "n_patients": len({s.patient for s in self.scores}),
            "n_left_out": self.left_out,
            "threshold": self.threshold,
            "smoothing_um": self.smoothing_um,
            "support": self.support,
            "stain_normalisation": self.stain_normalisation,
            **summarise(self.scores),
            **{f"{name}_95": interval and list(interval) for name, interval in intervals},
            "reliability": reliability(self.scores),
            "all_foreground": summarise(self.all_foreground),
        }

    def write_per_image(self, path: Path) -> None:
        """Write a CSV file with a row for each image: its pixels by outcome and its measures, empty where undefined."""
        counts = ("tp", "fp", "fn", "tn")
        rows = [
            {"image": image, "patient": score.patient, "label": score.label}
            | {name: getattr(score, name) for name in counts}
            | summarise([score])
            for image, score in zip(self.images, self.scores, strict=True)
        ]
        write_rows(path, ("image", "patient", "label", *counts, *MEASURES), rows)


@torch_threads(None)
def evaluate_model(
    model: Model,
    dataset: BagDataset,
    *,
    split: EvaluationSplit = "auto",
    threshold: float | None = None,
    smoothing_um: float | None = None,
    support: float | None = None,
    normalise: bool | None = None,
    control: JobControl | None = None,
) -> Evaluation:
    """Predict every image at the model's mpp and compare with its mask at the mask's own resolution.

    Parameters
    ----------
    model : Model
    dataset : BagDataset
    split : {"auto", "all", "train", "val", "test"}
        "auto" takes all patients that the model has not seen where it was trained on this data set, else the images
        that the data set declares as test, else all.
    threshold, smoothing_um, support : float, optional
        In place of the card's.
    normalise : bool, optional
        Whether to normalise the stain of every image to the model's reference, in place of the card's choice.
    control : JobControl, optional
        Told about every image.

    Raises
    ------
    DatasetError
        If no image with known tumour pixels is left.
    """
    chosen = choose_images(dataset, model.card, split)
    bags = chosen.where(lambda bag: bag.has_truth).bags
    if not bags:
        raise DatasetError(f"No image of {dataset.name} ({split}) has a mask to compare with: add masks or a split.")
    settings = model.card.mask_settings.given(threshold, smoothing_um, support)
    normalise = model.card.stain_normalisation is not None if normalise is None else normalise
    reference = stain_reference(model.card) if normalise else None
    scores, baseline = [], []
    for i, bag in enumerate(bags):
        if control is not None:
            control.checkpoint()
        truth = bag.read_truth()
        probability, mask = predict_bag(model, bag, truth.shape, settings, reference)
        pixel = pixel_size(bag, truth.shape)
        scores.append(score_image(mask, truth, bag.label, bag.patient, pixel, probability))
        everything = np.ones_like(truth)
        baseline.append(score_image(everything, truth, bag.label, bag.patient, pixel, everything.astype(np.float32)))
        if control is not None:
            control.progress(i + 1, len(bags), "Evaluating")
    left_out = len(dataset) - len(bags)
    return Evaluation(
        dataset=dataset.name,
        split=split,
        **asdict(settings),
        stain_normalisation=REINHARD if reference else None,
        left_out=left_out,
        images=tuple(bag.image for bag in bags),
        scores=tuple(scores),
        all_foreground=tuple(baseline),
    )


def choose_images(dataset: BagDataset, card: ModelCard, split: EvaluationSplit) -> BagDataset:
    """The images to evaluate a model on, see `evaluate_model`."""
    if split == "all":
        return dataset
    if split != "auto":
        return dataset.with_splits().part(split)
    if card.training.data == dataset.name:
        seen = {patient for part in card.training.patients.values() for patient in part}
        return dataset.where(lambda bag: bag.patient not in seen)
    declared = dataset.part("test")
    return declared if len(declared) else dataset


def stain_reference(card: ModelCard) -> StainStatistics:
    """The colours that a model's stain normalisation aims at.

    Raises
    ------
    ModelError
        If its card has none.
    """
    if card.stain_reference is None:
        raise ModelError(f"The model {card.name!r} has no reference stain: evaluate it without stain normalisation.")
    return StainStatistics.from_card(card.stain_reference)


def pixel_size(bag: Bag, shape: tuple[int, ...]) -> tuple[float, float]:
    """Size in µm, (y, x), of the pixels of a grid of ``shape`` over an image."""
    with Image.open(bag.image) as image:
        return bag.mpp * image.height / shape[0], bag.mpp * image.width / shape[1]


def predict_bag(
    model: Model,
    bag: Bag,
    shape: tuple[int, ...],
    settings: MaskSettings,
    reference: StainStatistics | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Smoothed tumour probability of an image, float32 (h, w), and the mask of it, on a grid over the image.

    All of the image counts as tissue. As on slides, support is that of probabilities that were not smoothed.

    Parameters
    ----------
    model, bag
    shape : (h, w)
        Of the grid, which shares its outer edges with the image.
    settings : MaskSettings
    reference : StainStatistics, optional
        What the image's stain is first normalised to.
    """
    image = bag.read_image(model.card.mpp, reference)
    plain: NDArray[np.float32] = model.predict(image[None])[0]
    smoothed = plain
    if settings.smoothing_um > 0:
        smoothed = ndimage.gaussian_filter(plain, settings.smoothing_um / model.card.mpp)
    probability = _resized(smoothed, shape)
    mask: NDArray[np.bool_] = probability >= settings.threshold
    if settings.support > 0 and mask.any():
        mask &= supported(_resized(plain, shape), np.ones_like(mask), settings.support, pixel_size(bag, shape))
    return probability, mask


def _resized(probability: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if probability.shape == shape:
        return probability
    size = (shape[1], shape[0])
    resized: NDArray[np.float32] = np.asarray(Image.fromarray(probability).resize(size, Image.Resampling.BILINEAR))
    return resized
