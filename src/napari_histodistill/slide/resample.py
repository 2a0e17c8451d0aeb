"""Windows of a virtual grid over a level, antialiased and free of seams.

Both grids share their outer edges, so pixel i of a grid of n over a level of N covers [i N / n, (i + 1) N / n). Pillow
resamples with that exact box; a margin as wide as the filter makes every pixel see the same neighbours in whatever
window it is read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Read = Callable[[int, int, int, int], NDArray[np.uint8]]

_BLOCK: Final = 2048
"""Side, in level px, that one step reads at most: bounds memory, and the rounding of Pillow's 32-bit boxes."""


def read_window(
    read: Read, level_shape: tuple[int, int], grid_shape: tuple[int, int], y: int, x: int, height: int, width: int
) -> NDArray[np.uint8]:
    """Read a window of a grid that covers a level edge to edge.

    Parameters
    ----------
    read
        ``read(y, x, height, width)`` returns uint8 (height, width, 3) of the level; only called inside it.
    level_shape, grid_shape
        (height, width) of the level and of the grid.
    y, x, height, width
        The window in grid px; it must lie inside the grid.

    Returns
    -------
    uint8 (height, width, 3), by a triangle filter whose support follows the ratio of the grids.
    """
    if level_shape == grid_shape:
        return read(y, x, height, width)
    ratios = [level / grid for level, grid in zip(level_shape, grid_shape, strict=True)]
    out = np.empty((height, width, 3), np.uint8)
    for rows in _blocks(height, ratios[0]):
        for cols in _blocks(width, ratios[1]):
            out[rows, cols] = _read_block(
                read,
                _Span(y + rows.start, rows.stop - rows.start, ratios[0], level_shape[0]),
                _Span(x + cols.start, cols.stop - cols.start, ratios[1], level_shape[1]),
            )
    return out


class _Span:
    """One axis of a block: the level px to read and the box inside them."""

    def __init__(self, start: int, size: int, ratio: float, level_size: int) -> None:
        margin = math.ceil(max(1.0, ratio)) + 1
        low, high = start * ratio, (start + size) * ratio
        self.size = size
        self.start = max(0, math.floor(low) - margin)
        self.stop = min(level_size, math.ceil(high) + margin)
        self.box = (low - self.start, min(high - self.start, self.stop - self.start))


def _read_block(read: Read, rows: _Span, cols: _Span) -> NDArray[np.uint8]:
    pixels = read(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
    box = (cols.box[0], rows.box[0], cols.box[1], rows.box[1])
    resized = Image.fromarray(pixels).resize((cols.size, rows.size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)


def _blocks(size: int, ratio: float) -> list[slice]:
    step = max(1, int(_BLOCK / ratio))
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
