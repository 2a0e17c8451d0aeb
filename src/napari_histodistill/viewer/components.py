"""Connected regions of a mask too large to label at once: blocks are labelled apart and joined along their seams."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.viewer.editing import Window

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

Edges: TypeAlias = tuple[tuple[bool, bool], ...]


def find_small(
    wanted: Callable[[Window], Bools],
    blocks: Sequence[Window],
    barred: Callable[[Window], Bools],
    *,
    largest: float,
    diagonal: bool,
    open_edges: Edges,
    control: JobControl,
) -> tuple[int, Iterator[tuple[Window, Bools]]]:
    """Regions of at most ``largest`` pixels.

    Parameters
    ----------
    wanted : callable
        Gives for a block what belongs to regions, bool (h, w); must give the same each time.
    blocks : sequence of Window
        In raster order, a full grid of rows and columns without gaps.
    barred : callable
        Gives for a block pixels whose regions are left out, bool (h, w).
    diagonal : bool
        Whether pixels that touch at a corner are connected.
    open_edges : ((top, bottom), (left, right))
        Edges of the whole at which a region is left out, because it may go on beyond.
    control : JobControl

    Returns
    -------
    count : int
        Number of such regions.
    found : iterator of (Window, bool (h, w))
        Where they are, block by block.
    """
    structure = np.ones((3, 3), bool) if diagonal else None
    edges = (blocks[0][0].start, blocks[-1][0].stop), (blocks[0][1].start, blocks[-1][1].stop)
    seams = _Seams(blocks, diagonal=diagonal)
    sizes: list[Ints] = []
    out: list[Bools] = []
    offset = 0
    for block in blocks:
        control.checkpoint()
        labels, number = ndimage.label(wanted(block), structure)
        sizes.append(np.bincount(labels.ravel(), minlength=number + 1)[1:])
        excluded = np.zeros(number + 1, bool)
        excluded[labels[barred(block)]] = True
        for axis in (0, 1):
            if open_edges[axis][0] and block[axis].start == edges[axis][0]:
                excluded[np.take(labels, 0, axis)] = True
            if open_edges[axis][1] and block[axis].stop == edges[axis][1]:
                excluded[np.take(labels, -1, axis)] = True
        out.append(excluded[1:])
        seams.add(block, np.where(labels > 0, labels + offset, 0))
        offset += number
    size, excluded = np.concatenate([[0], *sizes]), np.concatenate([[True], *out])
    root = seams.roots(offset + 1)
    total, any_out = np.zeros(offset + 1, np.int64), np.zeros(offset + 1, bool)
    np.add.at(total, root, size)
    np.logical_or.at(any_out, root, excluded)
    small = (total <= largest) & ~any_out
    count = int(np.count_nonzero(small[np.unique(root)]))
    return count, _again(wanted, blocks, structure, small[root])


def _again(
    wanted: Callable[[Window], Bools], blocks: Sequence[Window], structure: Bools | None, small: Bools
) -> Iterator[tuple[Window, Bools]]:
    """Label the blocks once more, which gives the same numbers, and keep what is small."""
    offset = 0
    for block in blocks:
        labels, number = ndimage.label(wanted(block), structure)
        chosen = np.concatenate([[False], small[offset + 1 : offset + 1 + number]])
        yield block, chosen[labels]
        offset += number


class _Seams:
    """Which labels of neighbouring blocks are one region."""

    def __init__(self, blocks: Sequence[Window], *, diagonal: bool) -> None:
        self._left = blocks[0][1].start
        width = blocks[-1][1].stop - self._left
        self._above, self._row = np.zeros(width, np.int64), np.zeros(width, np.int64)
        self._beside: Ints | None = None
        self._shifts = (-1, 0, 1) if diagonal else (0,)
        self._parent: dict[int, int] = {}

    def add(self, block: Window, labels: Ints) -> None:
        """Join a block's labels, 0 for none, to the blocks above and left of it, which came before."""
        columns = slice(block[1].start - self._left, block[1].stop - self._left)
        if columns.start == 0:
            self._above, self._row, self._beside = self._row, np.zeros_like(self._row), None
        for shift in self._shifts:
            first, last = max(0, columns.start + shift), min(len(self._above), columns.stop + shift)
            self._join(labels[0, first - shift - columns.start : last - shift - columns.start], self._above[first:last])
        if self._beside is not None:
            height = len(labels)
            for shift in self._shifts:
                rows = slice(max(0, -shift), height - max(0, shift))
                beside = slice(max(0, shift), height - max(0, -shift))
                self._join(labels[rows, 0], self._beside[beside])
        self._row[columns], self._beside = labels[-1], labels[:, -1]

    def _join(self, first: Ints, second: Ints) -> None:
        both = (first > 0) & (second > 0)
        for a, b in np.unique(np.stack([first[both], second[both]], axis=1), axis=0):
            low, high = sorted((self._find(int(a)), self._find(int(b))))
            if low != high:
                self._parent[high] = low

    def _find(self, label: int) -> int:
        while label in self._parent:
            label = self._parent[label]
        return label

    def roots(self, count: int) -> Ints:
        """For each label from 0 to ``count`` - 1, the one that stands for its region."""
        root = np.arange(count)
        for label in self._parent:
            root[label] = self._find(label)
        return root
