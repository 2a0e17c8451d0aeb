"""Pictures: a mask and its probability on a grid of choice, and for people the slide with the tumour laid over it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from scipy import ndimage

from napari_histodistill.errors import printable
from napari_histodistill.export.provenance import KEY
from napari_histodistill.export.source import COLOURS, ROWS, ExportError
from napari_histodistill.export.table import figures_of
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import IGNORE, TUMOUR
from napari_histodistill.study.pyramid import pixels_at_centres

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.export.source import Place, Source

    UInt8 = npt.NDArray[np.uint8]

LONG_SIDE = 2048
"""Of an overlay, in px, unless a size of pixel is chosen."""
MOST_PIXELS: Final = {"mask": 16384**2, "probability": 16384**2, "overlay": 50_000_000}
"""A PNG is made in one piece in memory: one byte for each pixel of a mask, about 20 of an overlay."""
FILL = {TUMOUR: ((220, 20, 40), 0.30), IGNORE: ((250, 200, 0), 0.25)}
"""Colour and opacity laid over areas of a mask value."""
OUTLINE = {TUMOUR: (150, 0, 20), IGNORE: (170, 120, 0)}
LEGEND = {TUMOUR: "tumour", IGNORE: "ignored"}


def write_mask(source: Source, path: Path, mpp: float | None = None) -> None:
    """Write the mask as a PNG whose pixel values are the labels (see `Source`), with a palette.

    Parameters
    ----------
    mpp : float, optional
        Size of a pixel in µm; by default the mask's own. Values are those at the pixels' centres.
    """
    place = _chosen(source, mpp, "mask")
    picture = Image.fromarray(sampled(source.strips(ROWS), source.place, place))
    picture.putpalette([channel for value in range(256) for channel in COLOURS.get(value, (0, 0, 0))])
    _save(picture, path, source, place)


def write_probability(source: Source, path: Path, mpp: float | None = None) -> None:
    """Write the probability, 255 for certain, as a grey PNG; see `write_mask`.

    Raises
    ------
    ExportError
        If the source has none.
    """
    if source.probability is None:
        raise ExportError(f"There is no probability in {source.what!r}: export the pseudo-mask for it.")
    place = _chosen(source, mpp, "probability")
    probability = source.probability
    strips = ((y, np.asarray(probability[y : y + ROWS])) for y in range(0, source.place.shape[0], ROWS))
    _save(Image.fromarray(sampled(strips, source.place, place)), path, source, place)


def write_overlay(source: Source, path: Path, mpp: float | None = None) -> None:
    """Write the slide with the mask laid over it, a scale bar and the figures (PNG), at most `LONG_SIDE` px long.

    Parameters
    ----------
    mpp : float, optional
        Size of a pixel in µm, instead.

    Raises
    ------
    HistodistillError
        If the slide is no longer there.
    """
    if source.slide_path is None:
        raise ExportError("An overlay needs the slide: export the mask alone.")
    longest = max(n * p for n, p in zip(source.place.shape, source.place.pixel_um, strict=True))
    place = _chosen(source, longest / LONG_SIDE if mpp is None else mpp, "overlay")
    with open_slide(source.slide_path(), mpp=source.place.mpp) as slide:
        picture = slide.overview(place.shape)
    painted = paint(picture, sampled(source.strips(ROWS), source.place, place))
    figures = figures_of(source)
    share = f" of {figures.tissue_mm2:.2f} square mm tissue ({figures.tumour_percent:.1f}%)"
    text = f"tumour {figures.tumour_mm2:.2f}{share if source.what != 'corrections' else ' square mm set by hand'}"
    page = _with_legend(painted, place.pixel_um[1], printable(source.provenance.slide), text)
    _save(page, path, source, place)


def _chosen(source: Source, mpp: float | None, kind: str) -> Place:
    """The grid of a picture; `ExportError` if it would be too large."""
    place = source.place if mpp is None else source.place.with_pixels(mpp)
    most = MOST_PIXELS[kind]
    if place.shape[0] * place.shape[1] > most:
        coarser = math.sqrt(math.prod(source.place.shape) * math.prod(source.place.pixel_um) / most)
        raise ExportError(
            f"A PNG of the {kind} would have {place.shape[1]} x {place.shape[0]} px: choose {coarser:.2g} µm per pixel "
            "or more, or OME-TIFF."
        )
    return place


def sampled(strips: Iterable[tuple[int, UInt8]], place: Place, wanted: Place) -> UInt8:
    """Strips on ``place`` as a whole array on ``wanted``, by the pixels under the centres."""
    if wanted.shape == place.shape:
        out = np.empty(place.shape, np.uint8)
        for y, strip in strips:
            out[y : y + len(strip)] = strip
        return out
    rows = pixels_at_centres(place.shape[0], wanted.shape[0], 0, wanted.shape[0])
    columns = pixels_at_centres(place.shape[1], wanted.shape[1], 0, wanted.shape[1])
    out = np.empty(wanted.shape, np.uint8)
    for y, strip in strips:
        here = slice(*np.searchsorted(rows, (y, y + len(strip))))
        out[here] = strip[rows[here] - y][:, columns]
    return out


def _save(picture: Image.Image, path: Path, source: Source, place: Place) -> None:
    """Write a PNG with its resolution and what made it."""
    about = PngImagePlugin.PngInfo()
    about.add_text(KEY, source.noting(pixel_um=place.pixel_um, corner_um=place.corner_um).provenance.to_json())
    picture.save(path, format="PNG", pnginfo=about, dpi=(25400 / place.pixel_um[1], 25400 / place.pixel_um[0]))


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
    for value, label in LEGEND.items():
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
