"""What is where in a TIFF file: the pages that form the pyramid, and the metadata of files OpenSlide does not know."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tifffile

from napari_histodistill.slide.errors import SlideError
from napari_histodistill.slide.metadata import SlideMetadata, micrometres

if TYPE_CHECKING:
    from collections.abc import Mapping

_REDUCED: Final = 1
_ICC_TAG: Final = 34675
_SEPARATE: Final = 2
_UNITS: Final = {2: "inch", 3: "cm"}

LevelPages = tuple[tuple[Any, int], ...]
"""The planes of one level: (page, number of the colour plane within that page), one of them or three."""


def find_levels(tif: tifffile.TiffFile, vendor: str | None) -> tuple[list[LevelPages], list[str]]:
    """Pages of each level, finest first, and sentences about what is left out.

    OME-TIFF: the series with the largest plane, its SubIFDs as levels, the first time and depth. Aperio: every tiled
    page. Others: the first page and, where it is tiled, all tiled pages marked as reduced. The rules for the last two
    are OpenSlide's.
    """
    if tif.is_ome and tif.series:
        return _ome_levels(tif)
    pages = [tif.pages[index] for index in range(len(tif.pages))]
    first = pages[0]
    if vendor == "aperio":
        return [_planes(page) for page in pages if page.is_tiled], []
    reduced = [page for page in pages[1:] if first.is_tiled and page.is_tiled and page.subfiletype & _REDUCED]
    others = [page for page in pages[1:] if not page.subfiletype & _REDUCED and page.shape == first.shape]
    notes = [f"The file holds {len(others) + 1} images; the first one is shown."] if others else []
    levels = sorted([first, *reduced], key=lambda page: -page.imagewidth)
    return [_planes(page) for page in levels], notes


def _planes(page: Any) -> LevelPages:
    separate = page.planarconfig == _SEPARATE and page.samplesperpixel >= 3
    return tuple((page, plane) for plane in range(3 if separate else 1))


def _ome_levels(tif: tifffile.TiffFile) -> tuple[list[LevelPages], list[str]]:
    series = max(tif.series, key=lambda one: one.keyframe.imagelength * one.keyframe.imagewidth)
    levels, left_out = [], set()
    for level in series.levels:
        stacked = level.axes[: -level.keyframe.ndim] if level.keyframe.ndim < len(level.axes) else ""
        numbers = np.arange(len(level.pages)).reshape(level.shape[: len(stacked)])
        channels = 1
        for axis, size in zip(stacked, numbers.shape, strict=True):
            if axis == "C" and size >= 3:
                channels = 3
            elif size > 1:
                left_out.add(axis)
        picked = numbers[tuple(slice(channels) if axis == "C" else 0 for axis in stacked)].ravel()
        pages = [level.pages[int(number)] for number in picked[:channels]]
        if any(page is None or page.parent.filehandle.path != tif.filehandle.path for page in pages):
            raise SlideError(f"{tif.filename} keeps its planes in several files: convert it to one OME-TIFF.")
        levels.append(_planes(pages[0]) if channels == 1 else tuple((page, 0) for page in pages))
    names = {"C": "channel", "Z": "depth", "T": "time"}
    notes = [f"Only the first {names.get(axis, axis)} of the image is shown." for axis in sorted(left_out)]
    return levels, notes


def read_metadata(tif: tifffile.TiffFile, known: SlideMetadata | None) -> SlideMetadata:
    """Metadata of a TIFF: what OpenSlide `known` of it, with the pixel size of OME-XML or ImageJ before its own."""
    base = known or SlideMetadata(raw_mpp=_resolution(tif.pages[0]), vendor=None)
    if tif.is_ome and tif.series:
        image = _ome_image(tif)
        pixels = image.get("Pixels", {})
        sizes = [_physical_size(pixels, axis) for axis in "YX"]
        if sizes[0] and sizes[1]:
            return replace(base, raw_mpp=(sizes[0], sizes[1]))
    imagej = tif.imagej_metadata if tif.is_imagej else None
    unit = micrometres(str(imagej.get("unit", ""))) if imagej else None
    if unit:
        resolution = tif.pages[0].resolution
        return replace(base, raw_mpp=(unit / resolution[1], unit / resolution[0]) if min(resolution) > 0 else None)
    return base


def icc_profile(page: Any) -> bytes | None:
    """The ICC profile in the tags of a page."""
    tag = page.tags.get(_ICC_TAG)
    return None if tag is None else bytes(tag.value)


def _ome_image(tif: tifffile.TiffFile) -> Mapping[str, Any]:
    """The OME-XML element of the image with the largest plane."""
    document = tifffile.xml2dict(tif.ome_metadata or "").get("OME", {})
    images = document.get("Image", {})
    images = images if isinstance(images, list) else [images]

    def area(image: Mapping[str, Any]) -> float:
        return math.prod(float(image.get("Pixels", {}).get(f"Size{axis}", 0)) for axis in "XY")

    return max(images, key=area)


def _physical_size(pixels: Mapping[str, Any], axis: str) -> float | None:
    size = pixels.get(f"PhysicalSize{axis}")
    unit = micrometres(str(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
    return float(size) * unit if size and unit else None


def _resolution(page: Any) -> tuple[float, float] | None:
    """(y, x) in µm from the resolution tags, or None without a unit of length."""
    unit = micrometres(_UNITS.get(int(page.resolutionunit or 0), ""))
    x, y = page.resolution
    return (unit / y, unit / x) if unit and x > 0 and y > 0 else None
