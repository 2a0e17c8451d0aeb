"""Changes to a whole mask as proposals: grow, shrink, fill holes, drop islands, confirm, forget; on a thread.

What a person set by hand is the last word: growing, filling and dropping leave it, and whole regions that hold some of
it, alone. Shrinking an outline moves it wherever it came from. Ignored pixels stay ignored.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study.journal import TILE, Patch
from napari_histodistill.study.pyramid import NO_CORRECTION
from napari_histodistill.viewer.components import find_small
from napari_histodistill.viewer.editing import ONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.viewer.editing import Mask, Window

SIDE: Final = 1024
"""Side of the blocks in which a mask is gone through; a multiple of `TILE`."""


class Shaping(enum.Enum):
    """What to do; the value is what the user reads, and the tool's name in the journal."""

    GROW = "grow tumour"
    SHRINK = "shrink tumour"
    FILL_HOLES = "fill holes"
    DROP_ISLANDS = "drop islands"
    CONFIRM = "confirm"
    FORGET = "forget corrections"

    @property
    def sets(self) -> int | None:
        """The value that it sets, 255 where it takes corrections away, None where it is not one."""
        return {
            Shaping.GROW: TUMOUR,
            Shaping.SHRINK: NORMAL,
            Shaping.FILL_HOLES: TUMOUR,
            Shaping.DROP_ISLANDS: NORMAL,
            Shaping.FORGET: NO_CORRECTION,
        }.get(self)


@dataclass(frozen=True)
class ShapingRequest:
    """What `propose` needs.

    Parameters
    ----------
    shaping : Shaping
    amount : float
        Growing, shrinking: µm. Holes, islands: µm² up to which a region is changed. Otherwise unused.
    data, hand, computed : uint8 (H, W)
        As in `EditableMask`.
    tissue : callable
        Gives for a window where a person may set something, bool (h, w).
    window : Window
        What is to be changed, inside the mask.
    pixel_size_um : tuple of float
        (y, x).
    """

    shaping: Shaping
    amount: float
    data: Mask
    hand: Mask
    computed: Mask
    tissue: Callable[[Window], NDArray[np.bool_]]
    window: Window
    pixel_size_um: tuple[float, float]


@dataclass(frozen=True)
class Proposal:
    """What a `Shaping` would change.

    Parameters
    ----------
    request : ShapingRequest
    patches : tuple of Patch
        From what corrections are to what they become, 255 for none.
    pixels : int
        How many mask pixels change.
    regions : int or None
        How many holes or islands; None where there is no such thing.
    corner : (int, int)
        Where the smallest window around all changes begins, (y, x).
    picture : uint8 (h, w)
        That window: 0 where nothing changes, else what the correction becomes plus one; 1 where it goes.
    """

    request: ShapingRequest
    patches: tuple[Patch, ...]
    pixels: int
    regions: int | None
    corner: tuple[int, int]
    picture: Mask

    @property
    def area_mm2(self) -> float:
        """Area of what changes."""
        return self.pixels * math.prod(self.request.pixel_size_um) * 1e-6


def propose(request: ShapingRequest, control: JobControl) -> Proposal:
    """Find what a `Shaping` would change, block by block."""
    regions: int | None = None
    if request.shaping in {Shaping.FILL_HOLES, Shaping.DROP_ISLANDS}:
        found = _small_regions(request, control)
        blocks, regions = found.blocks(), found.count
    else:
        blocks = _whole_blocks(request)
    patches: list[Patch] = []
    pixels = 0
    total = len(list(blocks_in(request.window)))
    for number, (window, chosen, value) in enumerate(blocks, start=1):
        control.checkpoint()
        control.progress(min(number, total), total)
        if chosen.any():
            now = request.hand[window] - ONE
            after = np.where(chosen, value, now).astype(np.uint8)
            pixels += int(np.count_nonzero(after != now))
            patches += _tiles(window, now, after)
    return Proposal(request, tuple(patches), pixels, regions, *_picture(patches))


def _picture(patches: list[Patch]) -> tuple[tuple[int, int], Mask]:
    """Corner and picture of a `Proposal`."""
    if not patches:
        return (0, 0), np.zeros((0, 0), np.uint8)
    top, left = min(patch.y for patch in patches), min(patch.x for patch in patches)
    bottom = max(patch.y + patch.height for patch in patches)
    right = max(patch.x + patch.width for patch in patches)
    picture = np.zeros((bottom - top, right - left), np.uint8)
    for patch in patches:
        changed, _, after = patch.unpack()
        y, x = patch.y - top, patch.x - left
        picture[y : y + patch.height, x : x + patch.width][changed] = np.maximum(after + ONE, ONE)
    return (top, left), picture


Block = tuple["Window", "NDArray[np.bool_]", "int | Mask"]
"""A window, where in it something changes, and into what."""


def blocks_in(window: Window) -> Iterator[Window]:
    """Blocks that cover a window, cut along multiples of `SIDE`, in raster order."""
    rows, columns = window
    for top in range(rows.start - rows.start % SIDE, rows.stop, SIDE):
        for left in range(columns.start - columns.start % SIDE, columns.stop, SIDE):
            yield (
                slice(max(top, rows.start), min(top + SIDE, rows.stop)),
                slice(max(left, columns.start), min(left + SIDE, columns.stop)),
            )


