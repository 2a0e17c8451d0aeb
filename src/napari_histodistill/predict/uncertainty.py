"""Where a prediction is least sure of itself, and where to look next. Without torch.

A pixel is uncertain by the binary entropy of its probability p, -p log2 p - (1 - p) log2 (1 - p), in bits (uncertainty
sampling: Lewis and Gale 1994), or because teacher and student say different things, |p_student - p_teacher| (query by
committee: Seung et al. 1992). Both lie in [0, 1]; the larger counts. Everything is computed on a level of the
probabilities' pyramid whose pixels are at most `LEVEL_UM`: a slide of 100,000 x 80,000 px is 3,125 x 2,500 px there.

References
----------
.. [1] Settles, Active learning literature survey, University of Wisconsin 2009, sections 3.1 and 3.2
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from napari_histodistill.slide.tissue import TISSUE
from napari_histodistill.study.pyramid import pixels_at_centres

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_histodistill.study import Pyramid, TissueOnGrid

    UInt8 = NDArray[np.uint8]

LEVEL_UM: Final = 8.0
"""Largest pixel of the level that is used; the bundled model's finest output has pixels of 6 µm."""
SMOOTHING_UM: Final = 25.0
"""Standard deviation of the Gaussian, over tissue only, of the map that is shown."""
WINDOW_UM: Final = 200.0
"""Side of a place to look at."""
STEPS: Final = 4
"""Places are looked for at this many positions in the length of a window."""
LEAST: Final = 0.2
"""Mean uncertainty of a window from which it is worth a look."""
TRUNCATE: Final = 3.0


class Why(enum.Enum):
    """Why a place was chosen; the value is what the user reads."""

    DISAGREEMENT = "Teacher and student disagree here"
    ENTROPY = "The model is uncertain here"


@dataclass(frozen=True, eq=False)
class UncertaintyMap:
    """Uncertainty on a coarse grid over a slide, which it covers edge to edge.

    Attributes
    ----------
    entropy : uint8 (h, w)
        255 x bits, 0 outside tissue.
    disagreement : uint8 (h, w) or None
        255 x |p_student - p_teacher|, 0 outside tissue; None without a teacher.
    shown : uint8 (h, w)
        255 x the larger of the two, smoothed by `SMOOTHING_UM` over tissue, 0 outside tissue.
    pixel_um : (float, float)
        (y, x).
    """

    entropy: UInt8
    disagreement: UInt8 | None
    shown: UInt8
    pixel_um: tuple[float, float]


@dataclass(frozen=True)
class Place:
    """Somewhere to look.

    Attributes
    ----------
    y, x : float
        Its middle, in µm from the slide's outer corner.
    side : float
        In µm.
    uncertainty : float
        Mean over the window, 0 to 1; what is corrected, or no tissue, counts nothing.
    why : Why
    """

    y: float
    x: float
    side: float
    uncertainty: float
    why: Why


def entropy(probability: UInt8) -> UInt8:
    """255 x the binary entropy, in bits, of uint8 probabilities (255 is 1)."""
    p = np.arange(256) / 255
    inner = p[1:-1]
    bits = np.zeros(256)
    bits[1:-1] = -inner * np.log2(inner) - (1 - inner) * np.log2(1 - inner)
    table: UInt8 = np.rint(255 * bits).astype(np.uint8)
    return table[probability]


def uncertainty_map(
    student: Pyramid, teacher: Pyramid | None, tissue: TissueOnGrid, pixel_um: tuple[float, float]
) -> UncertaintyMap:
    """Uncertainty of a prediction on a coarse level.

    Parameters
    ----------
    student, teacher : Pyramid
        Probabilities on the same grid, uint8; no teacher gives entropy alone.
    tissue : TissueOnGrid
        Of any grid over the slide: 1 tissue.
    pixel_um : (float, float)
        Of the pyramids' finest level, (y, x).
    """
    level = _level(student, pixel_um)
    said = np.asarray(student.levels[level][:])
    height, width = said.shape
    coarse = (pixel_um[0] * student.shape[0] / height, pixel_um[1] * student.shape[1] / width)
    inside = _at_centres(tissue.mask, (height, width)) == TISSUE
    unsure = np.where(inside, entropy(said), np.uint8(0))
    differ = None
    if teacher is not None:
        other = np.asarray(teacher.levels[level][:])
        differ = np.where(inside, np.maximum(said, other) - np.minimum(said, other), np.uint8(0))
    total = unsure if differ is None else np.maximum(unsure, differ)
    return UncertaintyMap(unsure, differ, _smoothed(total, inside, coarse), coarse)


def _level(pyramid: Pyramid, pixel_um: tuple[float, float]) -> int:
    """The coarsest level with pixels of at most `LEVEL_UM`, else the finest."""
    sizes = [max(pixel_um) * pyramid.shape[0] / level.shape[0] for level in pyramid.levels]
    return max((index for index, size in enumerate(sizes) if size <= LEVEL_UM * 1.01), default=0)


