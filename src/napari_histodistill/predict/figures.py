"""The numbers of a mask: areas, share of tumour, mean probability; computed strip by strip, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.slide.labels import NORMAL, TUMOUR

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from napari_histodistill.predict.mask import Plane

    UInt8 = npt.NDArray[np.uint8]

ROWS = 512
COUNTED = "corrections_bytes"
"""Entry of a run's summary: `Corrections.journal_bytes` when its figures were counted."""


@dataclass(frozen=True)
class Figures:
    """Numbers of a mask.

    Attributes
    ----------
    tumour_mm2, tissue_mm2 : float
        Areas; tissue is tumour and normal tissue, without what is ignored.
    tumour_percent : float
        Tumour in percent of tissue, 0 without tissue.
    mean_probability : float
        Over tissue, from 0 to 1; 0 without tissue.
    """

    tumour_mm2: float
    tissue_mm2: float
    tumour_percent: float
    mean_probability: float


def summarise(mask: Plane, probability: Plane, pixel_size_um: tuple[float, float]) -> Figures:
    """Figures of a mask (0 outside, 1 tumour, 2 normal, 3 ignore) and its probabilities (uint8, x 255).

    Parameters
    ----------
    mask, probability : uint8 (h, w)
        numpy, memmap or zarr: read in strips.
    pixel_size_um : (float, float)
        Size of a pixel in µm, (y, x).
    """
    columns = slice(0, mask.shape[1])
    strips = (slice(y, min(y + ROWS, mask.shape[0])) for y in range(0, mask.shape[0], ROWS))
    return summarise_blocks(((mask[rows, columns], probability[rows, columns]) for rows in strips), pixel_size_um)


def summarise_blocks(blocks: Iterable[tuple[UInt8, UInt8]], pixel_size_um: tuple[float, float]) -> Figures:
    """Figures of a mask that comes in blocks of (mask, probability)."""
    tumour = tissue = total = 0
    for mask, probability in blocks:
        is_tumour = np.asarray(mask) == TUMOUR
        is_tissue = is_tumour | (np.asarray(mask) == NORMAL)
        tumour += int(np.count_nonzero(is_tumour))
        tissue += int(np.count_nonzero(is_tissue))
        total += int(np.asarray(probability).sum(where=is_tissue, dtype=np.int64))
    pixel_mm2 = pixel_size_um[0] * pixel_size_um[1] / 1e6
    return Figures(
        tumour_mm2=tumour * pixel_mm2,
        tissue_mm2=tissue * pixel_mm2,
        tumour_percent=100 * tumour / tissue if tissue else 0.0,
        mean_probability=total / tissue / 255 if tissue else 0.0,
    )
