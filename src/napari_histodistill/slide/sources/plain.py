"""Ordinary pictures (PNG, JPEG, BMP, WebP, JPEG 2000) as slides of one level, held in memory."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from napari_histodistill.errors import reason
from napari_histodistill.slide.errors import DAMAGED, SlideError
from napari_histodistill.slide.metadata import WHITE, SlideMetadata
from napari_histodistill.slide.sources import SourceLevel
from napari_histodistill.slide.sources.pixels import composite, grey_to_rgb, scale_to_8bit, white_level

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FORMATS: Final = ("PNG", "JPEG", "BMP", "WEBP", "JPEG2000")
MAX_PIXELS: Final = 178_956_970
"""Largest picture read in one piece: Pillow's own limit, about half a gigabyte of RGB."""
SCREEN_DPI: Final = 2400
"""Resolutions up to this are what screens, printers and flatbed scanners write: no pixel size of a slide."""

_TILE: Final = 512


class ArraySource:
    """A picture in memory as a source of one level.

    Parameters
    ----------
    pixels
        uint8 (height, width, 3).
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        name: str,
        metadata: SlideMetadata,
        notes: tuple[str, ...] = (),
        icc_profile: bytes | None = None,
    ) -> None:
        self._pixels: NDArray[np.uint8] | None = pixels
        self.format = name
        self.levels = (SourceLevel((pixels.shape[0], pixels.shape[1]), (_TILE, _TILE)),)
        self.metadata = metadata
        self.warnings = notes
        self.icc_profile = icc_profile

    def read_tile(self, level: int, row: int, col: int) -> NDArray[np.uint8]:  # noqa: ARG002 - there is one level
        """Pixels of one tile; see `Source`."""
        pixels = self._pixels
        if pixels is None:
            raise SlideError("The picture was closed: open it again.")
        return pixels[row * _TILE : (row + 1) * _TILE, col * _TILE : (col + 1) * _TILE]

    def associated_images(self) -> tuple[str, ...]:
        """Names of the pictures beside the pyramid."""
        return ()

    def associated_image(self, name: str) -> NDArray[np.uint8]:
        """One of them: uint8 (height, width, 3)."""
        raise KeyError(name)

    def close(self) -> None:
        """Let go of the pixels."""
        self._pixels = None


def open_picture(path: Path) -> ArraySource | None:
    """Read a picture, or None if the file is none of `FORMATS`.

    The pixels stay as they are stored: an EXIF orientation is not applied, so that coordinates agree with other tools.

    Raises
    ------
    SlideError
        The picture is damaged or too large.
    """
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise SlideError(too_large(path.name)) from error
    except DAMAGED as error:
        raise SlideError(f"{path.name} is damaged ({reason(error)}): get a complete copy of it.") from error
    if image.width * image.height > MAX_PIXELS:
        raise SlideError(too_large(path.name))
    with image:
        try:
            image.load()
        except DAMAGED as error:
            raise SlideError(
                f"{path.name} is damaged or truncated ({reason(error)}): get a complete copy of it."
            ) from error
        pixels, notes = _to_rgb(image)
        metadata = SlideMetadata(raw_mpp=_pixel_size(image), vendor=None)
        name = (image.format or "picture").lower()
        return ArraySource(pixels, name, metadata, tuple(notes), image.info.get("icc_profile"))


def too_large(name: str) -> str:
    """The sentence for a picture that would have to be read in one piece but is too large for it."""
    return (
        f"{name} has more than {MAX_PIXELS // 10**6} million pixels and can only be read in one piece: "
        "convert it to a tiled, pyramidal TIFF or OME-Zarr."
    )


def _to_rgb(image: Image.Image) -> tuple[NDArray[np.uint8], list[str]]:
    """Pixels as uint8 (h, w, 3), and a sentence for each conversion."""
    notes = []
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        notes.append("The picture asks to be rotated for display (EXIF); it is shown as stored.")
    if image.mode.startswith(("I", "F")):
        samples = np.asarray(image)
        white = white_level(samples)
        notes.append(f"Grey picture with samples from 0 to {white:g}, converted to 8-bit RGB.")
        return grey_to_rgb(scale_to_8bit(samples, white)), notes
    if image.mode in {"1", "L", "LA", "La"}:
        notes.append("Grey picture, converted to RGB.")
    elif image.mode not in {"RGB", "RGBA"}:
        notes.append(f"Picture with {image.mode} colours, converted to RGB.")
    if image.has_transparency_data:
        return composite(np.asarray(image.convert("RGBA")), WHITE), notes
    return np.asarray(image.convert("RGB")), notes


def _pixel_size(image: Image.Image) -> tuple[float, float] | None:
    """(y, x) in µm from the resolution in the file, unless it is one that screens and printers use."""
    dpi = image.info.get("dpi")
    if not dpi or min(dpi) <= SCREEN_DPI:
        return None
    return 25400.0 / float(dpi[1]), 25400.0 / float(dpi[0])
