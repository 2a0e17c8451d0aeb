"""Opening a file as a slide: which source reads it, or the sentence that says why none does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import openslide

from napari_histodistill.logs import hide
from napari_histodistill.slide.errors import SlideError
from napari_histodistill.slide.metadata import LARGEST_SIDE
from napari_histodistill.slide.slide import Slide
from napari_histodistill.slide.sources.ome_zarr import OmeZarrSource, is_zarr
from napari_histodistill.slide.sources.openslide_source import OpenSlideSource
from napari_histodistill.slide.sources.plain import open_picture
from napari_histodistill.slide.sources.tiff import FAST_VENDORS, TiffSource
from napari_histodistill.urls import UrlPath, to_path

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.slide.sources import Source

SourceName = Literal["auto", "fast", "openslide"]

_TIFF_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_slide(
    path: str | Path,
    *,
    mpp: float | tuple[float, float] | None = None,
    source: SourceName = "auto",
    icc: bool = False,
) -> Slide:
    """Open a whole-slide image or an ordinary picture without reading its pixels.

    Parameters
    ----------
    path
        Any file OpenSlide reads, an OME-Zarr image folder, TIFF, PNG, JPEG, BMP, WebP or JPEG 2000 (pictures other
        than TIFF are read into memory); or the URL of an OME-Zarr (``s3://``, ``https://``).
    mpp
        Pixel size of level 0 in µm, one number or (y, x), instead of what the file says.
    source
        "auto" decodes the tiles of TIFF files directly where that is known to equal OpenSlide; "fast" insists on it,
        "openslide" uses OpenSlide only.
    icc
        Convert colours from the embedded ICC profile to sRGB.

    Raises
    ------
    SlideError
        The file cannot be opened; one sentence says why and what to do.
    MppError
        `mpp` is no pixel size of a slide.
    """
    path = to_path(path)
    hide(str(path))
    opened = _open_source(path, source)
    sides = [side for level in opened.levels for side in (*level.shape, *level.tile)]
    if not sides or min(sides) < 1 or max(sides) > LARGEST_SIDE:
        raise SlideError(f"{path.name} has levels of sizes that no slide has: get a complete copy of it.")
    return Slide(path, opened, mpp, icc=icc)


def _open_source(path: Path, source: SourceName) -> Source:
    if isinstance(path, UrlPath):
        return OmeZarrSource(path)
    if not path.exists():
        raise SlideError(f"{path} does not exist: check the name.")
    if path.is_dir():
        return _open_folder(path, source)
    head = _read_head(path)
    if source == "openslide":
        return OpenSlideSource(path)
    if head.startswith(_TIFF_MAGIC):
        return _open_tiff(path, must_be_fast=source == "fast")
    if source == "fast":
        raise SlideError(f"{path.name} is no TIFF, and only those have a fast path: open it with source 'auto'.")
    if openslide.OpenSlide.detect_format(path) is not None:
        return OpenSlideSource(path)
    picture = open_picture(path)
    if picture is not None:
        return picture
    raise SlideError(_refusal(path, head))


def _open_folder(path: Path, source: SourceName) -> Source:
    if not is_zarr(path):
        raise SlideError(f"{path.name} is a folder, not a slide: choose a slide file in it, or an OME-Zarr image.")
    if source != "auto":
        raise SlideError(f"{path.name} is an OME-Zarr, which is read without OpenSlide: open it with source 'auto'.")
    return OmeZarrSource(path)


def _open_tiff(path: Path, *, must_be_fast: bool) -> Source:
    """The fast path where it is allowed and agrees with OpenSlide, else OpenSlide."""
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor not in FAST_VENDORS:
        if must_be_fast:
            raise SlideError(f"{path.name} is a {vendor} slide, which has no fast path: open it with source 'auto'.")
        return OpenSlideSource(path)
    reference = _openslide_or_none(path) if vendor else None
    try:
        return TiffSource(path, reference)
    except SlideError:
        if reference is None or must_be_fast:
            raise
        return reference


def _openslide_or_none(path: Path) -> OpenSlideSource | None:
    try:
        return OpenSlideSource(path)
    except SlideError:
        return None  # the TIFF source then reads the file, or says why it cannot be read


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except PermissionError as error:
        raise SlideError(f"{path.name} may not be read by this user: change its permissions.") from error
    except OSError as error:
        raise SlideError(f"{path.name} cannot be read ({error.strerror}): check the disk or the network.") from error
    if not head:
        raise SlideError(f"{path.name} is empty: get a complete copy of it.")
    return head


def _refusal(path: Path, head: bytes) -> str:
    if head[128:132] == b"DICM" or path.suffix.lower() in {".dcm", ".dicom"}:
        return f"{path.name} is a DICOM file but not a whole-slide image: choose one of a slide microscopy series."
    return (
        f"{path.name} is not a slide or picture in a known format: choose a file that OpenSlide reads, OME-Zarr, "
        "TIFF, PNG or JPEG."
    )
