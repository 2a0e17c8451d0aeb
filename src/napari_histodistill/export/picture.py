"""A picture for people: the slide with the tumour laid over it, a scale bar and a line of figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study.pyramid import pixels_at_centres

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.predict import Figures
    from napari_histodistill.study import StudySlide

    UInt8 = npt.NDArray[np.uint8]

LONG_SIDE = 2048
FILL = {TUMOUR: ((220, 20, 40), 0.30), IGNORE: ((250, 200, 0), 0.25)}
"""Colour and opacity laid over areas of a mask value."""
OUTLINE = {TUMOUR: (150, 0, 20), IGNORE: (170, 120, 0)}
NAMES = {TUMOUR: "tumour", IGNORE: "ignored"}
PALETTE = {OUTSIDE: (255, 255, 255), TUMOUR: (220, 20, 40), NORMAL: (230, 190, 210), IGNORE: (250, 200, 0)}


def write_overlay(entry: StudySlide, figures: Figures, path: Path) -> None:
    """Write the slide at most `LONG_SIDE` px long with its corrected pseudo-mask, a scale bar and the figures (PNG).

    Raises
    ------
    HistodistillError
        If the slide is no longer there.
    """
    with open_slide(entry.slide_path, mpp=entry.mpp) as slide:
        picture = slide.thumbnail(LONG_SIDE)
        name = slide.name
    shape = (picture.shape[0], picture.shape[1])
    painted = paint(picture, shrunk_mask(entry, shape))
    um_per_px = entry.grid.slide_shape[1] * entry.mpp[1] / shape[1]
    text = (
        f"tumour {figures.tumour_mm2:.2f} of {figures.tissue_mm2:.2f} square mm tissue ({figures.tumour_percent:.1f}%)"
    )
    _with_legend(painted, um_per_px, name, text).save(path, format="PNG")


def write_mask(entry: StudySlide, path: Path) -> None:
    """Write the corrected pseudo-mask on the working grid as a PNG whose pixel values are the labels 0 to 3."""
    whole = np.empty(entry.grid.shape, np.uint8)
    for y, strip in entry.mask_blocks():
        whole[y : y + len(strip)] = strip
    picture = Image.fromarray(whole)
    picture.putpalette([channel for value in sorted(PALETTE) for channel in PALETTE[value]])
    picture.save(path, format="PNG")


def shrunk_mask(entry: StudySlide, shape: tuple[int, int]) -> UInt8:
    """The corrected pseudo-mask on another grid over the slide, by the nearest pixel: uint8 of ``shape``."""
    rows = pixels_at_centres(entry.grid.shape[0], shape[0], 0, shape[0])
    columns = pixels_at_centres(entry.grid.shape[1], shape[1], 0, shape[1])
    out = np.empty(shape, np.uint8)
    for y, strip in entry.mask_blocks():
        here = (rows >= y) & (rows < y + len(strip))
        out[here] = strip[rows[here] - y][:, columns]
    return out


def paint(picture: UInt8, mask: UInt8) -> UInt8:
    """Lay translucent areas with clear outlines over a picture (h, w, 3) of the mask's (h, w) size."""
    out = picture.astype(np.float32)
    width = max(1, round(max(mask.shape) / 700))
    for value, (colour, opacity) in FILL.items():
        area = mask == value
        out[area] += opacity * (np.array(colour, np.float32) - out[area])
        inner = ndimage.binary_erosion(area, iterations=width)
        out[area & ~inner] = OUTLINE[value]
    return np.rint(out).astype(np.uint8)


def _with_legend(picture: UInt8, um_per_px: float, name: str, text: str) -> Image.Image:
    """The picture above a white band with colour keys, figures and a scale bar."""
    height, width = picture.shape[:2]
    size = max(11, min(28, width // 60))
    font = ImageFont.load_default(size)
    line = round(1.6 * size)
    page = Image.new("RGB", (width, height + 2 * line + size), "white")
    page.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(page)
    draw.text((size, height + size // 2), f"{name}: {text}", "black", font)
    x, y = size, height + size // 2 + line
    for value, label in NAMES.items():
        draw.rectangle((x, y, x + size, y + size), fill=FILL[value][0], outline=OUTLINE[value])
        draw.text((x + 1.4 * size, y), label, "black", font)
        x += round(2.6 * size + draw.textlength(label, font))
    length_um, label = scale_bar(um_per_px * width / 4)
    bar = length_um / um_per_px
    right = width - size
    draw.rectangle((right - bar, y + size * 0.8, right, y + size), fill="black")
    draw.text((right - bar - 0.5 * size - draw.textlength(label, font), y), label, "black", font)
    return page


def scale_bar(longest_um: float) -> tuple[float, str]:
    """The longest round length up to ``longest_um``, 1, 2 or 5 times a power of ten, and how to write it.

    In ASCII, because Pillow's own font has no µ.

    Examples
    --------
    >>> scale_bar(2600)
    (2000.0, '2 mm')
    >>> scale_bar(70)
    (50.0, '50 microns')
    """
    power = 10.0 ** math.floor(math.log10(longest_um))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest_um)
    return length, f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} microns"
