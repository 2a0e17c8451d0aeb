"""The tumour of an annotated slide, in windows of a grid over it: from outlines, from a mask picture, or none."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from napari_histodistill.mil.data.bags import DatasetError
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.annotations import CUT_OUT_GROUPS, TUMOUR_GROUPS, fill_outlines, read_asap
from napari_histodistill.slide.errors import AnnotationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_histodistill.slide import Slide, WorkingGrid

EXCLUDED_GROUPS: Final = CUT_OUT_GROUPS | {"normal"}
"""ASAP groups, in small letters, whose outlines are cut out of the tumour again."""


class Truth(Protocol):
    """Where a slide's tumour is on a grid over it."""

    def window(self, y: int, x: int, height: int, width: int) -> NDArray[np.bool_]:
        """Tumour pixels of a window in px of the grid: bool (height, width)."""


class NoTumour:
    """The truth of a slide without tumour."""

    def window(self, y: int, x: int, height: int, width: int) -> NDArray[np.bool_]:  # noqa: ARG002 - everywhere the same
        """Nothing."""
        return np.zeros((height, width), np.bool_)


class OutlinedTumour:
    """What lies inside a tumour outline of an ASAP annotation and inside no excluded one.

    Raises
    ------
    AnnotationError
        The file is no ASAP annotation, or has an outline in a group that is neither.
    """

    def __init__(self, path: Path, grid: WorkingGrid) -> None:
        outlines = [outline for outline in read_asap(path) if outline.has_area]
        for outline in outlines:
            if outline.group.lower() not in TUMOUR_GROUPS | EXCLUDED_GROUPS:
                raise AnnotationError(
                    f"{path} has an outline in the group {outline.group!r}, which is neither tumour "
                    f"({', '.join(sorted(TUMOUR_GROUPS))}) nor cut out of it ({', '.join(sorted(EXCLUDED_GROUPS))}): "
                    "rename the group or delete the outline."
                )
        self._tumour = [outline for outline in outlines if outline.group.lower() in TUMOUR_GROUPS]
        self._excluded = [outline for outline in outlines if outline.group.lower() in EXCLUDED_GROUPS]
        self._grid = grid

    def window(self, y: int, x: int, height: int, width: int) -> NDArray[np.bool_]:
        """Pixels whose centres lie in a tumour outline and in no excluded one."""
        shapes = (self._grid.slide_shape, self._grid.shape)
        inside = fill_outlines(self._tumour, *shapes, (y, x, height, width))
        if inside.any():
            inside &= ~fill_outlines(self._excluded, *shapes, (y, x, height, width))
        return inside


class PaintedTumour:
    """What is at least half bright in a mask picture over the slide, averaged over each pixel of the grid."""

    def __init__(self, mask: Slide, grid: WorkingGrid) -> None:
        self._mask, self._grid = mask, grid

    def window(self, y: int, x: int, height: int, width: int) -> NDArray[np.bool_]:
        """Pixels that the mask covers by at least half."""
        return self._mask.read_resampled(self._grid.shape, y, x, height, width)[..., 0] >= 128


@contextmanager
def open_truth(path: Path | None, slide: Slide, grid: WorkingGrid) -> Iterator[Truth]:
    """The truth of an open slide, whose file (see `AnnotatedSlide.truth`) is closed at the end.

    Raises
    ------
    DatasetError
        If a mask picture is not of the slide's size.
    """
    if path is None:
        yield NoTumour()
    elif path.suffix.lower() == ".xml":
        yield OutlinedTumour(path, grid)
    else:
        with open_slide(path, mpp=slide.mpp) as mask:
            if mask.shape != slide.shape:
                raise DatasetError(
                    f"The mask {path} has {mask.shape[1]} x {mask.shape[0]} px but its slide "
                    f"{slide.shape[1]} x {slide.shape[0]}: get the mask that belongs to it."
                )
            yield PaintedTumour(mask, grid)
