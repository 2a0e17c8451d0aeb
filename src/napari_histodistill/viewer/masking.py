"""From probabilities to a pseudo-mask, block by block on a thread, where the user looks first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from napari_histodistill.predict.mask import mask_region
from napari_histodistill.viewer.editing import Mask, Window, clip_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.nets.masking import MaskSettings
    from napari_histodistill.predict.mask import Plane

BLOCK: Final = 512
"""Side of a block in working-grid px, the same blocks as a run's: a few ms to compute, less than one to show."""


@dataclass(frozen=True)
class MaskRequest:
    """What `compute_masks` needs.

    Parameters
    ----------
    probability, tissue : Plane
        On the working grid, read by windows: uint8 255 x probability; 0 background, 1 tissue, 3 artefact.
    settings : MaskSettings
    pixel_size_um : tuple of float
        Of the working grid, (y, x).
    windows : tuple of Window
        In the order in which they are wanted.
    """

    probability: Plane
    tissue: Plane
    settings: MaskSettings
    pixel_size_um: tuple[float, float]
    windows: tuple[Window, ...]


@dataclass(frozen=True)
class MaskBlock:
    """A computed window."""

    window: Window
    mask: Mask


def compute_masks(request: MaskRequest, control: JobControl) -> None:
    """Compute every window of the request; each `MaskBlock` is the payload of a progress report."""
    for number, window in enumerate(request.windows, start=1):
        control.checkpoint()
        control.progress(number, len(request.windows), payload=compute_block(request, window))


def compute_block(request: MaskRequest, window: Window) -> MaskBlock:
    """Mask of one window."""
    rows, columns = window
    mask = mask_region(
        request.probability,
        request.tissue,
        rows.start,
        columns.start,
        rows.stop - rows.start,
        columns.stop - columns.start,
        request.settings,
        request.pixel_size_um,
    )
    return MaskBlock(window, mask)


def blocks_of(shape: tuple[int, int]) -> list[Window]:
    """Blocks that cover an array, in raster order: the position in the list is the index that a run's record uses."""
    return [
        clip_window((slice(y, y + BLOCK), slice(x, x + BLOCK)), shape)
        for y in range(0, shape[0], BLOCK)
        for x in range(0, shape[1], BLOCK)
    ]


def blocks_under(window: Window, shape: tuple[int, int]) -> Iterator[int]:
    """Positions in `blocks_of` of the blocks that share pixels with a window."""
    columns = -(-shape[1] // BLOCK)
    for row in range(window[0].start // BLOCK, -(-window[0].stop // BLOCK)):
        for column in range(window[1].start // BLOCK, -(-window[1].stop // BLOCK)):
            yield row * columns + column


def nearest_first(windows: Iterable[Window], seen: Window) -> list[Window]:
    """Windows in view first, then the others, each by distance from the middle of the view."""
    centre = _middle(seen)

    def rank(window: Window) -> tuple[bool, float]:
        return not overlap(window, seen), math.dist(centre, _middle(window))

    return sorted(windows, key=rank)


def overlap(first: Window, second: Window) -> bool:
    """Whether two windows share pixels."""
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(first, second, strict=True))


def _middle(window: Window) -> tuple[float, float]:
    return (window[0].start + window[0].stop) / 2, (window[1].start + window[1].stop) / 2
