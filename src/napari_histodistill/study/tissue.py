"""The tissue mask of a study's slide: as it was saved, and as windows of the working grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.slide.labels import OUTSIDE
from napari_histodistill.study.pyramid import pixels_at_centres

if TYPE_CHECKING:
    import numpy.typing as npt

    UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SavedTissue:
    """A tissue mask and how it came about; see `StudySlide.save_tissue`."""

    mask: UInt8
    settings: dict[str, Any]
    edited: bool


@dataclass(frozen=True)
class TissueOnGrid:
    """A tissue mask on a finer or coarser grid over the same slide, taken at pixel centres, window by window.

    Parameters
    ----------
    mask : uint8 (h, w)
        0 background, 1 tissue, 3 artefact; covers the slide edge to edge.
    shape : (H, W)
        Of the grid.
    unreadable : list of (y, x, height, width)
        Windows of the grid that count as no tissue.
    """

    mask: UInt8
    shape: tuple[int, int]
    unreadable: list[tuple[int, int, int, int]]

    def __getitem__(self, index: tuple[slice, slice]) -> UInt8:
        (top, bottom, _), (left, right, _) = (axis.indices(size) for axis, size in zip(index, self.shape, strict=True))
        rows = pixels_at_centres(self.mask.shape[0], self.shape[0], top, bottom)
        columns = pixels_at_centres(self.mask.shape[1], self.shape[1], left, right)
        window = self.mask[np.ix_(rows, columns)]
        for y, x, height, width in self.unreadable:
            if y < bottom and x < right and y + height > top and x + width > left:
                window[max(0, y - top) : y + height - top, max(0, x - left) : x + width - left] = OUTSIDE
        return window
