"""Polygons painted onto a grid: pixels whose centres they hold, rings crossing by the even-odd rule.

A ring that crosses itself needs no repair: where it runs around a centre twice it leaves a hole, as in most drawing
programs. Work and memory are bounded however many points a file has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from napari_histodistill.errors import HistodistillError
from napari_histodistill.study import NO_CORRECTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.export.source import Place

    Points = npt.NDArray[np.float64]

FARTHEST: Final = 1e7
"""In level-0 px; no slide is larger."""
_BAND: Final = 1 << 24
"""Pixels of a polygon's box that are looked at at a time."""
_AT_ONCE: Final = 1 << 22
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
        """Paint a polygon.

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
        edges = np.concatenate([_edges(ring) for ring in rings if len(ring) > 2] or [np.empty((0, 4))])
        if not np.isfinite(edges).all() or np.abs(edges).max(initial=0) > FARTHEST:
            raise ImportFileError("A coordinate is not a number or lies far outside any slide: correct the file.")
        factor = np.array(self._place.mpp) / self._place.pixel_um
        edges = edges * np.tile(factor, 2) - np.tile(np.array(self._place.corner_um) / self._place.pixel_um, 2)
        height, width = self._place.shape
        # centre of pixel i is at i + 0.5; an edge counts where its upper end is above or at a centre, the lower below
        first = np.clip(np.ceil(np.minimum(edges[:, 0], edges[:, 2]) - 0.5), 0, height).astype(np.intp)
        last = np.clip(np.ceil(np.maximum(edges[:, 0], edges[:, 2]) - 0.5), 0, height).astype(np.intp)
        spans = first < last
        if not spans.any():
            return False
        edges, first, last = edges[spans], first[spans], last[spans]
        self._crossings += int((last - first).sum())
        if self._crossings > _MOST_CROSSINGS:
            raise ImportFileError("The outlines of the file are too intricate to draw: simplify them.")
        left = int(np.clip(np.ceil(edges[:, 1::2].min() - 0.5), 0, width))
        right = int(np.clip(np.ceil(edges[:, 1::2].max() - 0.5), 0, width))
        if left == right:
            return False
        touched = False
        band = max(1, _BAND // (right - left))
        for top in range(int(first.min()), int(last.max()), band):
            bottom = min(top + band, int(last.max()))
            inside = _inside(edges, np.maximum(first, top), np.minimum(last, bottom), (top, bottom, left, right))
            self.labels[top:bottom, left:right][inside] = value
            touched |= bool(inside.any())
        return touched


def _edges(ring: Points) -> Points:
    """(y, x, next y, next x) of each edge of a ring, closed or not."""
    return np.concatenate([ring, np.roll(ring, -1, axis=0)], axis=1)


def _inside(
    edges: Points, first: npt.NDArray[np.intp], last: npt.NDArray[np.intp], window: tuple[int, int, int, int]
) -> npt.NDArray[np.bool_]:
    """Pixels of a window (top, bottom, left, right) with an odd number of edges to the left of their centres."""
    top, bottom, left, right = window
    crossed = np.zeros((bottom - top, right - left + 1), np.uint8)
    counts = np.maximum(last - first, 0)
    cuts = np.searchsorted(np.cumsum(counts), np.arange(_AT_ONCE, counts.sum() + _AT_ONCE, _AT_ONCE)) + 1
    start = 0
    for stop in (*cuts, len(edges)):
        number = counts[start:stop]
        edge = np.repeat(np.arange(start, min(stop, len(edges))), number)
        rows = np.arange(len(edge)) - np.repeat(np.cumsum(number) - number, number) + first[edge]
        y0, x0, y1, x1 = edges[edge].T
        x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        columns = np.clip(np.ceil(x - 0.5), left, right).astype(np.intp) - left
        np.bitwise_xor.at(crossed.reshape(-1), (rows - top) * crossed.shape[1] + columns, np.uint8(1))
        start = min(stop, len(edges))
    return np.asarray(np.bitwise_xor.accumulate(crossed[:, :-1], axis=1).astype(bool))
