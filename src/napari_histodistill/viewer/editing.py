"""A mask that a program computes and a person corrects, with undo; no napari here, only arrays.

Every pixel is computed until a person sets it, and from then on keeps the person's value, whatever is computed
anew. Three arrays hold this: ``data`` is what is shown and painted in, ``computed`` what the program says, ``hand``
what the person said. ``data`` equals ``hand`` where that is set and ``computed`` elsewhere; an edit that came about
behind our back shows as a difference from this and is taken over by `EditableMask.sync`.

Undo is kept here and not taken from napari, whose history stores the values that were *shown* before a stroke: after
a new threshold these are stale, and undoing would paint them in.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Collection, Iterator
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR

Mask: TypeAlias = NDArray[np.uint8]
Window: TypeAlias = tuple[slice, slice]

TILE: Final = 256
"""Side of the squares in which undo remembers, in pixels."""
UNDO_LIMIT: Final = 100
"""Strokes that can be undone, as in napari."""
_ROWS: Final = 1024


def window_of(y: int, x: int, height: int, width: int) -> Window:
    """Window from its top left corner and size, in pixels."""
    return slice(y, y + height), slice(x, x + width)


def clip_window(window: Window, shape: tuple[int, ...]) -> Window:
    """The part of a window that lies inside an array of ``shape``; may be empty."""
    rows, columns = (
        slice(min(max(s.start, 0), n), max(min(s.stop, n), min(max(s.start, 0), n)))
        for s, n in zip(window, shape, strict=True)
    )
    return rows, columns


def union(first: Window, second: Window) -> Window:
    """Smallest window around two windows."""
    rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
    return rows, columns


def bounding_window(mask: NDArray[np.bool_]) -> Window | None:
    """Smallest window that holds all True pixels of a 2D mask, or None if there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


