"""Bag losses: what a map of instance probabilities costs when only the label of the bag is known.

A bag is an image or a region of one; its instances are the pixels of the maps. Every loss looks at all side outputs
and at the fusion, and treats a negative bag as known pixel by pixel: it holds no tumour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_histodistill.mil.families import Family

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-6


def dice_dissimilarity(p: Tensor, q: Tensor, inside: Tensor) -> Tensor:
    """D(p, q) = 1 - (2 sum pq + 1) / (sum p + sum q + 1) over the pixels of a bag (He, Li and Zemp 2024, eq. 3).

    Parameters
    ----------
    p, q, inside : Tensor (..., h, w)
        Probabilities in [0, 1], and 1 for the pixels of the bag, 0 elsewhere; they broadcast against each other.

    Returns
    -------
    Tensor (...)
        In [0, 1).
    """
    p, q = p * inside, q * inside
    both, either = (p * q).sum((-2, -1)), p.sum((-2, -1)) + q.sum((-2, -1))
    return 1 - (2 * both + 1) / (either + 1)


def generalised_mean(p: Tensor, inside: Tensor, r: float) -> Tensor:
    """(mean p^r)^(1/r) over the pixels of a bag (Jia et al. 2017, eq. 3), the bag's probability.

    The mean is kept above 1e-6 before the root, whose slope at zero is infinite: with `torch.clamp` the gradient is
    then zero, not NaN.
    """
    count = inside.sum((-2, -1)).clamp(min=1)
    mean = (p.pow(r) * inside).sum((-2, -1)) / count
    return mean.clamp(min=EPSILON).pow(1 / r)


def dice_loss(maps: Tensor, labels: Tensor, inside: Tensor, enough: float = 1.0) -> Tensor:
    """Family ``dice``: a positive bag against all ones, a negative one the same on 1 - f, summed over the maps.

    Parameters
    ----------
    maps : Tensor (n, m, h, w)
        Side outputs and fusion of n bags, in [0, 1].
    labels : Tensor (n,)
        1 for bags that hold tumour, 0 for bags that do not.
    inside : Tensor (n, h, w)
        1 for the pixels of the bag.
    enough : float
        Dice with all ones from which a map of a positive bag costs nothing. At 1, the published loss, a positive bag
        is pulled until every pixel of it is tumour.

    Returns
    -------
    Tensor (n,)
    """
    ones = torch.ones_like(maps)
    positive = (dice_dissimilarity(maps, ones, inside[:, None]) - (1 - enough)).clamp(min=0)
    negative = dice_dissimilarity(1 - maps, ones, inside[:, None])
    return torch.where(labels[:, None] > 0, positive, negative).sum(1)


def gm_loss(maps: Tensor, labels: Tensor, inside: Tensor, enough: float = 1.0, r: float = 4.0) -> Tensor:
    """Family ``gm``: cross-entropy of the generalised mean of every map, summed (Jia et al. 2017, eq. 4 and 7).

    Parameters and result as `dice_loss`; ``enough`` is a generalised mean (one half of the pixels at 1 gives 0.84),
    ``r`` the sharpness of the mean.
    """
    pooled = generalised_mean(maps, inside[:, None], r).clamp(EPSILON, 1 - EPSILON)
    right = torch.where(labels[:, None] > 0, (pooled / enough).clamp(max=1), 1 - pooled)
    return -right.log().sum(1)


def pixel_loss(maps: Tensor, targets: Tensor) -> Tensor:
    """Loss of maps (n, m, h, w) whose pixels are known: cross-entropy plus Dice of tumour and of background.

    ``targets`` (n, h, w) are 0 or 1. For the network trained with full masks, the ceiling of the bag losses.
    """
    target = targets[:, None].expand_as(maps)
    inside = torch.ones_like(target)
    entropy = functional.binary_cross_entropy(maps.clamp(EPSILON, 1 - EPSILON), target)
    dice = dice_dissimilarity(maps, target, inside) + dice_dissimilarity(1 - maps, 1 - target, inside)
    return entropy * maps.shape[1] + dice.sum(1).mean() / 2


DICE = Family(dice_loss, (0.3, 0.3, 0.4))
"""IFKD's own teacher (He, Li and Zemp 2024, section 2.1)."""
GM = Family(gm_loss, (0.2, 0.35, 0.45))
"""DWS-MIL (Jia et al. 2017)."""
ATTENTION = Family(gm_loss, GM.weights, attention=True)
"""SA-MIL (Li et al. 2023)."""
SWIN = Family(gm_loss, (0.3, 0.4, 0.3), encoder="swin-t")
"""Swin-MIL (Qian et al. 2022)."""
