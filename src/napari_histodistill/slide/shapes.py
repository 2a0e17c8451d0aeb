"""Cleaning of masks whose sizes are given in µm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]


def close_gaps(mask: Mask, radius_px: float) -> Mask:
    """Closing by a disk; the picture's border counts as a continuation of the mask, so that nothing is eaten there."""
    from skimage.morphology import isotropic_closing

    if radius_px < 1:
        return mask
    margin = math.ceil(radius_px) + 1
    closed: Mask = isotropic_closing(np.pad(mask, margin, mode="edge"), radius_px)
    return closed[margin:-margin, margin:-margin]


def keep_thick(mask: Mask, radius_px: float) -> Mask:
    """Parts into which a disk fits, with all of the piece around them: drops specks and thin lines."""
    from scipy import ndimage

    if radius_px < 1:
        return mask
    margin = math.ceil(radius_px) + 1
    depth = ndimage.distance_transform_edt(np.pad(mask, margin, mode="edge"))[margin:-margin, margin:-margin]
    core: Mask = depth >= radius_px
    grown: Mask = ndimage.binary_propagation(core, mask=mask)
    return grown


def drop_small(mask: Mask, least_px: float) -> Mask:
    """Leave out connected pieces of fewer px."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    keep = np.bincount(labels.ravel()) >= least_px
    keep[0] = False
    kept: Mask = keep[labels]
    return kept


def fill_small_holes(mask: Mask, most_px: float) -> Mask:
    """Fill holes of fewer px; what touches the picture's border is no hole."""
    from scipy import ndimage

    holes = ndimage.binary_fill_holes(mask) & ~mask
    filled: Mask = mask | (holes & ~drop_small(holes, most_px))
    return filled


def grow(mask: Mask, radius_px: float) -> Mask:
    """Dilation by a disk."""
    from scipy import ndimage

    if radius_px < 1 or not mask.any():
        return mask
    reached: Mask = ndimage.distance_transform_edt(~mask) <= radius_px
    return reached
