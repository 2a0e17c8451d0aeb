"""Colours of a stained slide: empty glass, optical density, hue, and whether they are those of H&E."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float32]
    Mask = NDArray[np.bool_]

_GLASS_PERCENTILE: Final = 98
_DARKEST_GLASS: Final = 170.0
_DARK_FIELD: Final = 60.0
_WHITE: Final = 120.0
_WINDOW: Final = 5
_FLAT_TOLERANCE: Final = 8
_LEAST_CHROMA: Final = 0.03


def glass_colour(pixels: NDArray[np.uint8], usable: Mask) -> Float:
    """Colour of empty glass (r, g, b): the brightest of each channel, never darker than 170.

    The floor is for pictures that hold no glass: their lightest tissue is not taken for it.
    """
    if not usable.any():
        return np.full(3, 255, np.float32)
    bright = np.percentile(pixels[usable], _GLASS_PERCENTILE, axis=0)
    return np.maximum(bright, _DARKEST_GLASS).astype(np.float32)


def optical_density(pixels: NDArray[np.uint8], glass: Float) -> Float:
    """OD = -log10(I / I0) of each channel: float32 (h, w, 3), 0 for glass, at most 2.4."""
    density: Float = np.log10(glass / np.maximum(pixels.astype(np.float32), 1.0))
    return density


def is_dark_field(pixels: NDArray[np.uint8], usable: Mask) -> bool:
    """Whether the slide is mostly black and nowhere white, as in fluorescence."""
    if not usable.any():
        return False
    seen = pixels[usable]
    mostly_black = float(np.median(seen.max(axis=1))) < _DARK_FIELD
    return mostly_black and float(np.percentile(seen.min(axis=1), 99)) < _WHITE


def unscanned_areas(pixels: NDArray[np.uint8]) -> Mask:
    """Parts that were not scanned but filled: neutral and without any variation, whatever the grey."""
    from scipy import ndimage

    spread = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    constant = spread <= _FLAT_TOLERANCE
    for channel in range(3):
        values = pixels[..., channel]
        constant &= ndimage.maximum_filter(values, _WINDOW) == ndimage.minimum_filter(values, _WINDOW)
    reach = _WINDOW + 2  # back to the edge of the area, and over the px that mix it with what is beside it
    grown: Mask = ndimage.binary_dilation(constant, np.ones((reach, reach), bool))
    return grown


def looks_like_he(density: Float, tissue: Mask) -> bool:
    """Whether tissue absorbs green most, as haematoxylin and eosin together do, and is coloured at all.

    Mean densities (r, g, b) of H&E are near (0.15, 0.3, 0.1); of blue stains red is highest, of brown ones blue.
    """
    if not tissue.any():
        return False
    red, green, blue = (float(value) for value in density[tissue].mean(axis=0))
    coloured = float(chroma(density)[tissue].mean()) > _LEAST_CHROMA
    return coloured and green >= 0.85 * red and green >= 1.05 * blue


def chroma(density: Float) -> Float:
    """How coloured a pixel is: the range of its densities over the channels, 0 for grey."""
    span: Float = density.max(axis=2) - density.min(axis=2)
    return span


def hue_saturation_value(pixels: NDArray[np.uint8]) -> tuple[Float, Float, Float]:
    """Hue in degrees (0 to 360), saturation and value (0 to 1)."""
    from skimage.color import rgb2hsv

    hsv: Float = rgb2hsv(pixels.astype(np.float32) / 255)
    return hsv[..., 0] * 360, hsv[..., 1], hsv[..., 2]
