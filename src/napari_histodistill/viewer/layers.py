"""What this package puts into a napari viewer: layer data tuples, and how its layers are told from others."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import numpy as np

from napari_histodistill.viewer.colours import (
    audit_colours,
    corrections_colours,
    difference_colours,
    import_colours,
    place_colours,
    prediction_colours,
    preview_colours,
    probability_colours,
    pseudo_mask_colours,
    tissue_colours,
    uncertainty_colours,
)
from napari_histodistill.viewer.geometry import Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_histodistill.slide import Slide

SLIDE_KEY: Final = "histodistill_slide"
"""Key of a layer's metadata under which its `Slide` lies."""
ROLE_KEY: Final = "histodistill_role"

FRAME_PX: Final = 100
"""Sides of the picture of a frame around a place; the line that is drawn is one of them wide."""

TISSUE_VALUES: Final = {0: "background", 1: "tissue", 3: "artefact"}
ADDED, REMOVED = 1, 2
"""Values of a difference: tumour in the prediction (or newer round) only, in the pseudo-mask (or older round) only."""
PSEUDO_MASK_VALUES: Final = {0: "outside tissue", 1: "tumour", 2: "normal tissue", 3: "ignore"}

_made: WeakSet[Layer] = WeakSet()
"""What `add_layer` has made."""


class Role(enum.StrEnum):
    """What a layer over a slide shows."""

    SLIDE = "slide"
    TISSUE = "tissue"
    PROBABILITY = "probability"
    PSEUDO_MASK = "pseudo-mask"
    CORRECTIONS = "corrections"
    PREVIEW = "preview"
    PREDICTION = "prediction"
    DIFFERENCE = "difference"
    COMPARISON = "comparison"
    IMPORT = "import preview"
    UNCERTAINTY = "uncertainty"
    PLACE = "place to look at"
    AUDIT = "audit patch"


def slide_of(layer: Layer) -> Slide | None:
    """The slide that a layer shows or lies over, or None."""
    slide: Slide | None = layer.metadata.get(SLIDE_KEY)
    return slide


def role_of(layer: Layer) -> Role | None:
    """What a layer of this package shows, or None for any other layer."""
    role: Role | None = layer.metadata.get(ROLE_KEY)
    return role


def find_layer(viewer: ViewerModel, slide: Slide, role: Role) -> Layer | None:
    """The layer of a slide with this role, if the viewer has one."""
    return next((layer for layer in viewer.layers if slide_of(layer) is slide and role_of(layer) == role), None)


def forget_role_of_copy(layer: Layer) -> None:
    """Take the role from a layer of an open slide that is not of this package's making.

    napari's duplicates and conversions come with the metadata of the original. What is painted in one is no correction,
    so it must not be found in the place of the original.
    """
    if layer not in _made:
        layer.metadata[ROLE_KEY] = None


def slide_layer(slide: Slide) -> tuple[list[Any], dict[str, Any], str]:
    """Layer data of the slide itself: multiscale RGB, in µm where the pixel size is known."""
    settings = _settings(slide, Frame(slide.shape, slide.mpp), Role.SLIDE, slide.shape, name=slide.path.stem)
    return list(slide.pyramid()), {**settings, "multiscale": True, "rgb": True}, "image"


def tissue_layer(slide: Slide, frame: Frame, mask: NDArray[Any]) -> tuple[Any, dict[str, Any], str]:
    """Layer data of a tissue mask: uint8 (h, w), 0 background, 1 tissue, 3 artefact."""
    settings = _settings(slide, frame, Role.TISSUE, mask.shape)
    return mask, {**settings, "colormap": tissue_colours(), "opacity": 0.3}, "labels"


def pseudo_mask_layer(slide: Slide, frame: Frame, mask: NDArray[Any]) -> tuple[Any, dict[str, Any], str]:
    """Layer data of a pseudo-mask: uint8 (h, w) in memory, values as in `slide.labels`."""
    settings = _settings(slide, frame, Role.PSEUDO_MASK, mask.shape)
    return mask, {**settings, "colormap": pseudo_mask_colours(), "opacity": 0.4}, "labels"


def corrections_layer(slide: Slide, frame: Frame, hand: NDArray[Any]) -> tuple[Any, dict[str, Any], str]:
    """Layer data of corrections, to look at: uint8 (h, w), 0 for none, otherwise the value plus one."""
    settings = _settings(slide, frame, Role.CORRECTIONS, hand.shape)
    names = ["nothing set by hand", *(f"{meaning} set by hand" for meaning in PSEUDO_MASK_VALUES.values())]
    look = {"colormap": corrections_colours(), "opacity": 0.7, "features": {"correction": names}}
    return hand, {**settings, **look}, "labels"


def preview_layer(
    slide: Slide, frame: Frame, preview: NDArray[Any], shape: Sequence[int], corner: tuple[int, int]
) -> tuple[Any, dict[str, Any], str]:
    """Layer data of proposed changes, as in `corrections_layer`: part of a mask of ``shape``, from ``corner`` on."""
    settings = _moved(_settings(slide, frame, Role.PREVIEW, shape), corner)
    return preview, {**settings, "colormap": preview_colours(), "opacity": 0.8}, "labels"


def prediction_layer(slide: Slide, frame: Frame, mask: NDArray[Any]) -> tuple[Any, dict[str, Any], str]:
    """Layer data of a round's prediction: uint8 (h, w) in memory, values as in `slide.labels`."""
    settings = _settings(slide, frame, Role.PREDICTION, mask.shape)
    return mask, {**settings, "colormap": prediction_colours(), "opacity": 0.45}, "labels"


