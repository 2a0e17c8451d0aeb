"""A simulated annotator: one brush stroke at a time on the largest error that there is.

For measuring how much a person's strokes are worth, on images whose truth is known; nothing here trains on truth but
through the strokes (as in root_painter's simulated annotation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.graph import route_through_array

from napari_histodistill.slide.labels import NORMAL, TUMOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Stroke:
    """A brush stroke on one image.

    Attributes
    ----------
    image : int
        Which image.
    value : int
        What is painted, a label of `slide.labels`.
    pixels : bool (h, w)
        Where.
    dabs : tuple of (row, column, radius)
        The way of the brush, in px.
    """

    image: int
    value: int
    pixels: NDArray[np.bool_]
    dabs: tuple[tuple[int, int, float], ...]


def next_stroke(
    predicted: Sequence[NDArray[np.bool_]],
    truth: Sequence[NDArray[np.bool_]],
    by_hand: Sequence[NDArray[np.uint8]],
    radius: float = 8.0,
) -> Stroke | None:
    """The stroke that a person would make next: on the image with most wrong pixels, through its largest error.

    The brush runs along the middle of the error, from one end to the other, and is never wider than the error there nor
    than ``radius`` px. Pixels that a person set already are not wrong any more.

    Parameters
    ----------
    predicted, truth : sequence of bool (h, w)
        Tumour.
    by_hand : sequence of uint8 (h, w)
        What strokes set so far, 255 where nothing.
    radius : float
        Of the brush in px.

    Returns
    -------
    Stroke or None
        None where nothing is wrong.
    """
    wrong = [(p != t) & (h == 255) for p, t, h in zip(predicted, truth, by_hand, strict=True)]
    amounts = [int(np.count_nonzero(w)) for w in wrong]
    worst = int(np.argmax(amounts))
    if not amounts[worst]:
        return None
    best: NDArray[np.bool_] | None = None
    for missed in (True, False):  # tumour that was missed, then tumour that is none: never both in one stroke
        parts, count = ndimage.label(wrong[worst] & (truth[worst] == missed))
        if count:
            sizes = np.bincount(parts.ravel())[1:]
            part = parts == 1 + int(np.argmax(sizes))
            if best is None or np.count_nonzero(part) > np.count_nonzero(best):
                best = part
    assert best is not None
    value = TUMOUR if truth[worst][best].all() else NORMAL
    dabs = dabs_through(best, radius)
    return Stroke(worst, value, covered_by(dabs, best), dabs)


def covered_by(dabs: Sequence[tuple[int, int, float]], part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What dabs of a round brush, (row, column, radius) each, cover of a part, bool (h, w)."""
    covered = np.zeros(part.shape, bool)
    for row, column, radius in dabs:
        reach = int(np.ceil(radius))
        top, left = max(0, row - reach), max(0, column - reach)
        window = slice(top, row + reach + 1), slice(left, column + reach + 1)
        y, x = np.ogrid[window]
        covered[window] |= ((y - row) ** 2 + (x - column) ** 2 <= radius**2)[
            : part.shape[0] - top, : part.shape[1] - left
        ]
    result: NDArray[np.bool_] = covered & part
    return result


def dabs_through(part: NDArray[np.bool_], radius: float) -> tuple[tuple[int, int, float], ...]:
    """The way of a brush along the middle of a connected part, (row, column, radius) in px, never wider than that."""
    depth = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
    middle = np.unravel_index(int(np.argmax(depth)), part.shape)
    cost = np.where(part, 1 / np.minimum(depth, radius).clip(min=0.5), np.inf)
    ends = []
    start = middle
    for _ in range(2):  # the end farthest from the middle, then the end farthest from that one
        distance = _steps_from(part, (int(start[0]), int(start[1])))
        start = np.unravel_index(int(np.argmax(np.where(part, distance, -1))), part.shape)
        ends.append(start)
    path, _ = route_through_array(np.where(np.isinf(cost), -1, cost), ends[0], ends[1], fully_connected=True)
    return tuple(
        (int(row), int(column), float(min(radius, max(1.0, depth[row, column]))))
        for row, column in path[:: max(1, round(radius / 4))]
    )


def _steps_from(part: NDArray[np.bool_], start: tuple[int, int]) -> NDArray[np.int32]:
    """Steps from a pixel to every pixel of a connected part; -1 outside."""
    distance = np.full(part.shape, -1, np.int32)
    front = np.zeros_like(part)
    front[start] = True
    step = 0
    while front.any():
        distance[front] = step
        step += 1
        front = ndimage.binary_dilation(front, np.ones((3, 3), bool)) & part & (distance < 0)
    return distance