class _Step:
    """What `EditableMask` needs to take one stroke back: the hand-set values of the touched squares before it."""

    def __init__(self) -> None:
        self._tiles: dict[tuple[int, int], tuple[bytes, tuple[int, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._tiles)

    def remember(self, hand: Mask, window: Window) -> None:
        """Keep the squares under ``window`` unless this step has them already."""
        for key in _tiles_under(window):
            if key not in self._tiles:
                self.keep(key, hand[_tile_window(key)])

    def keep(self, key: tuple[int, int], tile: Mask) -> None:
        self._tiles[key] = (zlib.compress(tile.tobytes(), 1), (tile.shape[0], tile.shape[1]))

    def tiles(self) -> Iterator[tuple[tuple[int, int], Mask]]:
        for key, (packed, shape) in self._tiles.items():
            yield key, np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)


def _tiles_under(window: Window) -> Iterator[tuple[int, int]]:
    rows, columns = window
    for row in range(rows.start // TILE, -(-rows.stop // TILE)):
        for column in range(columns.start // TILE, -(-columns.stop // TILE)):
            yield row, column


def _tile_window(key: tuple[int, int]) -> Window:
    return window_of(key[0] * TILE, key[1] * TILE, TILE, TILE)


class EditableMask:
    """A computed mask with a person's corrections laid over it.

    Parameters
    ----------
    computed : uint8 array (height, width)
        What the program says; kept, not copied.
    hand : uint8 array (height, width), optional
        Corrections from before: 0 where nobody set anything, otherwise the value plus one.
    values : collection of int
        Values that a pixel may take; any other that comes in from outside is put back.

    Attributes
    ----------
    data : uint8 array
        What is shown; give this very array to napari.
    computed, hand : uint8 arrays
        As above. ``hand`` is allocated lazily: it costs memory only where something was set.
    edited, computed_changed : Signal
        Emitted with the `Window` in which a person's values, or only computed ones, changed.
    """

    edited = Signal(object)
    computed_changed = Signal(object)

    def __init__(
        self,
        computed: Mask,
        hand: Mask | None = None,
        values: Collection[int] = (OUTSIDE, TUMOUR, NORMAL, IGNORE),
    ) -> None:
        self.computed = computed
        self.hand = np.zeros(computed.shape, np.uint8) if hand is None else hand
        self._known = np.isin(np.arange(256), list(values))
        self.data: Mask = np.zeros(computed.shape, np.uint8)
        for rows in self._row_blocks():
            expected = self._expected((rows, slice(0, self.shape[1])))
            if expected.any():  # zeros that are never written take neither time nor memory
                self.data[rows] = expected
        self._open = _Step()
        self._undo: deque[_Step] = deque(maxlen=UNDO_LIMIT)
        self._redo: deque[_Step] = deque(maxlen=UNDO_LIMIT)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.computed.shape[0], self.computed.shape[1]

    def knows(self, value: int) -> bool:
        """Whether a pixel may take this value."""
        return 0 <= value < self._known.size and bool(self._known[value])

    @property
    def has_edits(self) -> bool:
        """Whether a person set anything."""
        return any(bool(self.hand[rows].any()) for rows in self._row_blocks())

    def set_computed(self, window: Window, block: Mask) -> None:
        """Take a newly computed block; what a person set stays."""
        window = clip_window(window, self.shape)
        self.computed[window] = block
        hand = self.hand[window]
        if hand.any():
            np.copyto(self.data[window], block, where=hand == 0)
        else:
            self.data[window] = block
        self.computed_changed.emit(window)

    def record(self, window: Window, footprint: NDArray[np.bool_], value: int) -> None:
        """Note that a person set ``value`` on ``footprint``; ``data`` must show it already.

        Pixels of the footprint that do not show the value (napari's "preserve labels") are left alone. Those that
        showed it before count as well: painting over tumour with tumour confirms it.
        """
        area = clip_window(window, self.shape)
        offset = window_of(
            area[0].start - window[0].start,
            area[1].start - window[1].start,
            area[0].stop - area[0].start,
            area[1].stop - area[1].start,
        )
        chosen = footprint[offset] & (self.data[area] == value) & (self.hand[area] != value + 1)
        if chosen.any():
            self._set_hand(area, np.where(chosen, np.uint8(value + 1), self.hand[area]))

    def sync(self) -> Window | None:
        """Take over what changed in ``data`` without `record`; returns where, or None.

        A pixel that was put back to what is computed is no longer a correction; a value that the mask does not
        know is replaced by what was there.
        """
        changed: Window | None = None
        for rows in self._row_blocks():
            window = (rows, slice(0, self.shape[1]))
            expected = self._expected(window)
            inside = bounding_window(self.data[window] != expected)
            if inside is None:
                continue
            where = (slice(rows.start + inside[0].start, rows.start + inside[0].stop), inside[1])
            self._adopt(where, expected[inside])
            changed = where if changed is None else union(changed, where)
        self.commit()
        return changed

    def _adopt(self, window: Window, expected: Mask) -> None:
        data = self.data[window]
        np.copyto(data, expected, where=~self._known[data])
        differs = data != expected
        said = np.where(data == self.computed[window], 0, data + 1).astype(np.uint8)
        self._set_hand(window, np.where(differs, said, self.hand[window]))

    def commit(self) -> None:
        """End a stroke: what was recorded since the last call is undone in one go."""
        if self._open:
            self._undo.append(self._open)
            self._redo.clear()
            self._open = _Step()

    def undo(self) -> Window | None:
        """Take the last stroke back; returns the window to draw anew, or None if there is nothing to undo."""
        self.commit()
        return self._travel(self._undo, self._redo)

    def redo(self) -> Window | None:
        """Bring back the stroke undone last; returns the window to draw anew, or None."""
        return self._travel(self._redo, self._undo)

    def clear(self, window: Window | None = None) -> Window:
        """Forget what was set by hand, as one stroke that can be undone; returns the window to draw anew."""
        area = clip_window(window or (slice(0, self.shape[0]), slice(0, self.shape[1])), self.shape)
        for key in _tiles_under(area):
            tile = clip_window(_tile_window(key), self.shape)
            inside = clip_window(tile, (area[0].stop, area[1].stop))
            inside = (
                slice(max(inside[0].start, area[0].start), inside[0].stop),
                slice(max(inside[1].start, area[1].start), inside[1].stop),
            )
            if self.hand[inside].any():
                self._set_hand(inside, np.zeros_like(self.hand[inside]))
        self.commit()
        return area

    def _travel(self, source: deque[_Step], target: deque[_Step]) -> Window | None:
        if not source:
            return None
        back, changed = _Step(), None
        for key, before in source.pop().tiles():
            window = clip_window(_tile_window(key), self.shape)
            back.keep(key, self.hand[window])
            self._write_hand(window, before)
            changed = window if changed is None else union(changed, window)
        target.append(back)
        return changed

    def _set_hand(self, window: Window, hand: Mask) -> None:
        self._open.remember(self.hand, window)
        self._write_hand(window, hand)

    def _write_hand(self, window: Window, hand: Mask) -> None:
        self.hand[window] = hand
        self.data[window] = self._expected(window)
        self.edited.emit(window)

    def _expected(self, window: Window) -> Mask:
        hand = self.hand[window]
        if not hand.any():
            return self.computed[window].copy()
        return np.where(hand > 0, hand - np.uint8(1), self.computed[window])

    def _row_blocks(self) -> Iterator[slice]:
        for start in range(0, self.shape[0], _ROWS):
            yield slice(start, min(start + _ROWS, self.shape[0]))

    def edited_pixels(self) -> int:
        """Number of pixels that a person set."""
        return sum(int(np.count_nonzero(self.hand[rows])) for rows in self._row_blocks())