def difference_layer(slide: Slide, frame: Frame, mask: NDArray[Any]) -> tuple[Any, dict[str, Any], str]:
    """Layer data of a difference: uint8 (h, w), 1 tumour in the prediction only, 2 in the pseudo-mask only."""
    settings = _settings(slide, frame, Role.DIFFERENCE, mask.shape)
    return mask, {**settings, "colormap": difference_colours(), "opacity": 0.8}, "labels"


def comparison_layer(slide: Slide, frame: Frame, mask: NDArray[Any]) -> tuple[Any, dict[str, Any], str]:
    """Layer data of a comparison: uint8 (h, w), 1 tumour in the newer round only, 2 in the older only."""
    settings = _settings(slide, frame, Role.COMPARISON, mask.shape)
    return mask, {**settings, "colormap": difference_colours(), "opacity": 0.8}, "labels"


def import_layer(slide: Slide, frame: Frame, mask: NDArray[Any]) -> tuple[Any, dict[str, Any], str]:
    """Layer data of what would come in: uint8 (h, w), 255 where nothing changes."""
    settings = _settings(slide, frame, Role.IMPORT, mask.shape)
    return mask, {**settings, "colormap": import_colours(), "opacity": 0.6}, "labels"


def probability_layer(slide: Slide, frame: Frame, levels: Sequence[Any]) -> tuple[Any, dict[str, Any], str]:
    """Layer data of tumour probabilities: uint8 levels, 255 for certain, finest first."""
    settings = _settings(slide, frame, Role.PROBABILITY, levels[0].shape)
    look = {
        "colormap": probability_colours(),
        "contrast_limits": (0, 255),
        "blending": "translucent",
        "interpolation2d": "nearest",
        "opacity": 0.8,
        "visible": False,  # over or under the mask it would change its colour
        "multiscale": True,
        "rgb": False,
    }
    return list(levels), {**settings, **look}, "image"


def uncertainty_layer(slide: Slide, frame: Frame, uncertainty: NDArray[Any]) -> tuple[Any, dict[str, Any], str]:
    """Layer data of uncertainty: uint8 (h, w), 255 for one bit; hidden until it is asked for."""
    settings = _settings(slide, frame, Role.UNCERTAINTY, uncertainty.shape)
    look = {
        "colormap": uncertainty_colours(),
        "contrast_limits": (0, 255),
        "blending": "translucent",
        "interpolation2d": "linear",
        "opacity": 0.8,
        "visible": False,
        "multiscale": False,
        "rgb": False,
    }
    return uncertainty, {**settings, **look}, "image"


def place_layer(
    slide: Slide, frame: Frame, middle: tuple[float, float], side: float
) -> tuple[Any, dict[str, Any], str]:
    """Layer data of a frame around a place: its middle in world units from the slide's outer corner, and its side."""
    inside = np.zeros((FRAME_PX + 2, FRAME_PX + 2), np.uint8)
    inside[1:-1, 1:-1] = 1
    scale = side / FRAME_PX
    first = (at - side / 2 - scale / 2 - pixel / 2 for at, pixel in zip(middle, frame.pixel, strict=True))
    settings = {
        **_settings(slide, frame, Role.PLACE, inside.shape),
        "scale": (scale, scale),
        "translate": tuple(first),
    }
    return inside, {**settings, "colormap": place_colours(), "opacity": 1.0}, "labels"


def audit_layer(
    slide: Slide, frame: Frame, labels: NDArray[Any], shape: Sequence[int], corner: tuple[int, int]
) -> tuple[Any, dict[str, Any], str]:
    """Layer data of a patch to label, uint8 as in `slide.labels`: part of a mask of ``shape``, from ``corner`` on."""
    settings = _moved(_settings(slide, frame, Role.AUDIT, shape), corner)
    return labels, {**settings, "colormap": audit_colours(), "opacity": 1.0}, "labels"


def _moved(settings: dict[str, Any], corner: tuple[int, int]) -> dict[str, Any]:
    """Settings of an array over a slide as those of a part of it that begins at ``corner``."""
    origin, scale = settings["translate"], settings["scale"]
    return {**settings, "translate": tuple(o + at * s for o, at, s in zip(origin, corner, scale, strict=True))}


def _settings(slide: Slide, frame: Frame, role: Role, shape: Sequence[int], name: str | None = None) -> dict[str, Any]:
    return {
        "name": name or str(role),
        "metadata": {SLIDE_KEY: slide, ROLE_KEY: role},
        **frame.place(shape),
    }


def add_layer(viewer: ViewerModel, layer_data: tuple[Any, dict[str, Any], str], *, below: Layer | None = None) -> Layer:
    """Add a layer, directly below another one if given, without taking over the selection or the view."""
    from napari.layers import Layer as NapariLayer

    data, settings, kind = layer_data
    layers, selected = viewer.layers, set(viewer.layers.selection)
    layer = NapariLayer.create(data, settings, kind)
    _made.add(layer)
    layers._activate_on_insert = not layers  # noqa: SLF001 - to and fro, the controls would be set up twice
    try:
        layers.insert(len(layers) if below is None else layers.index(below), layer)
    finally:
        layers._activate_on_insert = True  # noqa: SLF001
    if selected and set(layers.selection) != selected:
        layers.selection = selected
    return layer
