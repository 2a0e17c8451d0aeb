"""Polygons on a grid of pixels: which pixels' centres they hold.

The scan-line method (Foley, van Dam, Feiner and Hughes, Computer Graphics, section 3.6): each row of centres is cut
where edges cross it, and a centre is inside if an odd number of crossings lies left of it. A centre on an edge belongs
to what lies right of and below it, so that polygons that share an edge share no pixel and leave none out. A ring that
crosses itself needs no repair: where it runs around a centre twice it leaves a hole, as in most drawing programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Points = npt.NDArray[np.float64]
    Rows = npt.NDArray[np.intp]

_BAND: Final = 1 << 24
"""Pixels of a polygon's box that are looked at at a time."""
_AT_ONCE: Final = 1 << 22
"""Crossings that are computed at a time."""


class Polygon:
    """A polygon on a grid. Time follows its crossings and the pixels of its box; memory is bounded.

    Parameters
    ----------
    rings : sequence of float (n, 2)
        Outline and holes, closed or not, in any order: finite positions (y, x) in px of the grid, 0 being its outer
        edge; they may lie beyond it. Rings of fewer than three points hold nothing.
    shape : (height, width)
        Of the grid.

    Attributes
    ----------
    crossings : int
        Of its edges with the grid's rows of centres: what filling it costs.
    """

    def __init__(self, rings: Sequence[Points], shape: tuple[int, int]) -> None:
        height, width = shape
        edges = np.concatenate([_edges(ring) for ring in rings if len(ring) > 2] or [np.empty((0, 4))])
        # the centre of pixel i is at i + 0.5; an edge counts where its upper end is above or at it, its lower one below
        first = np.clip(np.ceil(np.minimum(edges[:, 0], edges[:, 2]) - 0.5), 0, height).astype(np.intp)
        last = np.clip(np.ceil(np.maximum(edges[:, 0], edges[:, 2]) - 0.5), 0, height).astype(np.intp)
        spans = first < last
        self._edges, self._first, self._last = edges[spans], first[spans], last[spans]
        across = np.clip(np.ceil(self._edges[:, 1::2] - 0.5), 0, width)
        self._left, self._right = (int(across.min(initial=width)), int(across.max(initial=0)))
        self.crossings = int((self._last - self._first).sum())

    def blocks(self) -> Iterator[tuple[int, int, npt.NDArray[np.bool_]]]:
        """Its box within the grid, from the top in blocks: (y, x, bool (h, w) that is True inside)."""
        if self._left >= self._right:
            return
        end, band = int(self._last.max()), max(1, _BAND // (self._right - self._left))
        for top in range(int(self._first.min()), end, band):
            yield top, self._left, self._inside(top, min(top + band, end))

    def _inside(self, top: int, bottom: int) -> npt.NDArray[np.bool_]:
        """The rows from ``top`` to ``bottom`` of its box."""
        left, right = self._left, self._right
        first, last = np.maximum(self._first, top), np.minimum(self._last, bottom)
        odd = np.zeros((bottom - top, right - left + 1), np.uint8)
        counts = np.maximum(last - first, 0)
        cuts = np.searchsorted(np.cumsum(counts), np.arange(_AT_ONCE, counts.sum() + _AT_ONCE, _AT_ONCE)) + 1
        start = 0
        for stop in (*cuts, len(counts)):
            number = counts[start:stop]
            edge = np.repeat(np.arange(start, min(stop, len(counts))), number)
            rows = np.arange(len(edge)) - np.repeat(np.cumsum(number) - number, number) + first[edge]
            y0, x0, y1, x1 = self._edges[edge].T
            x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            columns = np.clip(np.ceil(x - 0.5), left, right).astype(np.intp) - left
            np.bitwise_xor.at(odd.reshape(-1), (rows - top) * odd.shape[1] + columns, np.uint8(1))
            start = min(stop, len(counts))
        return np.asarray(np.bitwise_xor.accumulate(odd[:, :-1], axis=1).astype(bool))


def _edges(ring: Points) -> Points:
    """(y, x, next y, next x) of each edge of a ring, closed or not."""
    return np.concatenate([ring, np.roll(ring, -1, axis=0)], axis=1)
