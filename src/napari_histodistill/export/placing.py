"""Where a mask image lies on a slide, and what it says at the pixels of the working grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_histodistill.export.rasterise import ImportFileError

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.export.read_mask import MaskImage, Pair
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.slide.grid import WorkingGrid
    from napari_histodistill.study import StudySlide

    UInt8 = npt.NDArray[np.uint8]

_AT_ONCE: Final = 1 << 25
"""Pixels of a mask that are read at a time."""
_ROWS: Final = 512
_MOSTLY: Final = 0.99
_FINEST: Final = 0.2
"""A mask's pixels are not finer than this share of the slide's: it would cost much to read and say nothing."""


@dataclass(frozen=True)
class Placement:
    """A mask's place on a slide.

    Parameters
    ----------
    grid : WorkingGrid
        What is asked for.
    pixel_um, corner_um : (float, float)
        Size of the mask's pixels, and its outer corner from the slide's, as (y, x) in µm.
    notes : list of str
        Sentences for the user.
    """

    grid: WorkingGrid
    pixel_um: Pair
    corner_um: Pair = (0.0, 0.0)
    notes: list[str] = field(default_factory=list)

    def sample(self, mask: MaskImage, control: JobControl) -> tuple[UInt8, Callable[[slice], npt.NDArray[np.bool_]]]:
        """Values at the centres of the working grid's pixels (0 where the mask does not reach), and where it does.

        Raises
        ------
        ImportFileError
            If the mask does not hold small whole numbers.
        """
        rows, columns = (self._indices(axis, mask.shape[axis]) for axis in (0, 1))
        on_rows, on_columns = (rows >= 0) & (rows < mask.shape[0]), (columns >= 0) & (columns < mask.shape[1])
        out = np.zeros(self.grid.shape, np.uint8)
        taken = columns[on_columns]
        left = int(taken[0]) if taken.size else 0
        step = max(1, min(_ROWS, int(_AT_ONCE / max(1, mask.shape[1] * self.grid.pixel_size_um[0] / self.pixel_um[0]))))
        for top in range(0, len(rows), step):
            control.checkpoint()
            control.progress(top, len(rows), "Reading the mask")
            here = np.flatnonzero(on_rows[top : top + step]) + top
            if here.size:
                first = int(rows[here[0]])
                read = mask.read(slice(first, int(rows[here[-1]]) + 1), slice(left, int(taken[-1]) + 1))
                out[np.ix_(here, on_columns)] = _labels(read[rows[here] - first][:, taken - left])
        return out, lambda strip: on_rows[strip, None] & on_columns[None]

    def _indices(self, axis: int, size: int) -> npt.NDArray[np.int64]:
        """Pixel of the mask under the centre of each pixel of the working grid along an axis; -1 before it."""
        count = self.grid.shape[axis]
        centres = (np.arange(count) + 0.5) * self.grid.pixel_size_um[axis] - self.corner_um[axis]
        pixels: npt.NDArray[np.int64] = np.clip(np.floor(centres / self.pixel_um[axis] + 1e-9), -1, size).astype(
            np.int64
        )
        return pixels


def _labels(read: npt.NDArray[Any]) -> UInt8:
    if read.dtype.kind not in "bui":
        raise ImportFileError("The file holds fractions, but a mask holds whole numbers: convert it.")
    if read.dtype.itemsize > 1 and read.size and (read.min() < 0 or read.max() > 255):
        raise ImportFileError(
            f"The file holds the value {read.max()}, but a mask holds 0 to 3 and 255: change its values."
        )
    return read.astype(np.uint8)


def place_mask(mask: MaskImage, entry: StudySlide, mpp: float | None, name: str) -> Placement:
    """Find out where a mask lies.

    In this order: the size of pixel that the user gives, what this software wrote into the file, what the file says
    otherwise, and edge to edge over the slide if its proportions are the slide's. A size that covers the slide to
    within a pixel is taken as covering it exactly.

    Raises
    ------
    ImportFileError
        If none of these tells.
    """
    size_um = tuple(n * p for n, p in zip(entry.grid.slide_shape, entry.mpp, strict=True))
    over_all = (size_um[0] / mask.shape[0], size_um[1] / mask.shape[1])
    notes: list[str] = []
    if mask.provenance and mask.provenance.get("fingerprint") != entry.fingerprint:
        notes.append(f"{name} was exported from another slide.")
    found = _said(mask, entry, mpp)
    if found is None:
        if not _same_proportions(mask.shape, entry):
            raise ImportFileError(
                f"{name} has {mask.shape[1]} x {mask.shape[0]} px, not the proportions of the slide, and does not give "
                "the size of its pixels: give it in µm per pixel."
            )
        return Placement(entry.grid, over_all, (0.0, 0.0), [*notes, f"{name} is laid over the whole slide."])
    pixel, corner = found
    if min(p / m for p, m in zip(pixel, entry.mpp, strict=True)) < _FINEST:
        raise ImportFileError(
            f"The pixels of {name} would be {min(pixel):.2g} µm, far finer than the slide's: give their size in µm."
        )
    reach = [n * p for n, p in zip(mask.shape, pixel, strict=True)]
    pairs = list(zip(reach, size_um, pixel, corner, strict=True))
    if all(abs(r - s) <= p and abs(c) < p / 4 for r, s, p, c in pairs):
        return Placement(entry.grid, over_all, (0.0, 0.0), notes)
    share = math.prod(max(0.0, min(c + r, s) - max(c, 0.0)) / s for r, s, _, c in pairs)
    if share == 0:
        raise ImportFileError(f"{name} lies wholly off the slide: give the size of its pixels in µm.")
    if share < _MOSTLY:
        notes.append(f"{name} covers {100 * share:.0f}% of the slide, at {pixel[1]:.4g} µm per pixel.")
    elif any(r > 1.01 * s + p for r, s, p, _ in pairs):
        notes.append(f"{name} reaches beyond the slide, at {pixel[1]:.4g} µm per pixel.")
    return Placement(entry.grid, pixel, corner, notes)


def _said(mask: MaskImage, entry: StudySlide, mpp: float | None) -> tuple[Pair, Pair] | None:
    """Size of pixel and corner that somebody gave."""
    if mpp is not None:
        return (mpp, mpp), (0.0, 0.0)
    options = mask.provenance.get("options")
    if isinstance(options, dict):
        pixel, corner = _pair(options.get("pixel_um")), _pair(options.get("corner_um"))
        if pixel and corner and min(pixel) > 0:
            return pixel, corner
    if mask.pixel_um is None:
        return None
    if mask.centre_um is None or mask.centre_um == (0.0, 0.0):
        return mask.pixel_um, (0.0, 0.0)
    y, x = (c - (p - m) / 2 for c, p, m in zip(mask.centre_um, mask.pixel_um, entry.mpp, strict=True))
    return mask.pixel_um, (y, x)


def _pair(found: Any) -> Pair | None:
    if isinstance(found, list | tuple) and len(found) == 2 and all(isinstance(number, int | float) for number in found):
        y, x = float(found[0]), float(found[1])
        return (y, x) if math.isfinite(y) and math.isfinite(x) else None
    return None


def _same_proportions(shape: tuple[int, int], entry: StudySlide) -> bool:
    """Whether pixels of a mask over the whole slide would be as square as the slide's, to the rounding of its sides."""
    y, x = (n / m for n, m in zip(entry.grid.slide_shape, shape, strict=True))
    slack = 1 / shape[0] + 1 / shape[1]
    return abs(y / x - 1) <= slack or abs(y * entry.mpp[0] / (x * entry.mpp[1]) - 1) <= slack
