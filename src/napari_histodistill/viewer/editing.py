"""A mask that a program computes and a person corrects, with undo; no napari here, only arrays.

Every pixel is computed until a person sets it, and from then on keeps the person's value, whatever is computed
anew. Three arrays hold this: ``data`` is what is shown and painted in, ``computed`` what the program says, ``hand``
what the person said. ``data`` equals ``hand`` where that is set and ``computed`` elsewhere; an edit that came about
behind our back shows as a difference from this and is taken over by `EditableMask.sync`.

Undo is kept here and not taken from napari, whose history stores the values that were *shown* before a stroke: after
a new threshold these are stale, and undoing would paint them in. Every stroke, undo and redo becomes an `Entry`, which
is what a study keeps, so that undo goes on where an earlier session ended.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study.journal import TILE, Entry, Patch
from napari_histodistill.study.pyramid import NO_CORRECTION

Mask: TypeAlias = NDArray[np.uint8]
Window: TypeAlias = tuple[slice, slice]

UNDO_LIMIT: Final = 500
"""Steps that can be undone."""
ONE: Final = np.uint8(1)
"""Between a correction as a study keeps it (255: none) and as ``hand`` has it (0: none)."""
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


class _OpenStep:
    """The stroke that is being made: what the touched squares of ``hand`` held before, and how it came about."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, int], Mask] = {}
        self._patches: list[Patch] = []
        self.tool, self.values = "edit", set[int]()

    def remember(self, hand: Mask, window: Window) -> None:
        """Keep the squares under ``window`` unless this step has them already."""
        for key in _tiles_under(window):
            if key not in self._before:
                self._before[key] = hand[_tile_window(key)].copy()

    def take(self, patch: Patch) -> None:
        """Add what is packed already and about to be written."""
        self._patches.append(patch)

    def seal(self, hand: Mask) -> tuple[Patch, ...]:
        """Pack what has changed since; returns all patches of the step."""
        for (row, column), before in self._before.items():
            now = hand[_tile_window((row, column))]
            patch = Patch.between(row * TILE, column * TILE, before - ONE, now - ONE)
            if patch is not None:
                self._patches.append(patch)
        self._before.clear()
        return tuple(self._patches)


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
    zero_erases : bool
        Whether painting 0 takes corrections away, so that the pixel shows what is computed; otherwise 0 is a value.
    undo, redo : iterable of Entry
        Steps from before, the next one last.

    Attributes
    ----------
    data : uint8 array
        What is shown; give this very array to napari.
    computed, hand : uint8 arrays
        As above. ``hand`` is allocated lazily: it costs memory only where something was set.
    allowed : callable or None
        Gives for a `Window` where a person may set something, as bool (h, w); None for everywhere.
    context : str
        What is on screen, for the record of each stroke.
    edited, computed_changed : Signal
        Emitted with the `Window` in which a person's values, or only computed ones, changed.
    stepped : Signal
        Emitted with the `Entry` of each stroke, undo and redo once it is whole.
    refused : Signal
        Emitted when something was to be set where that is not allowed.
    """

    edited = Signal(object)
    computed_changed = Signal(object)
    stepped = Signal(object)
    refused = Signal()

    def __init__(
        self,
        computed: Mask,
        hand: Mask | None = None,
        values: Collection[int] = (OUTSIDE, TUMOUR, NORMAL, IGNORE),
        *,
        zero_erases: bool = False,
        undo: Iterable[Entry] = (),
        redo: Iterable[Entry] = (),
    ) -> None:
        self.computed = computed
        self.hand = np.zeros(computed.shape, np.uint8) if hand is None else hand
        self.allowed: Callable[[Window], NDArray[np.bool_]] | None = None
        self.context = ""
        self._known = np.isin(np.arange(256), list(values))
        self._zero_erases = zero_erases
        self.data: Mask = np.zeros(computed.shape, np.uint8)
        for rows in self._row_blocks():
            expected = self._expected((rows, slice(0, self.shape[1])))
            if expected.any():  # zeros that are never written take neither time nor memory
                self.data[rows] = expected
        self._open, self._held = _OpenStep(), False
        self.undo_steps, self.redo_steps = list(undo)[-UNDO_LIMIT:], list(redo)

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

    # What comes in

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

    def record(self, window: Window, footprint: NDArray[np.bool_], value: int, tool: str = "brush") -> None:
        """Note that a person set ``value`` on ``footprint``; ``data`` must show it already.

        Pixels of the footprint that do not show the value (napari's "preserve labels") are left alone. Those that
        showed it before count as well: painting over tumour with tumour confirms it. What is not allowed is put back.
        """
        area, inside = self._clip(window, footprint)
        self._set(area, inside & (self.data[area] == value), value, tool)

    def paint(self, window: Window, footprint: NDArray[np.bool_], value: int, tool: str) -> None:
        """Set ``value`` on ``footprint``, whatever ``data`` shows there."""
        area, inside = self._clip(window, footprint)
        self._set(area, inside, value, tool)

    def _clip(self, window: Window, footprint: NDArray[np.bool_]) -> tuple[Window, NDArray[np.bool_]]:
        area = clip_window(window, self.shape)
        top, left = area[0].start - window[0].start, area[1].start - window[1].start
        return area, footprint[window_of(top, left, area[0].stop - area[0].start, area[1].stop - area[1].start)]

    def _set(self, area: Window, chosen: NDArray[np.bool_], value: int, tool: str) -> None:
        erase = value == OUTSIDE and self._zero_erases
        if not erase:
            chosen = self._permitted(area, chosen)
        said = np.uint8(0 if erase else value + 1)
        hand = self.hand[area]
        if (chosen & (hand != said)).any():
            self._open.tool = tool
            self._open.values.add(NO_CORRECTION if erase else value)
            self._set_hand(area, np.where(chosen, said, hand))
        elif erase:  # nothing to take away, but the eraser has left its zeros
            self.data[area] = self._expected(area)

    def _permitted(self, area: Window, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """What of ``chosen`` may be set; the rest is put back and reported."""
        if self.allowed is None:
            return chosen
        permitted = chosen & (self.allowed(area) | (self.hand[area] > 0))
        if not np.array_equal(permitted, chosen):
            refused = chosen & ~permitted
            np.copyto(self.data[area], self._expected(area), where=refused)
            self.refused.emit()
        return permitted

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
        differs = self._permitted(window, data != expected)
        gone = data == self.computed[window]
        if self._zero_erases:
            gone |= data == OUTSIDE
        said = np.where(gone, 0, data + 1).astype(np.uint8)
        self._open.values.update(int(value) for value in np.unique(said[differs] - ONE))
        self._set_hand(window, np.where(differs, said, self.hand[window]))

    # Steps

    def commit(self) -> None:
        """End a stroke: what was set since the last call is undone in one go."""
        if self._held:
            return
        patches, step = self._open.seal(self.hand), self._open
        if patches:
            value = step.values.pop() if len(step.values) == 1 else None
            self._push(Entry(step.tool, patches, value, context=self.context))
        self._open = _OpenStep()

    def _push(self, entry: Entry) -> None:
        self.undo_steps.append(entry)
        del self.undo_steps[:-UNDO_LIMIT]
        self.redo_steps.clear()
        self.stepped.emit(entry)

    def applying(self, patches: Iterable[Patch], tool: str, value: int | None) -> Iterator[Window]:
        """Set what patches say, as one step; each round of the iterator does one and gives its window.

        The iterator must be run to its end. What a person paints meanwhile becomes part of the step.
        """
        self.commit()
        self._held = True
        for patch in patches:
            changed, before, values = patch.unpack()
            window = window_of(patch.y, patch.x, patch.height, patch.width)
            hand = self.hand[window].copy()
            as_proposed = np.array_equal(hand[changed] - ONE, before)
            hand[changed] = values + ONE
            if as_proposed:  # packing it anew would take most of the time
                self._open.take(patch)
                self._write_hand(window, hand)
            else:
                self._set_hand(window, hand)
                self._open.seal(self.hand)
            yield window
        self._open.tool, self._open.values = tool, set() if value is None else {value}
        self._held = False
        self.commit()

    def undoing(self) -> Iterator[Window]:
        """Take the last step back, a window each round; the iterator must be run to its end."""
        self.commit()
        if self.undo_steps and not self._held:
            self.redo_steps.append(self.undo_steps.pop())
            yield from self._travel(self.redo_steps[-1].reversal("undo"))

    def redoing(self) -> Iterator[Window]:
        """Bring back the step undone last, a window each round; the iterator must be run to its end."""
        self.commit()
        if self.redo_steps and not self._held:
            self.undo_steps.append(self.redo_steps.pop())
            yield from self._travel(self.undo_steps[-1].reversal("redo"))

    def _travel(self, entry: Entry) -> Iterator[Window]:
        self._held = True
        for patch in entry.in_order():
            yield self._write_patch(entry, patch)
        self._held = False
        self.stepped.emit(entry)

    def _write_patch(self, entry: Entry, patch: Patch) -> Window:
        changed, values = entry.values(patch)
        window = window_of(patch.y, patch.x, patch.height, patch.width)
        hand = self.hand[window].copy()
        hand[changed] = values + ONE
        self._write_hand(window, hand)
        return window

    def undo(self) -> Window | None:
        """Take the last step back; returns the window to draw anew, or None if there is nothing to undo."""
        return _union_of(self.undoing())

    def redo(self) -> Window | None:
        """Bring back the step undone last; returns the window to draw anew, or None."""
        return _union_of(self.redoing())

    def take_over(self, entries: Sequence[Entry], mine: Sequence[Entry] = ()) -> Window | None:
        """Show what another window or program has set; returns the window to draw anew.

        Parameters
        ----------
        entries : sequence of Entry
            As the journal has them.
        mine : sequence of Entry
            Steps made here that come after them in the journal, and so lie over them.
        """
        window = _union_of(self._write_patch(one, patch) for one in (*entries, *mine) for patch in one.in_order())
        later = {one.identity for one in mine}
        for entry in entries:
            if entry.kind == "set":
                own = (number for number, step in enumerate(self.undo_steps) if step.identity in later)
                self.undo_steps.insert(next(own, len(self.undo_steps)), entry)
                if not mine:
                    self.redo_steps.clear()
            elif entry.kind in {"undo", "redo"}:
                self._follow(entry)
        return window

    def _follow(self, entry: Entry) -> None:
        """Another window has undone or redone one of the steps that can be undone or redone here."""
        both = self.undo_steps, self.redo_steps
        source, target = both if entry.kind == "undo" else both[::-1]
        moved = next((step for step in reversed(source) if step.identity == entry.refers), None)
        if moved is not None:
            source.remove(moved)
            target.append(moved)

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
        return np.where(hand > 0, hand - ONE, self.computed[window])

    def _row_blocks(self) -> Iterator[slice]:
        for start in range(0, self.shape[0], _ROWS):
            yield slice(start, min(start + _ROWS, self.shape[0]))


def _union_of(windows: Iterable[Window]) -> Window | None:
    changed: Window | None = None
    for window in windows:
        changed = window if changed is None else union(changed, window)
    return changed
