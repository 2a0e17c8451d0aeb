"""Is a student better than its teacher? Evidence that training never saw, and what it says of a model.

Agreement with the teacher is no evidence: it rewards doing nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from napari_histodistill.metrics import score_image, summarise
from napari_histodistill.mil.evaluate import predict_bag
from napari_histodistill.mil.train import bag_score
from napari_histodistill.predict.mask import mask_from_probability
from napari_histodistill.predict.tiling import averaged
from napari_histodistill.slide.labels import NORMAL, TUMOUR
from napari_histodistill.slide.tissue import TISSUE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_histodistill.mil.data import BagDataset
    from napari_histodistill.nets.model import Model
    from napari_histodistill.nets.stain import StainStatistics

Select = Literal["bags", "masks"]


class Evidence(Protocol):
    """What tells whether one model is better than another."""

    @property
    def name(self) -> str:
        """What it is, in words."""

    def score(self, model: Model) -> float | None:
        """Higher is better; None where there is nothing to tell by."""


@dataclass(frozen=True)
class NoEvidence:
    """Nothing was held out: no model can be told to be better, and none is promoted by itself."""

    name: str = "no evidence"

    def score(self, model: Model) -> float | None:  # noqa: ARG002 - as `Evidence` has it
        """Nothing to tell by."""
        return None


@dataclass(frozen=True)
class BagEvidence:
    """Bag labels of images held out: how likely they are if a bag is as positive as its map's generalised mean (r = 4).

    The score is the log-likelihood, mean over positive and over negative bags, half of each; 0 is perfect. It sees
    tumour that is missed altogether, tumour in negative bags, and calibration; not where in a positive bag the tumour
    lies.
    """

    bags: BagDataset
    reference: StainStatistics | None
    name: str = "bag labels of validation patients"

    def score(self, model: Model) -> float | None:
        """See the class; None without a bag of each label."""
        likelihoods: dict[int, list[float]] = {0: [], 1: []}
        for bag in self.bags.bags:
            image = bag.read_image(model.card.mpp, self.reference)
            pooled = np.clip(bag_score(model.predict(image[None])[0]), 1e-6, 1 - 1e-6)
            likelihoods[bag.label].append(float(np.log(pooled if bag.label else 1 - pooled)))
        if not likelihoods[0] or not likelihoods[1]:
            return None
        return (float(np.mean(likelihoods[0])) + float(np.mean(likelihoods[1]))) / 2


@dataclass(frozen=True)
class MaskEvidence:
    """Masks of images held out, which the user declared as validation annotations: mean IoU of tumour and background.

    Pooled Dice of tumour alone rewards masks that grow over what is none.
    """

    bags: BagDataset
    reference: StainStatistics | None
    name: str = "masks of validation patients"

    def score(self, model: Model) -> float | None:
        """See the class; None without a positive image."""
        scores = []
        for bag in self.bags.bags:
            truth = bag.read_truth()
            _, mask = predict_bag(model, bag, truth.shape, model.card.mask_settings, self.reference)
            # label 0: no Hausdorff distance, which nobody asks for here
            scores.append(score_image(mask, truth, 0, bag.patient))
        return summarise(scores)["miou"] if any(bag.label for bag in self.bags.bags) else None


@dataclass(frozen=True)
class CorrectedSquare:
    """A held-out square of a slide with its surroundings, on the working grid.

    Attributes
    ----------
    image : uint8 (h * factor, w * factor, 3)
        As a model sees it.
    truth : uint8 (h, w)
        `TUMOUR` or `NORMAL` where a person set that, 255 elsewhere and outside the square.
    tissue : uint8 (h, w)
        0 background, 1 tissue, 3 artefact. Only in tissue do masks say anything, so only there corrections count.
    factor : int
        Pixels of the image per working-grid px, per axis.
    pixel_size_um : (float, float)
        Of a working-grid px, (y, x).
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    factor: int
    pixel_size_um: tuple[float, float]

    def count(self, label: int) -> int:
        """Working-grid px of tissue that a person set to ``label``."""
        return int(np.count_nonzero(self._set_to(label)))

    def agreed(self, label: int, mask: NDArray[np.uint8]) -> int:
        """Those of `count` that a mask, uint8 (h, w), has so too."""
        return int(np.count_nonzero(self._set_to(label) & (mask == label)))

    def mask(self, model: Model) -> NDArray[np.uint8]:
        """The mask that a model makes of it, uint8 (h, w), as it would of the slide."""
        fine: NDArray[np.float32] = model.predict(self.image[None])[0]
        probability = np.rint(255 * averaged(fine, self.factor)).astype(np.uint8)
        return mask_from_probability(probability, self.tissue, model.card.mask_settings, self.pixel_size_um)

    def _set_to(self, label: int) -> NDArray[np.bool_]:
        here: NDArray[np.bool_] = (self.truth == label) & (self.tissue == TISSUE)
        return here


@dataclass(frozen=True)
class CorrectionEvidence:
    """Corrections that no student learnt from: the share of them that a model's mask agrees with, mean of both classes.

    Corrections are made where a model was wrong, so this is low for the model that was corrected and says nothing of
    places that nobody looked at.
    """

    pieces: tuple[CorrectedSquare, ...]
    name: str = "held-out corrections"

    def score(self, model: Model) -> float | None:
        """See the class; None if a person set but one class."""
        agreed, counted = np.zeros(2), np.zeros(2)
        for piece in self.pieces:
            mask = piece.mask(model)
            for i, label in enumerate((TUMOUR, NORMAL)):
                counted[i] += piece.count(label)
                agreed[i] += piece.agreed(label, mask)
        return float(np.mean(agreed / counted)) if counted.all() else None


def evidence_of(dataset: BagDataset, select: Select, reference: StainStatistics | None) -> Evidence:
    """The evidence in the validation part of a data set."""
    held_out = dataset.part("val")
    if select == "masks":
        return MaskEvidence(held_out.where(lambda bag: bag.has_truth), reference)
    return BagEvidence(held_out, reference)
