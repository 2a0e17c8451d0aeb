"""Let a person edit an `EditableMask` with napari's own tools: brush, eraser, polygon, fill, undo, redo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from napari.utils.notifications import show_info, show_warning
from PIL import Image, ImageDraw
from skimage.segmentation import flood

from napari_histodistill.viewer.display import show_window
from napari_histodistill.viewer.editing import EditableMask, Window, bounding_window, clip_window, window_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

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
    drive : callable, optional
        Runs `EditableMask.undoing` and its like to their end and draws what they give; by default at once.

    Attributes
    ----------
    lasso : bool
        Whether a stroke of the brush draws an outline that is filled at its end.
    """

    def __init__(
        self,
        layer: Labels,
        mask: EditableMask,
        meanings: Mapping[int, str],
        drive: Callable[[Iterator[Window]], None] | None = None,
    ) -> None:
        self.layer, self.mask, self._meanings = layer, mask, meanings
        self._drive = drive or self._drain
        self.lasso = False
        self._outline: list[Sequence[float]] = []
        self._warned = self._told = False
        self._napari_paint: Callable[..., None] = layer.paint
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
        mask.refused.connect(self._on_refused)

    def _paint(self, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        if not self._knows(new_label):
            return
        circling = self._circling
        if self.lasso and not refresh and not circling:
            self._extend_outline(coord)
            return
        self._napari_paint(coord, new_label, False)
        window, disc = brush_footprint(coord, self.layer.brush_size, self.layer.scale)
        self.mask.record(window, disc, new_label, "lasso" if circling else _tool_of(new_label, "brush"))
        if refresh:  # a script's call; a stroke of the mouse draws once for all its dabs
            self.mask.commit()
            self._show(window)

    @property
    def _circling(self) -> bool:
        """Whether napari's outline of the right mouse button is being drawn (napari 0.9)."""
        return bool(getattr(self.layer._overlays.get("brush_stroke"), "active", False))  # noqa: SLF001

    def _paint_polygon(self, points: Sequence[Sequence[float]], new_label: int) -> None:
        self._paint_area(points, new_label, "lasso" if self._circling else "polygon")

    def _paint_area(self, points: Sequence[Sequence[float]], new_label: int, tool: str) -> None:
        if self._knows(new_label):
            window, inside = polygon_footprint(np.array(points, dtype=int), self.mask.shape)
            self.mask.paint(window, self._unpreserved(window, inside, new_label), new_label, tool)
            self.mask.commit()
            self._show(window)

    def _unpreserved(self, window: Window, inside: NDArray[np.bool_], new_label: int) -> NDArray[np.bool_]:
        """Without what napari's "preserve labels" keeps from being painted over."""
        if not self.layer.preserve_labels:
            return inside
        over = self.layer.selected_label if new_label == 0 else 0
        kept: NDArray[np.bool_] = inside & (self.mask.data[window] == over)
        return kept

    def _extend_outline(self, coord: Sequence[float]) -> None:
        self._outline.append(tuple(float(c) for c in coord))
        self._overlay.points = [[y + 0.5, x + 0.5] for y, x in self._outline]

    @property
    def _overlay(self) -> Any:
        """What napari draws an unfinished polygon with; there is no public name for it."""
        return self.layer._overlays["polygon"]  # noqa: SLF001

    def _close_outline(self) -> None:
        points, self._outline = self._outline, []
        if points:
            self._overlay.points = []
            if len(points) > 2:
                self._paint_area(points, self.layer.selected_label, "lasso")

    def _fill(self, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:  # noqa: ARG002 - napari's
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
        self.mask.paint(window, area, new_label, "fill")
        self.mask.commit()
        self._show(window)

    def _undo(self) -> None:
        self._drive(self.mask.undoing())

    def _redo(self) -> None:
        self._drive(self.mask.redoing())

    def _drain(self, windows: Iterator[Window]) -> None:
        for window in windows:
            self._show(window)

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
            self._close_outline()
            self.mask.commit()

    def _on_paint(self, event: Any) -> None:
        """Take over what a script writes with ``data_setitem``; all else came through the methods above.

        napari emits this before it writes the data where the change is not part of a stroke.
        """
        for atom in event.value:
            if not hasattr(atom, "slice_key"):
                indices, _before, after = atom
                self.mask.data[indices] = after
                self._show(self.mask.sync())

    def _on_refused(self) -> None:
        if not self._told:
            self._told = True
            show_info(
                "Not painted: outside tissue. To paint there, find tissue anew, or choose in the Correct widget to "
                "paint outside tissue all the same."
            )

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


def _tool_of(value: int, tool: str) -> str:
    return "eraser" if value == 0 else tool


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
