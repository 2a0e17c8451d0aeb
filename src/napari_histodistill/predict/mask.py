"""From probabilities to a mask: smoothing and support within the tissue, a threshold, artefacts ignored; no torch.

Everything works on windows of any size with equal results, so a slider recomputes what is in view and a file is
written block by block.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import ndimage

from napari_histodistill.nets.masking import support_cell, support_reach, supported
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.slide.tissue import TISSUE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.nets.masking import MaskSettings

    UInt8 = npt.NDArray[np.uint8]
    Window = tuple[slice, slice]
    Span = tuple[tuple[int, int, int], tuple[int, int, int]]  # of rows and of columns: start, stop, size of the whole

TRUNCATE = 3.0
"""The Gaussian is cut off at this many standard deviations."""
STEP = 512
"""Side of the pieces that a window is computed in."""
TOLERANCE = 1e-3
"""Of the comparison with the threshold, in steps of 1/255: far below one step, far above rounding."""

_UNIT = (np.arange(256) / 255).astype(np.float32)


class Plane(Protocol):
    """Anything two-dimensional of uint8 that gives windows: numpy, memmap, zarr, `study.TissueOnGrid`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(h, w)."""

    def __getitem__(self, index: tuple[slice, slice], /) -> Any:
        """A window."""


def mask_from_probability(
    probability: Plane,
    tissue: Plane,
    settings: MaskSettings,
    pixel_size_um: tuple[float, float] = (1.0, 1.0),
) -> UInt8:
    """The mask of a whole array; see `mask_region`."""
    height, width = probability.shape
    return mask_region(probability, tissue, 0, 0, height, width, settings, pixel_size_um)


def mask_region(
    probability: Plane,
    tissue: Plane,
    y: int,
    x: int,
    height: int,
    width: int,
    settings: MaskSettings,
    pixel_size_um: tuple[float, float] = (1.0, 1.0),
) -> UInt8:
    """A window of the mask; the same as cutting it out of the mask of the whole.

    Parameters
    ----------
    probability : uint8 (H, W)
        255 x tumour probability.
    tissue : uint8 (H, W)
        0 background, 1 tissue, 3 artefact.
    y, x, height, width : int
        The window, inside the arrays.
    settings : MaskSettings
        Tumour is where the smoothed probability reaches the threshold and the surroundings have the support asked for.
        Both look at tissue only, so neither glass nor artefacts pull a probability down.
    pixel_size_um : (float, float)
        Size of a pixel in µm, (y, x).

    Returns
    -------
    uint8 (height, width)
        0 outside tissue, 1 tumour, 2 normal tissue, 3 artefact.
    """
    out = np.empty((height, width), np.uint8)
    for top in range(0, height, STEP):
        for left in range(0, width, STEP):
            rows, columns = slice(top, min(top + STEP, height)), slice(left, min(left + STEP, width))
            span = (
                (y + rows.start, y + rows.stop, probability.shape[0]),
                (x + columns.start, x + columns.stop, probability.shape[1]),
            )
            out[rows, columns] = _piece(probability, tissue, span, settings, pixel_size_um)
    return out


def mask_blocks(
    probability: Plane,
    tissue: Plane,
    settings: MaskSettings,
    pixel_size_um: tuple[float, float] = (1.0, 1.0),
    *,
    side: int = STEP,
) -> Iterator[tuple[int, int, UInt8]]:
    """The mask of the whole, block by block in raster order: (y, x, uint8 (h, w)); see `mask_region`."""
    for y in range(0, probability.shape[0], side):
        for x in range(0, probability.shape[1], side):
            height, width = min(side, probability.shape[0] - y), min(side, probability.shape[1] - x)
            block = mask_region(probability, tissue, y, x, height, width, settings, pixel_size_um)
            yield y, x, block


def _piece(
    probability: Plane,
    tissue: Plane,
    span: Span,
    settings: MaskSettings,
    pixel_size_um: tuple[float, float],
) -> UInt8:
    radii = [math.ceil(TRUNCATE * settings.smoothing_um / size) for size in pixel_size_um]
    outer, inner = _around(span, radii)
    around = np.asarray(tissue[outer])
    kind = around[inner]
    out = np.where(kind == IGNORE, np.uint8(IGNORE), np.uint8(OUTSIDE))
    inside = kind == TISSUE
    if inside.any():
        values = np.asarray(probability[outer])
        sigma = [settings.smoothing_um / size for size in pixel_size_um]
        tumour = inside & _reaches(values, around == TISSUE, 255 * settings.threshold - TOLERANCE, sigma, inner)
        if settings.support > 0 and tumour.any():
            tumour &= _supported(probability, tissue, span, settings.support, pixel_size_um)
        out[inside] = np.where(tumour[inside], np.uint8(TUMOUR), np.uint8(NORMAL))
    return out


def _around(span: Span, radii: Sequence[int], step: Sequence[int] = (1, 1)) -> tuple[Window, Window]:
    """The window of a span with so much around it, begun at multiples of ``step``; and the span within that window."""
    outer, inner = [], []
    for (start, stop, size), radius, unit in zip(span, radii, step, strict=True):
        first = max(0, start - radius) // unit * unit
        outer.append(slice(first, min(size, stop + radius)))
        inner.append(slice(start - first, stop - first))
    return (outer[0], outer[1]), (inner[0], inner[1])


def _supported(
    probability: Plane, tissue: Plane, span: Span, support: float, pixel_size_um: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    outer, inner = _around(span, support_reach(pixel_size_um), support_cell(pixel_size_um))
    values = _UNIT[np.asarray(probability[outer])]
    return supported(values, np.asarray(tissue[outer]) == TISSUE, support, pixel_size_um)[inner]


def _reaches(
    values: UInt8, inside: npt.NDArray[np.bool_], cut: float, sigma: list[float], inner: tuple[slice, slice]
) -> npt.NDArray[np.bool_]:
    """Where the mean of ``values`` over ``inside``, weighted by a Gaussian, is at least ``cut``, within ``inner``."""
    raw: npt.NDArray[np.bool_] = values >= cut
    relevant = raw[inside]
    if max(sigma) == 0 or relevant.all() or not relevant.any():  # a mean cannot leave the range of its values
        return raw[inner]
    weights = inside.astype(np.float32)
    excess = weights * (values.astype(np.float32) - np.float32(cut))
    smoothed: npt.NDArray[np.float32] = ndimage.gaussian_filter(
        excess, sigma, mode="constant", truncate=TRUNCATE, output=np.float32
    )
    return smoothed[inner] >= 0
