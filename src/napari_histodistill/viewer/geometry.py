"""Where arrays over a slide lie in napari's world: they share their outer edges, in µm or in level-0 pixels.

napari puts the centre of pixel 0 at a layer's ``translate``. A slide's own layer has ``translate = 0``, so its outer
edge lies at minus half a level-0 pixel; every other layer over the slide is moved by half the difference of the pixels.
The lower levels of a multiscale layer need nothing: napari draws each over the same outer edges (0.9.2, tested).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.viewer.editing import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer


@dataclass(frozen=True)
class Frame:
    """A slide's place in the world.

    Parameters
    ----------
    shape : tuple of int
        Level-0 (height, width).
    mpp : tuple of float or None
        Size of a level-0 pixel as (y, x) in µm; None while nobody knows it, the world is then in level-0 pixels.
    """

    shape: tuple[int, int]
    mpp: tuple[float, float] | None

    @property
    def pixel(self) -> tuple[float, float]:
        """Size of a level-0 pixel in world units."""
        return self.mpp or (1.0, 1.0)

    def place(self, shape: Sequence[int]) -> dict[str, Any]:
        """Layer settings ``scale``, ``translate`` and ``units`` of an array of ``shape`` that covers the slide."""
        scale = tuple(self.shape[i] * self.pixel[i] / shape[i] for i in (0, 1))
        translate = tuple((scale[i] - self.pixel[i]) / 2 for i in (0, 1))
        unit = "pixel" if self.mpp is None else "um"
        return {"scale": scale, "translate": translate, "units": (unit, unit)}

    def move(self, layer: Layer, before: Frame) -> None:
        """Put a layer of the slide, or of part of it, where it lies now that the pixel size is another than before."""
        ratio = [now / then for now, then in zip(self.pixel, before.pixel, strict=True)]
        scale, translate = (np.multiply(values, ratio) for values in (layer.scale, layer.translate))
        layer.units = self.place(self.shape)["units"]
        layer.scale, layer.translate = scale, translate


def visible_window(layer: Layer) -> Window:
    """The part of a single-scale 2D layer that the canvas showed when it was last drawn, in the layer's pixels."""
    (top, left), (bottom, right) = layer.corner_pixels[:, -2:]
    return slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1)


def view_centre(viewer: ViewerModel) -> tuple[float, float]:
    """World position (y, x) of the middle of the canvas."""
    y, x = camera_of(viewer).center[-2:]
    return float(y), float(x)


def camera_of(viewer: ViewerModel) -> Any:
    """The camera, which moved from the viewer to its scene in napari 0.9."""
    return getattr(viewer, "scene", viewer).camera


def scale_bar_of(viewer: ViewerModel) -> Any:
    """The scale bar, which moved from the viewer to its canvas in napari 0.9."""
    canvas = getattr(viewer, "canvas", None)
    return viewer.scale_bar if canvas is None else canvas.overlays.scale_bar


def _canvas_size(viewer: ViewerModel) -> tuple[int, int]:
    """Height and width of the canvas in px."""
    canvas = getattr(viewer, "canvas", None)  # napari 0.9
    height, width = viewer._canvas_size if canvas is None else canvas.size  # noqa: SLF001 - there is no public name before
    return int(height), int(width)


def fly_to(viewer: ViewerModel, middle: tuple[float, float], side: float, share: float) -> None:
    """Show a place: its middle (y, x) in world units, with a length ``side`` over ``share`` of the canvas."""
    camera = camera_of(viewer)
    camera.center = middle
    camera.zoom = share * min(_canvas_size(viewer)) / side


def fit_to(viewer: ViewerModel, frame: Frame, share: float = 0.95) -> None:
    """Show a whole slide, however large others are that lie hidden beneath it: napari's own fits all layers."""
    camera = camera_of(viewer)
    sides = [n * pixel for n, pixel in zip(frame.shape, frame.pixel, strict=True)]
    camera.center = tuple((side - pixel) / 2 for side, pixel in zip(sides, frame.pixel, strict=True))
    camera.zoom = share * min(room / side for room, side in zip(_canvas_size(viewer), sides, strict=True))


def plain_brush(viewer: ViewerModel) -> None:
    """Let the brush's circle have no background.

    napari 0.9.2 gives every overlay of the canvas a box to stand on. Under the circle it is a black square of 8 px
    where the mouse was last, drawn from the first change of canvas or theme on that happens with a brush in hand.
    """
    overlays = getattr(getattr(viewer, "canvas", None), "overlays", None)
    circle: Any = getattr(overlays, "_brush_circle", None)
    if hasattr(circle, "box"):
        circle.box = False
