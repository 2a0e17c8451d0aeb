"""Pixels through OpenSlide: every format it reads, and the reference that the fast path equals."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import numpy as np
import openslide

from napari_histodistill.slide.errors import RegionError, SlideError
from napari_histodistill.slide.metadata import WHITE, SlideMetadata
from napari_histodistill.slide.sources import SourceLevel
from napari_histodistill.slide.sources.pixels import composite

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

_TILE: Final = 256
_SEARCH: Final = 128


class OpenSlideSource:
    """Stored levels through one OpenSlide handle, shared by all threads.

    OpenSlide latches errors: after a region failed, its handle refuses everything. The source then opens the file
    again, so that one bad region costs one region.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        handle = open_handle(path)
        self._handle: openslide.OpenSlide | None = handle
        properties = dict(handle.properties)
        self._downsamples = handle.level_downsamples
        self.levels = tuple(
            SourceLevel((height, width), _tile_shape(properties, index))
            for index, (width, height) in enumerate(handle.level_dimensions)
        )
        self.metadata = read_metadata(properties)
        self.format = self.metadata.vendor or "openslide"
        self.warnings: tuple[str, ...] = ()
        self.icc_profile = _icc_profile(handle)
        self._associated = tuple(handle.associated_images)

    def read_tile(self, level: int, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of one tile; see `Source`."""
        info = self.levels[level]
        y, x = row * info.tile[0], col * info.tile[1]
        height, width = min(info.tile[0], info.shape[0] - y), min(info.tile[1], info.shape[1] - x)
        y0, top = _exact_start(y, self._downsamples[level])
        x0, left = _exact_start(x, self._downsamples[level])
        image = self._read_region((x0, y0), level, (left + width, top + height))
        return _flattened(image, self.metadata.background)[top:, left:]

    def _read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        handle = self._open_handle()
        try:
            image: Image.Image = handle.read_region(location, level, size)
            return image
        except openslide.OpenSlideError:
            return self._read_again(location, level, size)

    def _read_again(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """Read with a fresh handle: the failure may have been another thread's, latched in the shared one."""
        with self._lock:
            try:
                # The old handle is not closed here: other threads may be reading with it. It closes with its last user.
                self._handle = openslide.OpenSlide(self._path)
                with openslide.OpenSlide(self._path) as private:
                    image: Image.Image = private.read_region(location, level, size)
                    return image
            except openslide.OpenSlideError as error:
                raise RegionError(str(error)) from error

    def associated_images(self) -> tuple[str, ...]:
        """Names of the pictures beside the pyramid."""
        return self._associated

    def associated_image(self, name: str) -> NDArray[np.uint8]:
        """One of them: uint8 (height, width, 3)."""
        try:
            return _flattened(self._open_handle().associated_images[name], self.metadata.background)
        except openslide.OpenSlideError as error:
            with self._lock:
                self._handle = openslide.OpenSlide(self._path)
            raise RegionError(str(error)) from error

    def _open_handle(self) -> openslide.OpenSlide:
        handle = self._handle
        if handle is None:
            raise SlideError(f"{self._path.name} was closed: open it again.")
        return handle

    def close(self) -> None:
        """Let go of the handle; it closes when the reads that are under way have ended."""
        self._handle = None


def open_handle(path: Path) -> openslide.OpenSlide:
    """OpenSlide handle of a file. Raises SlideError with OpenSlide's reason."""
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise SlideError(f"{path.name} is not a slide that OpenSlide can read: choose another file.") from error
    except openslide.OpenSlideError as error:
        raise SlideError(
            f"{path.name} cannot be opened ({error}): convert it to a pyramidal TIFF with JPEG compression."
        ) from error


def read_metadata(properties: Mapping[str, str]) -> SlideMetadata:
    """Metadata from OpenSlide's property names (openslide.org/properties)."""
    mpp = (_number(properties, "openslide.mpp-y"), _number(properties, "openslide.mpp-x"))
    bounds = [_number(properties, f"openslide.bounds-{name}") for name in ("y", "x", "height", "width")]
    y, x, height, width = bounds
    colour = properties.get("openslide.background-color", "")
    return SlideMetadata(
        raw_mpp=None if mpp[0] is None or mpp[1] is None else (mpp[0], mpp[1]),
        objective_power=_number(properties, "openslide.objective-power"),
        vendor=properties.get("openslide.vendor"),
        bounds=None
        if y is None or x is None or height is None or width is None
        else (int(y), int(x), int(height), int(width)),
        background=(int(colour[0:2], 16), int(colour[2:4], 16), int(colour[4:6], 16)) if len(colour) == 6 else WHITE,
        properties=dict(properties),
    )


def _flattened(image: Image.Image, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An RGBA picture over a colour: uint8 (height, width, 3)."""
    if image.getchannel("A").getextrema() == (255, 255):
        return np.asarray(image.convert("RGB"))
    return composite(np.asarray(image), background)


def _exact_start(position: int, downsample: float) -> tuple[int, int]:
    """Level-0 start of a read that covers `position` (level px) exactly, and how many level px to drop from it.

    OpenSlide takes positions in whole level-0 px. Where the downsample is no integer, few positions of the level fall
    on one, and from the others OpenSlide interpolates between pixels. So the read starts at the best position within
    `_SEARCH` px before the wanted one.
    """
    starts = np.arange(position, max(-1, position - _SEARCH - 1), -1)
    exact = starts * downsample
    best = int(np.argmin(np.round(np.abs(exact - np.rint(exact)), 9)))
    return round(float(exact[best])), best


def _tile_shape(properties: Mapping[str, str], level: int) -> tuple[int, int]:
    """The file's own tile where it has a useful size, else 256 px (strips, MIRAX)."""
    sides = [_number(properties, f"openslide.level[{level}].tile-{name}") for name in ("height", "width")]
    height, width = (int(side) if side and 128 <= side <= 1024 else _TILE for side in sides)
    return height, width


def _number(properties: Mapping[str, str], key: str) -> float | None:
    try:
        return float(properties[key])
    except (KeyError, ValueError):
        return None


def _icc_profile(handle: openslide.OpenSlide) -> bytes | None:
    profile = handle.color_profile
    return None if profile is None else profile.tobytes()
