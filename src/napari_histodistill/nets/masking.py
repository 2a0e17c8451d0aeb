"""How probabilities become a mask: the settings that a model's card carries, and the score of the surroundings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

SUPPORT_UM: Final = 100.0
"""Standard deviation in µm of the Gaussian that says how much a pixel's surroundings count."""
POWER: Final = 4
"""Of the generalised mean, as in the bag loss of family ``gm`` (Jia et al. 2017)."""
_CELLS: Final = 12
"""Cells to a standard deviation: what is computed on."""
_TRUNCATE: Final = 3.0


@dataclass(frozen=True)
class MaskSettings:
    """How probabilities become a mask.

    Parameters
    ----------
    threshold : float
        Probability from which a pixel counts as tumour, 0 to 1.
    smoothing_um : float
        Standard deviation of the Gaussian before the threshold, in µm; 0 for none.
    support : float
        Bag score that the surroundings must reach, from 0 (none needed) to 1; see `supported`.
    """

    threshold: float
    smoothing_um: float = 0.0
    support: float = 0.0

    def given(
        self, threshold: float | None = None, smoothing_um: float | None = None, support: float | None = None
    ) -> Self:
        """These with what is not None in their place."""
        chosen = {"threshold": threshold, "smoothing_um": smoothing_um, "support": support}
        return replace(self, **{name: value for name, value in chosen.items() if value is not None})

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """From what a run's summary says; runs from before there was ``support`` have none.

        Raises
        ------
        KeyError, TypeError, ValueError
            If they are missing or no numbers.
        """
        return cls(float(record["threshold"]), float(record["smoothing_um"]), float(record.get("support", 0)))


def support_cell(pixel_size_um: tuple[float, float]) -> tuple[int, int]:
    """Pixels (y, x) in a cell: windows that begin at multiples of it have the same support."""
    rows, columns = (max(1, round(SUPPORT_UM / _CELLS / size)) for size in pixel_size_um)
    return rows, columns


def support_reach(pixel_size_um: tuple[float, float]) -> tuple[int, int]:
    """Pixels (y, x), a multiple of the cell, beyond which nothing has an influence."""
    cells = support_cell(pixel_size_um)
    rows, columns = (
        cell * (math.ceil(_TRUNCATE * SUPPORT_UM / (cell * size)) + 1)
        for cell, size in zip(cells, pixel_size_um, strict=True)
    )
    return rows, columns


def supported(
    probability: npt.NDArray[np.float32],
    inside: npt.NDArray[np.bool_],
    support: float,
    pixel_size_um: tuple[float, float],
) -> npt.NDArray[np.bool_]:
    """Where the surroundings of a pixel look like a positive bag.

    The score of a bag in family ``gm`` is the generalised mean (mean p^4)^(1/4) of its pixels. Here the bag is what
    lies around the pixel, weighted by a Gaussian of `SUPPORT_UM`, and the score must reach ``support``. A spot that is
    alone in tissue that looks normal does not reach it, whatever its own probability.

    Parameters
    ----------
    probability : float32 (h, w)
        From 0 to 1.
    inside : bool (h, w)
        What counts: tissue, without artefacts.
    support : float
        From 0 to 1.
    pixel_size_um : (float, float)
        Of a pixel, (y, x).

    Returns
    -------
    bool (h, w)
        Constant within cells of about 8 µm.
    """
    cells = support_cell(pixel_size_um)
    excess = np.where(inside, probability**POWER - np.float32(support**POWER), np.float32(0))
    height, width = excess.shape
    excess = np.pad(excess, [(0, -size % cell) for size, cell in zip(excess.shape, cells, strict=True)])
    pooled = excess.reshape(excess.shape[0] // cells[0], cells[0], -1, cells[1]).sum(3).sum(1)
    sigma = [SUPPORT_UM / (cell * size) for cell, size in zip(cells, pixel_size_um, strict=True)]
    weighted = ndimage.gaussian_filter(pooled, sigma, mode="constant", truncate=_TRUNCATE, output=np.float32)
    enough: npt.NDArray[np.bool_] = (weighted >= 0).repeat(cells[0], 0).repeat(cells[1], 1)[:height, :width]
    return enough
