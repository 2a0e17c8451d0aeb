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

if TYPE_CHECKING:
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


def evidence_of(dataset: BagDataset, select: Select, reference: StainStatistics | None) -> Evidence:
    """The evidence in the validation part of a data set."""
    held_out = dataset.part("val")
    if select == "masks":
        return MaskEvidence(held_out.where(lambda bag: bag.has_truth), reference)
    return BagEvidence(held_out, reference)
