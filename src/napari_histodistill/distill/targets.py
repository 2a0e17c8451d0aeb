"""What a frozen teacher says of the training images, made into targets once a round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.filters import threshold_otsu

from napari_histodistill.mil.augment import dense_tissue, fill_holes
from napari_histodistill.mil.sampler import NEGATIVE, POSITIVE, WEIGHT_UNIT
from napari_histodistill.mil.train import bag_score
from napari_histodistill.slide.labels import IGNORE, NORMAL, TUMOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_histodistill.distill.material import Material
    from napari_histodistill.distill.recipe import Targets
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.nets.model import Model

    Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def averaged(predict: Predict, image: NDArray[np.uint8], views: int) -> NDArray[np.float32]:
    """Maps (h, w, k) of an image (h, w, 3), averaged over its rotations and, with 8 views, their mirrors.

    ``predict`` gives the maps (n, h, w, k) of images (n, h, w, 3).
    """
    total: NDArray[np.float32] | None = None
    for view in range(views):
        turns, mirrored = view % 4, view >= 4
        seen = np.rot90(image[:, ::-1] if mirrored else image, turns)
        maps = np.rot90(predict(np.ascontiguousarray(seen)[None])[0], -turns)
        maps = maps[:, ::-1] if mirrored else maps
        total = maps.astype(np.float32) if total is None else total + maps
    assert total is not None
    return total / np.float32(views)


def shaped(maps: NDArray[np.float32], settings: Targets, mpp: float, *, positive: bool = True) -> NDArray[np.float32]:
    """Averaged maps (h, w, k) in [0, 1] as the targets that ``settings`` asks for, at ``mpp`` µm per pixel.

    ``positive`` says whether the bag is known to hold tumour.
    """
    if settings.temperature != 1:
        logits = np.log(maps.clip(1e-6, 1 - 1e-6) / (1 - maps.clip(1e-6, 1 - 1e-6)))
        maps = 1 / (1 + np.exp(-logits / settings.temperature))
    if settings.cut == "soft":
        return maps
    return np.dstack([_cut(maps[..., k], settings, mpp, positive) for k in range(maps.shape[2])])


def _cut(plane: NDArray[np.float32], settings: Targets, mpp: float, positive: bool) -> NDArray[np.float32]:
    threshold = settings.threshold
    if settings.cut == "otsu" and np.ptp(plane) > 0:
        threshold = threshold_otsu(plane)
    elif settings.cut == "relative" and positive:
        threshold *= bag_score(plane)
    mask = plane >= threshold
    if settings.holes_mm2:
        mask = fill_holes(mask, settings.holes_mm2, mpp)
    return mask.astype(np.float32)


def make_targets(
    teacher: Model, material: Material, settings: Targets, control: JobControl
) -> Iterator[NDArray[np.uint8]]:
    """The target (h, w) or (h, w, k) of every place of the material, x 255; nothing is predicted for negative ones.

    What a person set is laid over what the teacher says.
    """
    weights = teacher.network.weights.cpu().numpy()

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not settings.per_side:
            return teacher.predict(images)[..., None]
        sides = teacher.predict_sides(images)
        return np.concatenate([sides, (sides * weights).sum(-1, keepdims=True)], -1)

    for place, image in enumerate(material.seen):
        control.checkpoint()
        control.progress(place, len(material.seen), "The teacher looks at the training images")
        label = material.place_labels[place]
        if label == NEGATIVE:
            target = np.zeros((*image.shape[:2], len(weights) + 1 if settings.per_side else 1), np.float32)
        else:
            maps = averaged(predict, image, settings.views)
            target = shaped(maps, settings, material.mpp, positive=label == POSITIVE)
            if settings.density:
                target = target * dense_tissue(image, material.mpp, settings.density)[..., None]
        by_hand = None if material.set_by_hand is None else material.set_by_hand[place]
        if by_hand is not None:
            target = np.where((by_hand == TUMOUR)[..., None], 1.0, target)
            target = np.where((by_hand == NORMAL)[..., None], 0.0, target)
        plane: NDArray[np.uint8] = np.rint(target * 255).astype(np.uint8)
        yield plane


def pixel_weights(by_hand: NDArray[np.uint8], correction: float, pseudo: float = 1.0) -> NDArray[np.uint8]:
    """Weights x `WEIGHT_UNIT` of the pixels of a place.

    Parameters
    ----------
    by_hand : uint8 (h, w)
        What a person set, 255 where nothing.
    correction, pseudo : float
        Weight where a person set a class, and where the teacher says it, both at most 15. To ignore weighs 0.
    """
    factor = np.full(by_hand.shape, pseudo)
    factor[(by_hand == TUMOUR) | (by_hand == NORMAL)] = correction
    factor[by_hand == IGNORE] = 0.0
    weights: NDArray[np.uint8] = np.rint(factor * WEIGHT_UNIT).clip(0, 255).astype(np.uint8)
    return weights
