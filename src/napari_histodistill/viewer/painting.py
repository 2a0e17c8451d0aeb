"""Let a person edit an `EditableMask` with napari's own tools: brush, eraser, polygon, fill, undo, redo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from napari.utils.notifications import show_warning
from PIL import Image, ImageDraw
from skimage.segmentation import flood

from napari_histodistill.viewer.display import show_window
from napari_histodistill.viewer.editing import EditableMask, Window, bounding_window, clip_window, window_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from napari.layers import Labels
    from numpy.typing import NDArray

FILL_SIDE: Final = 2048
"""Largest extent of an area that the fill bucket fills, in mask pixels (4 mm on the usual grid).

napari floods the whole array on the main thread, which takes seconds on a slide.
"""


RIGHT: Final = 2
"""Number of the right mouse button in napari's events."""


class Painting:
    """Connects a Labels layer to the `EditableMask` whose ``data`` it shows.

    napari's tools go on working as they are. Their calls are followed, so that a stroke counts in full (also where it
    confirms what was there), fill is bounded, and undo and redo step through the corrections of the mask.

    Parameters
    ----------
    layer : Labels
        Single-scale layer with ``layer.data is mask.data``.
    mask : EditableMask
    meanings : dict
        What each value means, for the message when another is painted.
    """

    def __init__(self, layer: Labels, mask: EditableMask, meanings: Mapping[int, str]) -> None:
        self.layer, self.mask, self._meanings = layer, mask, meanings
        self._warned = False
        self._napari_paint: Callable[..., None] = layer.paint
        self._napari_polygon: Callable[..., None] = layer.paint_polygon
        overrides: dict[str, Callable[..., None]] = {
            "paint": self._paint,
            "paint_polygon": self._paint_polygon,
            "fill": self._fill,
            "undo": self._undo,
            "redo": self._redo,
        }
        for name, method in overrides.items():
            setattr(layer, name, method)
        layer.mouse_drag_callbacks.append(self._on_drag)
        layer.events.paint.connect(self._on_paint)
        layer.events.set_data.connect(self._on_redrawn)
        layer.events.data.connect(self._on_data_replaced)

    def _paint(self, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        if self._knows(new_label):
            self._napari_paint(coord, new_label, refresh)
            window, disc = brush_footprint(coord, self.layer.brush_size, self.layer.scale)
            self.mask.record(window, disc, new_label)

    def _paint_polygon(self, points: Sequence[Sequence[float]], new_label: int) -> None:
        if self._knows(new_label):
            self._napari_polygon(points, new_label)
            window, inside = polygon_footprint(np.array(points, dtype=int), self.mask.shape)
            self.mask.record(window, inside, new_label)
            self.mask.commit()

    def _fill(self, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        y, x = (round(float(c)) for c in coord)
        height, width = self.mask.shape
        if not (0 <= y < height and 0 <= x < width and self._knows(new_label)):
            return
        window = clip_window(window_of(y - FILL_SIDE // 2, x - FILL_SIDE // 2, FILL_SIDE, FILL_SIDE), self.mask.shape)
        area = flood(self.mask.data[window], (y - window[0].start, x - window[1].start), connectivity=1)
        if not self.layer.contiguous or _reaches_cut(area, window, self.mask.shape):
            side_mm = FILL_SIDE * float(self.layer.scale[-1]) / 1000
            self._warn(
                f"Fill works on closed areas up to {side_mm:.1f} mm across: draw an outline around this one first, "
                "or use the polygon tool."
            )
            return
        rows, columns = np.nonzero(area)
        self.layer.data_setitem((rows + window[0].start, columns + window[1].start), new_label, refresh)
        self.mask.record(window, area, new_label)

    def _undo(self) -> None:
        self._show(self.mask.undo())

    def _redo(self) -> None:
        self._show(self.mask.redo())

    def _show(self, window: Window | None) -> None:
        if window is not None:
            show_window(self.layer, window)

    def _on_drag(self, _layer: Labels, event: Any) -> Generator[None]:
        """Follow a stroke from press to release, which ends it even if no pixel took another value.

        The right button begins an outline, which goes on after its release and ends with `_paint_polygon`.
        """
        self._warned = False
        yield
        while event.type == "mouse_move":
            yield
        if event.button != RIGHT:
            self.mask.commit()

    def _on_paint(self, event: Any) -> None:
        """Take over changes that did not come through `_paint`, such as ``data_setitem`` of a script.

        napari emits this before it writes the data where the change is not part of a stroke.
        """
        for atom in event.value:
            if hasattr(atom, "slice_key"):
                size = [axis.stop - axis.start for axis in atom.slice_key]
                footprint = np.ones(size, bool) if atom.mask is None else atom.mask
                self.mask.record(atom.slice_key, footprint, int(atom.new_value))
            else:
                indices, _before, after = atom
                self.mask.data[indices] = after
                self._show(self.mask.sync())
        self.mask.commit()

    def _on_redrawn(self, _event: Any = None) -> None:
        self.mask.sync()

    def _on_data_replaced(self, _event: Any = None) -> None:
        """Another array was assigned to the layer: take its values over, keep ours in the layer."""
        data = self.layer.data
        if data is self.mask.data:
            return
        if data.shape == self.mask.shape:
            self.mask.data[...] = np.clip(data, 0, 255)
            self.mask.sync()
        else:
            show_warning(f"{self.layer.name} covers the whole slide and cannot take another size: nothing was changed.")
        self.layer.data = self.mask.data

    def _knows(self, value: int) -> bool:
        if self.mask.knows(value):
            return True
        known = ", ".join(f"{number} {meaning}" for number, meaning in self._meanings.items())
        self._warn(f"{self.layer.name} has no value {value}: paint with {known}.")
        return False

    def _warn(self, message: str) -> None:
        """Say it once a stroke."""
        if not self._warned:
            self._warned = True
            show_warning(message)


def brush_footprint(coord: Sequence[float], size: float, scale: Sequence[float]) -> tuple[Window, NDArray[np.bool_]]:
    """Pixels under napari's round brush: window and mask of a disc.

    Parameters
    ----------
    coord : sequence of float
        Centre (y, x) in pixels.
    size : float
        Diameter in pixels of the axis with the smaller scale.
    scale : sequence of float
        World size (y, x) of a pixel; where they differ the disc is round in the world.
    """
    radius = np.floor(size / 2) + 0.5
    stretch = np.abs(np.asarray(scale, dtype=float)[-2:])
    stretch = stretch / stretch.min()
    reach_y, reach_x = (int(r) for r in np.floor(radius / stretch))
    y, x = (round(float(c)) for c in coord)
    rows, columns = np.ogrid[-reach_y : reach_y + 1, -reach_x : reach_x + 1]
    disc = (rows * stretch[0]) ** 2 + (columns * stretch[1]) ** 2 <= radius**2
    return window_of(y - reach_y, x - reach_x, 2 * reach_y + 1, 2 * reach_x + 1), disc


def polygon_footprint(points: NDArray[np.int_], shape: tuple[int, int]) -> tuple[Window, NDArray[np.bool_]]:
    """Pixels in and on a polygon with corners (n, 2) as (y, x), inside an array of ``shape``: window and mask."""
    (top, left), (bottom, right) = points.min(axis=0), points.max(axis=0)
    window = clip_window((slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1)), shape)
    size = (window[1].stop - window[1].start, window[0].stop - window[0].start)
    picture = Image.new("1", size)
    corners = [(int(x) - window[1].start, int(y) - window[0].start) for y, x in points]
    if min(size) > 0:
        ImageDraw.Draw(picture).polygon(corners, outline=1, fill=1)
    return window, np.array(picture, dtype=bool).reshape(size[::-1])


def _reaches_cut(area: NDArray[np.bool_], window: Window, shape: tuple[int, int]) -> bool:
    """Whether a flooded area touches a side of its window that is not a side of the mask."""
    inside = bounding_window(area)
    if inside is None:
        return False
    return any(
        (flooded.start == 0 and cut.start > 0) or (flooded.stop == cut.stop - cut.start and cut.stop < side)
        for flooded, cut, side in zip(inside, window, shape, strict=True)
    )
