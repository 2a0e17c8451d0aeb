"""What a student costs that is to say what its teacher says (He, Li and Zemp 2024, section 2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from napari_histodistill.mil.losses import EPSILON, dice_dissimilarity
from napari_histodistill.mil.sampler import POSITIVE, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from napari_histodistill.distill.recipe import DistillRecipe
    from napari_histodistill.mil.augment import Batch
    from napari_histodistill.nets.network import Maps

    BagLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def semimetric_dissimilarity(p: Tensor, q: Tensor, inside: Tensor) -> Tensor:
    """1 - (sum p + sum q - sum |p - q| + 1) / (sum p + sum q + 1) over the pixels of a bag (Wang et al. 2023, DML1).

    The same as `dice_dissimilarity` where q is 0 or 1, but least at p = q for any q, where the Dice dissimilarity of a
    soft q is least at a larger, harder p. Arguments and result as there.
    """
    p, q = p * inside, q * inside
    either = p.sum((-2, -1)) + q.sum((-2, -1))
    return 1 - (either - (p - q).abs().sum((-2, -1)) + 1) / (either + 1)


_DISTANCES = {"dice": dice_dissimilarity, "semimetric": semimetric_dissimilarity}


def distillation_loss(
    maps: Tensor,
    targets: Tensor,
    labels: Tensor,
    inside: Tensor,
    distance: Literal["dice", "semimetric"] = "dice",
    *,
    background: bool = False,
) -> Tensor:
    """L_kd of every bag: its maps against the teacher's in a positive bag, against nothing in a negative one.

    Positive: sum_i D(f_i, t) + D(f_w, t). Negative: sum_i D(1 - f_i, 1) + D(1 - f_w, 1) (He, Li and Zemp 2024,
    eq. 5 and 6). A bag that nobody labelled may hold tumour or not: the mean of D(f, t) and D(1 - f, 1 - t); and so
    does a positive one with ``background``.

    Parameters
    ----------
    maps : Tensor (b, m, h, w)
        Side outputs and fusion of the student, in [0, 1].
    targets : Tensor (b, 1 or m, h, w)
        The teacher's fusion, or what each map is to say, in [0, 1].
    labels : Tensor (b,)
        1, 0, or -1 for unknown.
    inside : Tensor (b, h, w)
        Weight of every pixel: 0 outside the bag.

    Returns
    -------
    Tensor (b,)
    """
    compare, weight = _DISTANCES[distance], inside[:, None]
    there = compare(maps, targets, weight)
    absent = compare(1 - maps, torch.ones_like(maps), weight)
    rest = compare(1 - maps, 1 - targets, weight)
    label = labels[:, None]
    both = (label == UNKNOWN) | (background & (label == POSITIVE))
    known = torch.where(label == POSITIVE, there, absent)
    return torch.where(both, (there + rest) / 2, known).sum(1)


def weighted_cross_entropy(maps: Tensor, hard: Tensor, weights: Tensor, *, trust: bool = True) -> Tensor:
    """L_wce of every map of every image: cross-entropy, less where the student contradicts its target.

    Pixel j weighs w_j = exp(-l_j) / mean_k exp(-l_k), without gradient, l being its own cross-entropy; where an image's
    target has a single class all weigh 1 (OEEM, Li et al. 2022, eq. 4). A pixel that a person set is trusted in full.

    Parameters
    ----------
    maps : Tensor (..., h, w)
        In [0, 1].
    hard : Tensor (..., h, w)
        0 or 1.
    weights : Tensor (..., h, w)
        0 to ignore a pixel, 1 for a pseudo-target, above 1 for what a person set.
    trust : bool
        Off: plain cross-entropy.

    Returns
    -------
    Tensor (...)
    """
    entropy = functional.binary_cross_entropy(maps.clamp(EPSILON, 1 - EPSILON), hard, reduction="none")
    counted = weights.sum((-2, -1)).clamp(min=EPSILON)
    if trust:
        with torch.no_grad():
            share = (hard * weights).sum((-2, -1)) / counted
            mixed = ((share > 0) & (share < 1))[..., None, None]
            doubt = torch.exp(-entropy)
            mean = (doubt * weights).sum((-2, -1)) / counted
            factor = torch.where(mixed & (weights <= 1), doubt / mean[..., None, None].clamp(min=EPSILON), 1.0)
        entropy = entropy * factor
    return (entropy * weights).sum((-2, -1)) / counted


def student_loss(recipe: DistillRecipe, bag_loss: BagLoss) -> Callable[[Maps, Batch], dict[str, Tensor]]:
    """L = L_kd + lambda L_wce of a batch, each a mean over its images; bags of one image weigh by their area.

    Where the teacher found nothing in a positive bag there is nothing to learn from it: such a bag costs its
    ``bag_loss`` (maps, labels, inside) instead.
    """

    def loss(maps: Maps, batch: Batch) -> dict[str, Tensor]:
        if batch.targets is None:
            raise ValueError("a student needs targets")
        n, targets, bag_inside = len(batch.images), maps.sample(batch.targets), maps.sample(batch.bag_inside)
        weights = torch.ones_like(maps.fused) if batch.weights is None else maps.sample(batch.weights)
        every = maps.all()[batch.bag_image]
        label = batch.bag_label
        area = bag_inside.mean((1, 2)) / n
        inside = bag_inside * weights[batch.bag_image]
        costs = distillation_loss(
            every, targets[batch.bag_image], label, inside, recipe.distance, background=recipe.background
        )
        found = (targets[batch.bag_image].amax(1) >= 0.5) & (inside > 0)
        empty = (label == POSITIVE) & ~found.flatten(1).any(1)
        terms = {}
        bags = bag_loss(every, label, bag_inside) if recipe.bags or bool(empty.any()) else None
        if bags is not None:
            costs = torch.where(empty, bags, costs)
        terms["kd"] = (costs * area).sum()
        if recipe.wce:
            # Nothing is known of the pixels of a positive bag in which the teacher found nothing.
            unsure = torch.zeros_like(weights).index_add(0, batch.bag_image, bag_inside * empty[:, None, None])
            maps_asked = maps.all() if recipe.wce_sides else maps.fused[:, None]
            hard = (targets[:, -maps_asked.shape[1] :] >= 0.5).float().expand_as(maps_asked)
            counted = (weights * (1 - unsure))[:, None].expand_as(maps_asked)
            entropy = weighted_cross_entropy(maps_asked, hard, counted, trust=recipe.trust)
            terms["wce"] = recipe.wce * entropy.sum(1).mean()
        if recipe.bags and bags is not None:
            labelled = (label != UNKNOWN) & ~empty
            terms["bags"] = recipe.bags * (bags * area * labelled).sum()
        return terms

    return loss
