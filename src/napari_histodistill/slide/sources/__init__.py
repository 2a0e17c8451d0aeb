"""Where pixels come from: one small interface over tiled TIFF, OpenSlide, OME-Zarr and plain images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_histodistill.slide.metadata import SlideMetadata

Rgb = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
"""uint8 pixels (height, width, 3)."""


@dataclass(frozen=True, slots=True)
class SourceLevel:
    """One stored level: its shape and the shape of its tiles, both (height, width) in px of the level."""

    shape: tuple[int, int]
    tile: tuple[int, int]


class Source(Protocol):
    """Stored levels of a file, tile by tile, safe to read from many threads."""

    @property
    def format(self) -> str:
        """Short name of the format, such as "aperio" or "ome-zarr"."""

    @property
    def levels(self) -> tuple[SourceLevel, ...]:
        """Stored levels, finest first."""

    @property
    def metadata(self) -> SlideMetadata:
        """What the file says."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user, such as conversions that were made."""

    @property
    def icc_profile(self) -> bytes | None:
        """The embedded ICC profile."""

    def read_tile(self, level: int, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of one tile, cropped to the level: uint8 (<= tile height, <= tile width, 3).

        Raises
        ------
        RegionError
            The tile cannot be read.
        """

    def associated_images(self) -> tuple[str, ...]:
        """Names of the pictures beside the pyramid (label, macro, thumbnail), without reading them."""

    def associated_image(self, name: str) -> NDArray[np.uint8]:
        """One of them as uint8 (height, width, 3). Raises KeyError for an unknown name."""

    def close(self) -> None:
        """Give the file back. Reading afterwards is an error."""
