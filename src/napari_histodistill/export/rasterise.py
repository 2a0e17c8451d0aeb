"""Polygons of a file painted onto a grid over the slide, however many points they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from napari_histodistill.errors import HistodistillError
from napari_histodistill.slide.filling import Polygon
from napari_histodistill.study import NO_CORRECTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.export.source import Place

    Points = npt.NDArray[np.float64]

FARTHEST: Final = 1e7
"""In level-0 px; no slide is larger."""
_MOST_CROSSINGS: Final = 500_000_000


class ImportFileError(HistodistillError):
    """A file that cannot be imported as asked."""


class Canvas:
    """A grid of labels that polygons are painted on.

    Parameters
    ----------
    place : Place

    Attributes
    ----------
    labels : uint8 (h, w)
        255 where nothing was painted.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.labels = np.full(place.shape, NO_CORRECTION, np.uint8)
        self._crossings = 0

    def paint(self, rings: Sequence[Points], value: int) -> bool:
        """Paint the pixels whose centres a polygon holds, rings crossing by the even-odd rule.

        Parameters
        ----------
        rings : sequence of float (n, 2)
            Outline and holes, in any order: positions (y, x) in level-0 px.
        value : int
            0 to 3, or 255 to take away what was painted.

        Returns
        -------
        Whether it holds the centre of a pixel of the grid.

        Raises
        ------
        ImportFileError
            If a coordinate is no number or absurdly far away, or the file would take too long.
        """
        for ring in rings:
            if not np.isfinite(ring).all() or np.abs(ring).max(initial=0) > FARTHEST:
                raise ImportFileError("A coordinate is not a number or lies far outside any slide: correct the file.")
        factor = np.array(self._place.mpp) / self._place.pixel_um
        corner = np.array(self._place.corner_um) / self._place.pixel_um
        polygon = Polygon([ring * factor - corner for ring in rings], self._place.shape)
        self._crossings += polygon.crossings
        if self._crossings > _MOST_CROSSINGS:
            raise ImportFileError("The outlines of the file are too intricate to draw: simplify them.")
        touched = False
        for y, x, inside in polygon.blocks():
            self.labels[y : y + inside.shape[0], x : x + inside.shape[1]][inside] = value
            touched |= bool(inside.any())
        return touched