def _tiles(window: Window, now: Mask, after: Mask) -> Iterator[Patch]:
    rows, columns = window
    for top in range(rows.start - rows.start % TILE, rows.stop, TILE):
        for left in range(columns.start - columns.start % TILE, columns.stop, TILE):
            y, x = max(top, rows.start), max(left, columns.start)
            inside = (
                slice(y - rows.start, min(top + TILE, rows.stop) - rows.start),
                slice(x - columns.start, min(left + TILE, columns.stop) - columns.start),
            )
            patch = Patch.between(y, x, now[inside], after[inside])
            if patch is not None:
                yield patch


def _whole_blocks(request: ShapingRequest) -> Iterator[Block]:
    change = {
        Shaping.GROW: _grown,
        Shaping.SHRINK: _shrunk,
        Shaping.CONFIRM: _confirmed,
        Shaping.FORGET: _forgotten,
    }[request.shaping]
    for window in blocks_in(request.window):
        yield change(request, window)


def _grown(request: ShapingRequest, window: Window) -> Block:
    """What lies within ``amount`` of tumour and is not tumour."""
    tumour, inner = _tumour_around(request, window)
    near = np.zeros(tumour[inner].shape, bool)
    if tumour.any() and not tumour[inner].all():
        near = _distance(~tumour, request)[inner] <= request.amount
    return window, near & ~tumour[inner] & _free(request, window), TUMOUR


def _shrunk(request: ShapingRequest, window: Window) -> Block:
    """What is tumour within ``amount`` of what is not; beyond tissue the correction goes."""
    tumour, inner = _tumour_around(request, window)
    near = np.zeros(tumour[inner].shape, bool)
    if tumour[inner].any() and not tumour.all():
        near = _distance(tumour, request)[inner] <= request.amount
    after = np.where(request.tissue(window), np.uint8(NORMAL), np.uint8(NO_CORRECTION))
    return window, near & tumour[inner], after


def _confirmed(request: ShapingRequest, window: Window) -> Block:
    computed = request.computed[window]
    return window, (request.hand[window] == 0) & (computed != OUTSIDE), computed


def _forgotten(request: ShapingRequest, window: Window) -> Block:
    return window, request.hand[window] > 0, NO_CORRECTION


def _tumour_around(request: ShapingRequest, window: Window) -> tuple[NDArray[np.bool_], Window]:
    """Tumour in a window and as far around as the amount reaches; and the window in that."""
    reach = [math.ceil(request.amount / size) + 1 for size in request.pixel_size_um]
    rows, columns = (
        slice(max(0, axis.start - far), min(side, axis.stop + far))
        for axis, far, side in zip(window, reach, request.data.shape, strict=True)
    )
    top, left = window[0].start - rows.start, window[1].start - columns.start
    height, width = (axis.stop - axis.start for axis in window)
    return request.data[rows, columns] == TUMOUR, (slice(top, top + height), slice(left, left + width))


def _distance(inside: NDArray[np.bool_], request: ShapingRequest) -> NDArray[np.float64]:
    """Distance in µm from each pixel of ``inside`` to the nearest that is not."""
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(inside, sampling=request.pixel_size_um)
    return distance


def _free(request: ShapingRequest, window: Window) -> NDArray[np.bool_]:
    """Where the mask may become tumour: tissue that is neither ignored nor set by hand."""
    free: NDArray[np.bool_] = (request.hand[window] == 0) & (request.data[window] != IGNORE) & request.tissue(window)
    return free


class _Regions:
    """Small regions of a request: `blocks` says where they are, `count` how many there are."""

    def __init__(self, request: ShapingRequest, count: int, blocks: Iterator[tuple[Window, NDArray[np.bool_]]]) -> None:
        self._request, self.count, self._blocks = request, count, blocks

    def blocks(self) -> Iterator[Block]:
        for window, small in self._blocks:
            if self._request.shaping is Shaping.FILL_HOLES:
                yield window, small & _free(self._request, window), TUMOUR
            else:
                yield window, small, NORMAL


def _small_regions(request: ShapingRequest, control: JobControl) -> _Regions:
    """Holes or islands below the wanted area that lie wholly in the window and hold nothing set by hand."""
    holes = request.shaping is Shaping.FILL_HOLES
    shown = request.data[request.window].copy()  # the two passes must see the same
    top, left = request.window[0].start, request.window[1].start

    def wanted(block: Window) -> NDArray[np.bool_]:
        rows, columns = block
        part = shown[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        tumour: NDArray[np.bool_] = part == TUMOUR
        return ~tumour if holes else tumour

    open_edges = tuple(
        (axis.start > 0 or holes, axis.stop < side or holes)
        for axis, side in zip(request.window, request.data.shape, strict=True)
    )
    count, blocks = find_small(
        wanted,
        list(blocks_in(request.window)),
        lambda block: request.hand[block] > 0,
        largest=request.amount / math.prod(request.pixel_size_um),
        diagonal=not holes,
        open_edges=open_edges,
        control=control,
    )
    return _Regions(request, count, blocks)
