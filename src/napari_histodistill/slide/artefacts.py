"""Pen ink and areas out of focus: conservative, because what is marked is left out of everything after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_histodistill.slide.colours import hue_saturation_value, optical_density
from napari_histodistill.slide.metadata import ASSUMED_MPP
from napari_histodistill.slide.shapes import drop_small, grow, keep_thick

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_histodistill.slide.control import Control
    from napari_histodistill.slide.slide import Slide

    Float = NDArray[np.float32]
    Mask = NDArray[np.bool_]

FOCUS_UM: Final = 2.0
"""Pixel size, in µm, that focus is judged at."""

_STROKE_RADIUS_UM: Final = 60.0
_STROKE_AREA_UM2: Final = 50_000.0
_STROKE_EDGE_UM: Final = 24.0
_BLOCK: Final = 64
_WINDOW: Final = 16
_FULL_BLOCK: Final = 0.75
_SCARCE_BLOCK: Final = 0.25
_FEWEST_BLOCKS: Final = 3
_LEAST_CONTRAST: Final = 1e-4
_BLURRED_SLIDE: Final = 0.01


def pen_ink(pixels: NDArray[np.uint8], pixel_um: float) -> Mask:
    """Marker strokes by hue: green, blue, red and black ones at least 120 µm wide, with their soft edges.

    The rules keep clear of what H&E shows: haematoxylin is violet to blue but never as saturated as a blue marker;
    blood and eosin are red but reflect more green and blue than a red marker.

    Parameters
    ----------
    pixels
        uint8 (h, w, 3) of a slide that looks like H&E.
    pixel_um
        Size of a pixel in µm.

    Returns
    -------
    bool (h, w).
    """
    hue, saturation, value = hue_saturation_value(pixels)
    green = (hue >= 70) & (hue <= 190) & (saturation >= 0.2)
    blue = (hue > 190) & (hue <= 238) & (saturation >= 0.5)
    red = ((hue >= 350) | (hue <= 15)) & (saturation >= 0.75) & (value >= 0.4)
    black = (value <= 0.27) & (saturation <= 0.35)
    found = np.zeros(hue.shape, np.bool_)
    for ink in (green, blue, red, black):
        thick = keep_thick(ink, _STROKE_RADIUS_UM / pixel_um)
        found |= drop_small(thick, _STROKE_AREA_UM2 / pixel_um**2)
    return grow(found, _STROKE_EDGE_UM / pixel_um)


def out_of_focus(slide: Slide, tissue: Mask, glass: Float, sensitivity: float, control: Control) -> tuple[Mask, bool]:
    """Blurred areas of tissue, in blocks of 64 px at `FOCUS_UM`.

    A block is blurred where the variance of its Laplacian is a small part of the median over this slide's tissue, and
    more so than its coarse contrast explains: smooth tissue such as mucin is low in both (after Pech-Pacheco et al.
    2000, with the contrast divided out).

    Parameters
    ----------
    slide
        The slide; its pixels are read where there is tissue.
    tissue
        bool (h, w) on any grid that covers the slide.
    glass
        Colour of empty glass.
    sensitivity
        0 to 1: the part of the usual variance under which a block counts as blurred is a fifth of it.

    Returns
    -------
    (bool mask on the grid of `tissue`, whether all of the tissue looks blurred).
    """
    mpp = slide.mpp or (ASSUMED_MPP, ASSUMED_MPP)
    if max(mpp) > 1.1 * FOCUS_UM:
        return np.zeros_like(tissue), False
    shape = tuple(max(1, round(side * size / FOCUS_UM)) for side, size in zip(slide.shape, mpp, strict=True))
    blocks = _measure_blocks(slide, (shape[0], shape[1]), tissue, glass, control)
    usual = blocks.share >= _FULL_BLOCK
    if usual.sum() < _FEWEST_BLOCKS:
        return np.zeros_like(tissue), False
    fine = blocks.fine / np.median(blocks.fine[usual])
    ratio = blocks.fine / (blocks.coarse + _LEAST_CONTRAST)
    ratio = ratio / np.median(ratio[usual])
    limit = sensitivity / 5
    blurred = (blocks.share >= _SCARCE_BLOCK) & (fine < limit * blocks.share) & (ratio < 2 * limit)
    blurred = drop_small(blurred, _FEWEST_BLOCKS)
    rows = (np.arange(tissue.shape[0]) + 0.5) * shape[0] / tissue.shape[0] / _BLOCK
    cols = (np.arange(tissue.shape[1]) + 0.5) * shape[1] / tissue.shape[1] / _BLOCK
    everywhere = float(np.median(blocks.fine[usual])) < _BLURRED_SLIDE
    return blurred[np.ix_(rows.astype(np.intp), cols.astype(np.intp))], everywhere


@dataclass(frozen=True)
class _Blocks:
    """Per block of 64 px: variance of the Laplacian, variance of the smoothed densities, share of tissue."""

    fine: Float
    coarse: Float
    share: Float


def _measure_blocks(slide: Slide, shape: tuple[int, int], tissue: Mask, glass: Float, control: Control) -> _Blocks:
    """Measure the blocks with tissue of a grid of `shape`, window by window."""
    count = (-(-shape[0] // _BLOCK), -(-shape[1] // _BLOCK))
    share = _share_of_blocks(tissue, shape, count)
    fine, coarse = np.zeros(count, np.float32), np.zeros(count, np.float32)
    for row in range(0, count[0], _WINDOW):
        for col in range(0, count[1], _WINDOW):
            control.checkpoint()
            part = np.s_[row : row + _WINDOW, col : col + _WINDOW]
            if share[part].max() < _SCARCE_BLOCK:
                continue
            height, width = (size * _BLOCK for size in share[part].shape)
            pixels = slide.read_resampled(shape, row * _BLOCK, col * _BLOCK, height, width, added=True)
            fine[part], coarse[part] = focus_measure(optical_density(pixels[..., 1], glass[1]))
    return _Blocks(fine, coarse, share)


def _share_of_blocks(tissue: Mask, shape: tuple[int, int], count: tuple[int, int]) -> Float:
    """Share of tissue in each block: float32 of shape `count`."""
    rows = np.minimum((np.arange(tissue.shape[0]) + 0.5) * shape[0] / tissue.shape[0] // _BLOCK, count[0] - 1)
    cols = np.minimum((np.arange(tissue.shape[1]) + 0.5) * shape[1] / tissue.shape[1] // _BLOCK, count[1] - 1)
    index = (rows[:, None] * count[1] + cols).astype(np.intp).ravel()
    total = np.bincount(index, minlength=count[0] * count[1])
    held = np.bincount(index, weights=tissue.ravel(), minlength=count[0] * count[1])
    return (held / np.maximum(total, 1)).reshape(count).astype(np.float32)


def focus_measure(grey: Float) -> tuple[Float, Float]:
    """Fine and coarse contrast of each block of 64 px.

    Parameters
    ----------
    grey
        float32 (h, w), h and w multiples of 64.

    Returns
    -------
    (variance of the Laplacian, variance of the smoothed values), each float32 (h / 64, w / 64). Blur takes nearly all
    of the first and little of the second.
    """
    from scipy import ndimage

    return _block_variance(ndimage.laplace(grey)), _block_variance(ndimage.gaussian_filter(grey, 2.0))


def _block_variance(values: Float) -> Float:
    blocks = values.reshape(values.shape[0] // _BLOCK, _BLOCK, values.shape[1] // _BLOCK, _BLOCK)
    variance: Float = blocks.var(axis=(1, 3))
    return variance
