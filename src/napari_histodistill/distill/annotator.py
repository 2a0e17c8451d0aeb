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
    """

    image: int
    value: int
    pixels: NDArray[np.bool_]


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
    return Stroke(worst, value, brush_through(best, radius))


def brush_through(part: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """What a round brush covers on its way along the middle of a connected part, inside the part, bool (h, w)."""
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
    covered = np.zeros(part.shape, bool)
    y, x = np.mgrid[: part.shape[0], : part.shape[1]]
    for row, column in path[:: max(1, round(radius / 4))]:
        covered |= (y - row) ** 2 + (x - column) ** 2 <= min(radius, max(1.0, depth[row, column])) ** 2
    result: NDArray[np.bool_] = covered & part
    return result


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
