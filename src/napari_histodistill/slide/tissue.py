"""Where a slide holds tissue, and which parts of it are pen ink or out of focus.

Everything is decided on a coarse grid of about 8 µm per pixel (512 to 2,048 px on the longer side), except focus, which
needs pixels of about 2 µm. Thresholds act on optical densities, OD = -log10(I / I0) per channel with I0 the colour of
empty glass (Ruifrok and Johnston 2001), so that they do not depend on the brightness of the lamp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_histodistill.slide.artefacts import out_of_focus, pen_ink
from napari_histodistill.slide.colours import (
    chroma,
    glass_colour,
    is_dark_field,
    looks_like_he,
    optical_density,
    unscanned_areas,
)
from napari_histodistill.slide.control import Silent
from napari_histodistill.slide.labels import IGNORE, OUTSIDE
from napari_histodistill.slide.metadata import ASSUMED_MPP
from napari_histodistill.slide.shapes import close_gaps, drop_small, fill_small_holes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_histodistill.slide.control import Control
    from napari_histodistill.slide.grid import WorkingGrid
    from napari_histodistill.slide.slide import Slide

    Mask = NDArray[np.bool_]

TISSUE: Final = 1
"""Value of tissue in `Tissue.mask`; `OUTSIDE` (0) is background and `IGNORE` (3) artefact."""

_PIXEL_UM: Final = 8.0
_SIDES: Final = (512, 2048)
_DENSITY_RANGE: Final = (0.03, 0.07)
_OTSU_SHARE: Final = 0.4
_CHROMA: Final = 0.02
_DENSE: Final = 0.25
_LEAST_SHARE: Final = 0.02
_BARE_SHARE: Final = 0.3


NOT_HE: Final = (
    "The slide does not look like H&E (pink and violet tissue on bright glass): "
    "do not trust what a model for H&E says about it."
)
NOTHING_FOUND: Final = (
    "No tissue was found, so the whole slide counts as tissue: lower the tissue threshold or draw it."
)
UNREADABLE: Final = "Nothing of the slide can be read, so it has no tissue: get a complete copy of the file."
BLURRED: Final = "The whole slide looks out of focus: do not trust fine outlines, or scan it again."


@dataclass(frozen=True, slots=True)
class TissueSettings:
    """How tissue and artefacts are found.

    Parameters
    ----------
    threshold_offset
        Added to the optical-density threshold that is found; higher means less tissue. -0.1 to 0.2 makes sense.
    min_area_um2
        Smaller pieces of tissue are left out, in µm²; never pieces of more than 2% of the picture.
    hole_area_um2
        Smaller holes in tissue are filled, in µm².
    close_um
        Gaps up to twice this are closed, in µm.
    pen
        Whether to look for pen ink.
    focus
        Whether to look for areas out of focus.
    focus_sensitivity
        0 (only the most blurred areas) to 1.
    """

    threshold_offset: float = 0.0
    min_area_um2: float = 10_000.0
    hole_area_um2: float = 40_000.0
    close_um: float = 16.0
    pen: bool = True
    focus: bool = True
    focus_sensitivity: float = 0.5


@dataclass(frozen=True)
class Tissue:
    """Tissue and artefacts on a coarse grid that covers the slide edge to edge.

    Parameters
    ----------
    mask
        uint8 (h, w): 0 background, 1 tissue, 3 artefact.
    warnings
        Sentences for the user.
    looks_like_he
        Whether the colours are those of haematoxylin and eosin on bright glass; True where there is no tissue to tell.
    """

    mask: NDArray[np.uint8]
    warnings: tuple[str, ...]
    looks_like_he: bool

    @property
    def fraction(self) -> float:
        """Part of the slide that is tissue without artefacts, 0 to 1."""
        return float((self.mask == TISSUE).mean())

    @property
    def artefact_fraction(self) -> float:
        """Part of the slide that is artefact, 0 to 1."""
        return float((self.mask == IGNORE).mean())

    def on_grid(self, grid: WorkingGrid, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """The mask in a window of a working grid, by the nearest pixel: uint8 (height, width); 0 outside the slide."""
        out = np.full((height, width), OUTSIDE, np.uint8)
        rows, cols = np.arange(y, y + height), np.arange(x, x + width)
        row_ok, col_ok = (rows >= 0) & (rows < grid.shape[0]), (cols >= 0) & (cols < grid.shape[1])
        picked_rows = ((rows[row_ok] + 0.5) * self.mask.shape[0] / grid.shape[0]).astype(np.intp)
        picked_cols = ((cols[col_ok] + 0.5) * self.mask.shape[1] / grid.shape[1]).astype(np.intp)
        out[np.ix_(row_ok, col_ok)] = self.mask[np.ix_(picked_rows, picked_cols)]
        return out


def find_tissue(
    slide: Slide,
    settings: TissueSettings = TissueSettings(),
    control: Control | None = None,
) -> Tissue:
    """Find tissue, pen ink and areas out of focus.

    Parameters
    ----------
    slide
        Its colours should be those of H&E; on others tissue is still found, with a warning.
    settings
        Thresholds and sizes.
    control
        Hears of progress, and can cancel, where a large slide without small levels has to be read whole.

    Returns
    -------
    Tissue. Where nothing is found, the whole slide counts as tissue and a warning says so; what cannot be read never
    does.
    """
    control = control or Silent()
    shape, pixel_um = _working_shape(slide)
    pixels = slide.overview(shape, control)
    readable = slide.readable_mask(shape, 0, 0, *shape)
    scanned = readable & ~unscanned_areas(pixels)
    glass = glass_colour(pixels, scanned)
    if is_dark_field(pixels, readable):
        tissue, he = _bright_on_dark(pixels, readable), False
        ink = np.zeros_like(tissue)
    else:
        pixels = np.where(scanned[..., None], pixels, glass.astype(np.uint8))
        density = optical_density(pixels, glass)
        ink = pen_ink(pixels, pixel_um)
        tissue = _dense_enough(density, scanned, settings.threshold_offset)
        he = _has_he_colours(density, tissue, ink)
    tissue = _clean(tissue, settings, pixel_um) & readable
    warnings = [] if he else [NOT_HE]
    if not tissue.any():
        warnings.append(NOTHING_FOUND if readable.any() else UNREADABLE)
        return Tissue(readable.astype(np.uint8) * TISSUE, tuple(warnings), he)
    mask = tissue.astype(np.uint8) * TISSUE
    if settings.pen and he:
        mask[ink] = IGNORE
    if settings.focus and he:
        blurred, everywhere = out_of_focus(slide, mask == TISSUE, glass, settings.focus_sensitivity, control)
        mask[blurred & tissue] = IGNORE
        warnings += [BLURRED] if everywhere else []
    return Tissue(mask, tuple(warnings), he)


def _has_he_colours(density: NDArray[np.float32], tissue: Mask, ink: Mask) -> bool:
    """Whether tissue outside ink looks like H&E. Where most of it would be ink, it is another stain, not ink."""
    bare = tissue & ~ink
    judged = bare if bare.sum() > _BARE_SHARE * tissue.sum() else tissue
    return not tissue.any() or looks_like_he(density, judged)


def _working_shape(slide: Slide) -> tuple[tuple[int, int], float]:
    """Grid to decide on and the mean size of its pixels in µm."""
    mpp = slide.mpp or (ASSUMED_MPP, ASSUMED_MPP)
    sides = [size * side / _PIXEL_UM for size, side in zip(slide.shape, mpp, strict=True)]
    longest = max(sides)
    shrink = min(max(longest, _SIDES[0]), _SIDES[1]) / longest
    shape = [max(1, min(round(side * shrink), size)) for side, size in zip(sides, slide.shape, strict=True)]
    areas = (slide.shape[0] * mpp[0] * slide.shape[1] * mpp[1]) / (shape[0] * shape[1])
    return (shape[0], shape[1]), float(np.sqrt(areas))


def _dense_enough(density: NDArray[np.float32], scanned: Mask, offset: float) -> Mask:
    """Pixels that absorb green, which both stains do, and that are coloured unless they are dark.

    Grey shadows and dust are thin and have no colour. The threshold follows Otsu's within bounds: a slide all of tissue
    would otherwise be split at its nuclei, an empty one at its noise.
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    if not scanned.any():
        return scanned
    smooth = np.stack([ndimage.gaussian_filter(density[..., channel], 1.0) for channel in range(3)], axis=-1)
    green, coloured = smooth[..., 1], chroma(smooth)
    lowest, highest = _DENSITY_RANGE
    threshold = float(np.clip(_OTSU_SHARE * threshold_otsu(green[scanned]), lowest, highest)) + offset
    is_grey_slide = float(np.percentile(coloured[scanned], 99)) < _CHROMA
    kept = (coloured > _CHROMA) | (smooth.mean(axis=-1) > _DENSE) | is_grey_slide
    mask: Mask = (green > threshold) & kept & scanned
    return mask


def _bright_on_dark(pixels: NDArray[np.uint8], scanned: Mask) -> Mask:
    """Fluorescence: what is brighter than Otsu's threshold."""
    from skimage.filters import threshold_otsu

    brightest = pixels.max(axis=2)
    mask: Mask = (brightest > threshold_otsu(brightest[scanned])) & scanned
    return mask


def _clean(mask: Mask, settings: TissueSettings, pixel_um: float) -> Mask:
    closed = close_gaps(mask, settings.close_um / pixel_um)
    least = min(settings.min_area_um2 / pixel_um**2, _LEAST_SHARE * mask.size)
    solid = drop_small(closed, least)
    return fill_small_holes(solid, settings.hole_area_um2 / pixel_um**2)