def _at_centres(plane: NDArray[np.uint8], shape: tuple[int, int]) -> UInt8:
    """A plane over the slide on another grid over it, taken at pixel centres."""
    rows, columns = (
        pixels_at_centres(fine, coarse, 0, coarse) for fine, coarse in zip(plane.shape, shape, strict=True)
    )
    return plane[np.ix_(rows, columns)]


def _smoothed(values: UInt8, inside: NDArray[np.bool_], pixel_um: tuple[float, float]) -> UInt8:
    sigma = [SMOOTHING_UM / size for size in pixel_um]
    weight, value = (
        ndimage.gaussian_filter(plane.astype(np.float32), sigma, mode="constant", truncate=TRUNCATE)
        for plane in (inside, values)
    )
    return np.where(inside, np.rint(value / np.maximum(weight, 1e-6)), 0).astype(np.uint8)


def places_to_look_at(
    uncertainty: UncertaintyMap, corrected: NDArray[np.uint8], closed: Iterable[tuple[float, float]] = ()
) -> tuple[Place, ...]:
    """Windows of `WINDOW_UM` that are worth a look, the most uncertain first, none over another.

    Parameters
    ----------
    corrected : uint8 (H, W)
        Not 0 where a person set something, on any grid over the slide; such pixels count nothing.
    closed : iterable of (y, x)
        Middles, in µm from the slide's outer corner, of places that are not to be shown: nor is what lies over them.
    """
    shape = uncertainty.entropy.shape
    open_to = _at_centres(corrected, (shape[0], shape[1])) == 0
    parts = (
        [uncertainty.entropy]
        if uncertainty.disagreement is None
        else [
            uncertainty.entropy,
            uncertainty.disagreement,
        ]
    )
    total = np.where(open_to, np.maximum.reduce(parts), np.uint8(0))
    starts, sizes, middles = zip(
        *(_windows(n, size) for n, size in zip(shape, uncertainty.pixel_um, strict=True)), strict=True
    )
    area = 255 * sizes[0] * sizes[1]
    sums = _window_sums(total, starts, sizes)
    disputed = None
    if uncertainty.disagreement is not None:
        disputed = [_window_sums(np.where(open_to, part, np.uint8(0)), starts, sizes) for part in parts]
    blocked = np.zeros(sums.shape, bool)
    for middle in closed:
        blocked[_over(middles, middle)] = True
    found = []
    for cell in np.argsort(-sums, axis=None, kind="stable"):
        row, column = divmod(int(cell), sums.shape[1])
        if sums[row, column] < LEAST * area:
            break
        if blocked[row, column]:
            continue
        blocked[_over(middles, (middles[0][row], middles[1][column]))] = True
        disagree = disputed is not None and disputed[1][row, column] > disputed[0][row, column]
        found.append(
            Place(
                float(middles[0][row]),
                float(middles[1][column]),
                WINDOW_UM,
                float(sums[row, column] / area),
                Why.DISAGREEMENT if disagree else Why.ENTROPY,
            )
        )
    return tuple(found)


def _windows(length: int, pixel_um: float) -> tuple[NDArray[np.intp], int, NDArray[np.float64]]:
    """Along an axis: where windows begin and how long they are, in px, and where their middles are, in µm."""
    size = max(1, min(length, round(WINDOW_UM / pixel_um)))
    count = max(1, math.ceil((length - size) * pixel_um * STEPS / WINDOW_UM) + 1)
    starts = np.rint(np.linspace(0, length - size, count)).astype(np.intp)
    return starts, size, np.asarray((starts + size / 2) * pixel_um, np.float64)


def _window_sums(values: UInt8, starts: tuple[NDArray[np.intp], ...], sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """Sums of values over windows."""
    running = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(values, axis=0, dtype=np.int64), axis=1, out=running[1:, 1:])
    low, high = starts, [start + size for start, size in zip(starts, sizes, strict=True)]
    corner = [running[np.ix_(rows, columns)] for rows in (low[0], high[0]) for columns in (low[1], high[1])]
    sums: NDArray[np.int64] = corner[3] - corner[2] - corner[1] + corner[0]
    return sums


def _over(middles: tuple[NDArray[np.float64], ...], middle: tuple[float, float]) -> tuple[slice, slice]:
    """Windows that lie over the one with this middle, by more than a sliver."""
    near = WINDOW_UM * (1 - 0.5 / STEPS)
    rows, columns = (
        slice(int(np.searchsorted(axis, at - near, "right")), int(np.searchsorted(axis, at + near)))
        for axis, at in zip(middles, middle, strict=True)
    )
    return rows, columns
