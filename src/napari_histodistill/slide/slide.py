"""A slide: a lazy pyramid with checked metadata, read by windows from any thread."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_histodistill.slide.added_levels import TILE, AddedLevels
from napari_histodistill.slide.errors import MppError, RegionError, SlideError
from napari_histodistill.slide.fingerprint import fingerprint, fingerprint_of_pixels
from napari_histodistill.slide.icc import to_srgb
from napari_histodistill.slide.levels import Level, plan_levels
from napari_histodistill.slide.metadata import MPP_RANGE, checked_mpp, is_plausible
from napari_histodistill.slide.reader import Failure, TileReader, assemble, filled
from napari_histodistill.slide.resample import read_window
from napari_histodistill.slide.sources import SourceLevel
from napari_histodistill.urls import UrlPath

if TYPE_CHECKING:
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray

    from napari_histodistill.slide.control import Control
    from napari_histodistill.slide.metadata import SlideMetadata
    from napari_histodistill.slide.sources import Source

_DIRECT_PIXELS = 2**25
"""An overview is computed without added levels where it takes reading at most this many pixels."""


class Slide:
    """One whole-slide image. Made by `open_slide`; a context manager; every method may be called from any thread.

    Sizes and positions are (y, x). Windows may reach beyond a level: there they hold the background colour.

    Parameters
    ----------
    path
        The file or folder.
    source
        Where its pixels come from.
    mpp
        Pixel size in µm that overrides the file's, one number or (y, x).
    icc
        Whether to convert pixels from the embedded ICC profile to sRGB.
    """

    def __init__(
        self, path: Path, source: Source, mpp: float | tuple[float, float] | None = None, *, icc: bool = False
    ) -> None:
        self.path = path
        self.name = path.name
        self.format = source.format
        self.metadata: SlideMetadata = source.metadata
        self.levels: tuple[Level, ...] = plan_levels([level.shape for level in source.levels])
        self.shape: tuple[int, int] = self.levels[0].shape
        self.warnings: list[str] = list(source.warnings)
        self.mpp = self._settle_mpp(mpp)
        self._source = source
        self._stored = {level: index for index, level in enumerate(_numbers(self.levels, stored=True))}
        convert = self._icc_transform() if icc else None
        self._converted = convert is not None
        self._reader = TileReader(source, convert)

    def _settle_mpp(self, override: float | tuple[float, float] | None) -> tuple[float, float] | None:
        if override is None:
            mpp, warning = checked_mpp(self.metadata.raw_mpp)
            if warning:
                self.warnings.append(warning)
            return mpp
        mpp = override if isinstance(override, tuple) else (override, override)
        if not is_plausible(mpp):
            low, high = MPP_RANGE
            raise MppError(f"A pixel size of {override} µm is not that of a slide: give one from {low} to {high:g}.")
        return mpp

    def _icc_transform(self) -> Any:
        if self._source.icc_profile is None:
            self.warnings.append("The file holds no ICC profile: its colours are shown as they are.")
            return None
        return to_srgb(self._source.icc_profile)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Slide {self.name!r} {self.format} {self.shape[1]} x {self.shape[0]} px, {len(self.levels)} levels>"

    def close(self) -> None:
        """Give back the file and the memory. Reads that are under way finish; later ones raise SlideError."""
        self._reader.close()

    @property
    def has_icc_profile(self) -> bool:
        """Whether the file says what its colours mean, so that opening it with ``icc`` has an effect."""
        return self._source.icc_profile is not None

    @cached_property
    def fingerprint(self) -> str:
        """Name of the slide's content: 32 hexadecimal digits that a copy shares (at a URL: others)."""
        return fingerprint_of_pixels(self._source) if isinstance(self.path, UrlPath) else fingerprint(self.path)

    def require_mpp(self) -> tuple[float, float]:
        """Pixel size of level 0 as (y, x) in µm. Raises MppError where it is unknown."""
        if self.mpp is None:
            raw = self.metadata.raw_mpp
            fault = "unknown" if raw is None else f"given as {raw[1]:.5g} x {raw[0]:.5g} µm, which no slide has"
            raise MppError(f"The pixel size of {self.name} is {fault}: give it in µm per pixel (--mpp).")
        return self.mpp

    # Reading

    def read_level(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window of one level.

        Parameters
        ----------
        level
            Index into `levels`. An added level that was not computed yet is read from the next coarser stored one.
        y, x, height, width
            The window in px of the level.

        Returns
        -------
        uint8 (height, width, 3). Outside the slide and where tiles are missing or unreadable: the background colour.
        """
        return self._within(
            self.levels[level].shape, (y, x, height, width), lambda *window: self._read_inside(level, *window)
        )

    def read_resampled(
        self, shape: tuple[int, int], y: int, x: int, height: int, width: int, *, added: bool = False
    ) -> NDArray[np.uint8]:
        """Pixels of a window of a virtual grid that covers the slide edge to edge.

        The coarsest stored level that is at least as fine as the grid is resampled with an antialiasing filter; where
        none is, level 0 is interpolated. Windows fit together without seams.

        Parameters
        ----------
        shape
            (height, width) of the whole grid.
        y, x, height, width
            The window in px of the grid.
        added
            Read from added levels too, once they are complete. They are compressed again, so that the pixels depend on
            whether they are there: for overviews, not for what must be reproducible.

        Returns
        -------
        uint8 (height, width, 3). Outside the slide: the background colour.
        """
        usable = range(len(self.levels)) if added and self.added_levels_complete else self._stored
        level = max(index for index in usable if index == 0 or self._is_fine_enough(index, shape))
        return self._within(shape, (y, x, height, width), lambda *window: self._resample(level, shape, *window))

    def thumbnail(self, max_side: int = 1024, control: Control | None = None) -> NDArray[np.uint8]:
        """The whole slide with at most `max_side` px on its longer side: uint8 (height, width, 3)."""
        return self.overview(self._shrunk(max_side), control)

    def quick_thumbnail(self, max_side: int) -> NDArray[np.uint8] | None:
        """`thumbnail` where no added level has to be computed for it, else None."""
        shape = self._shrunk(max_side)
        return self.read_resampled(shape, 0, 0, *shape, added=True) if self._is_quick(shape) else None

    def _shrunk(self, max_side: int) -> tuple[int, int]:
        shrink = min(1.0, max_side / max(self.shape))
        return max(1, round(self.shape[0] * shrink)), max(1, round(self.shape[1] * shrink))

    def overview(self, shape: tuple[int, int], control: Control | None = None) -> NDArray[np.uint8]:
        """The whole slide on a grid of `shape`: uint8 (height, width, 3).

        Where the file has no level near that size and level 0 is large, the added levels are computed first.
        """
        if not self._is_quick(shape):
            self.build_added_levels(control)
        return self.read_resampled(shape, 0, 0, *shape, added=True)

    def _is_quick(self, shape: tuple[int, int]) -> bool:
        """Whether an overview takes reading few pixels, or added levels that are there."""
        finest = max(index for index in range(len(self.levels)) if index == 0 or self._is_fine_enough(index, shape))
        stored = max(index for index in self._stored if index <= finest)
        few = math.prod(self.levels[stored].shape) <= _DIRECT_PIXELS
        return few or self.levels[finest].stored or self.added_levels_complete

    def _is_fine_enough(self, level: int, shape: tuple[int, int]) -> bool:
        return all(have >= 0.99 * want for have, want in zip(self.levels[level].shape, shape, strict=True))

    def _resample(
        self, level: int, shape: tuple[int, int], y: int, x: int, height: int, width: int
    ) -> NDArray[np.uint8]:
        def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
            return self._read_inside(level, y, x, height, width)

        return read_window(read, self.levels[level].shape, shape, y, x, height, width)

    def _read_inside(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        if level in self._stored:
            return self._reader.read(self._stored[level], y, x, height, width)
        info = SourceLevel(self.levels[level].shape, (TILE, TILE))
        return assemble(info, lambda row, col: self._added_tile(level, row, col), (y, x, height, width))

    def _within(self, shape: tuple[int, int], window: tuple[int, int, int, int], read: Any) -> NDArray[np.uint8]:
        """Read the part of a window that lies inside `shape`; background around it."""
        y, x, height, width = window
        top, left = max(0, y), max(0, x)
        bottom, right = min(shape[0], y + height), min(shape[1], x + width)
        if (top, left, bottom, right) == (y, x, y + height, x + width):
            inside: NDArray[np.uint8] = read(*window)
            return inside
        out = filled((height, width), self.metadata.background)
        if top < bottom and left < right:
            out[top - y : bottom - y, left - x : right - x] = read(top, left, bottom - top, right - left)
        return out

    # What could not be read

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Tiles that could not be read so far, each once."""
        return self._reader.failures

    @property
    def unreadable(self) -> int:
        """Number of tiles that could not be read so far; they were returned as background."""
        return len(self.failures)

    def readable_mask(self, shape: tuple[int, int], y: int, x: int, height: int, width: int) -> NDArray[np.bool_]:
        """Where a window of a grid over the slide was readable so far: bool (height, width)."""
        mask = np.ones((height, width), np.bool_)
        for failure in self.failures:
            level = self.levels[list(self._stored)[failure.level]].shape
            top, bottom = _covered(failure.y, failure.height, shape[0] / level[0], y)
            left, right = _covered(failure.x, failure.width, shape[1] / level[1], x)
            mask[top:bottom, left:right] = False
        return mask

    # Added levels and the zarr face

    @cached_property
    def _added(self) -> AddedLevels:
        shapes = {index: self.levels[index].shape for index in _numbers(self.levels, stored=False)}
        added = AddedLevels(f"{self.fingerprint}-icc" if self._converted else self.fingerprint, shapes)
        added.touch()
        return added

    def build_added_levels(self, control: Control | None = None) -> None:
        """Compute the added levels that are not on disk yet, from tiles, on several threads.

        Until then `pyramid` shows a coarser level, or the background, in their place; tiles appear as they are done.
        Raises what ``control.checkpoint`` raises, and SlideError where the cache folder cannot be written to.
        """
        self._added.build(lambda level, *window: self._resample(level - 1, self.levels[level].shape, *window), control)

    @property
    def added_levels_complete(self) -> bool:
        """Whether no added level is missing."""
        return all(level.stored for level in self.levels) or self._added.complete

    def _added_tile(self, level: int, row: int, col: int) -> NDArray[np.uint8]:
        tile = self._added.tile(level, row, col)
        if tile is not None:
            return tile
        height, width = self.levels[level].shape
        y, x = row * TILE, col * TILE
        return self._preview(level, y, x, min(TILE, height - y), min(TILE, width - x))

    def _preview(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """A window of an added level before it is computed: blurred, or plain background."""
        coarser = next((index for index in self._stored if index > level), None)
        if coarser is not None:
            return self._resample(coarser, self.levels[level].shape, y, x, height, width)
        if self._small is not None:
            small = self._small
            shape = (small.shape[0], small.shape[1])
            return read_window(
                lambda y, x, h, w: small[y : y + h, x : x + w], shape, self.levels[level].shape, y, x, height, width
            )
        return filled((height, width), self.metadata.background)

    @cached_property
    def _small(self) -> NDArray[np.uint8] | None:
        """The thumbnail that came with the file, if it shows the whole slide."""
        if "thumbnail" not in self.associated_images():
            return None
        try:
            small = self._source.associated_image("thumbnail")
        except RegionError:
            return None
        aspect = (small.shape[0] / small.shape[1]) / (self.shape[0] / self.shape[1])
        return small if 0.97 < aspect < 1.03 else None

    def tile_shape(self, level: int) -> tuple[int, int]:
        """Shape (height, width) of the pieces a level is read in."""
        return self._source.levels[self._stored[level]].tile if level in self._stored else (TILE, TILE)

    @cached_property
    def _zarr(self) -> list[zarr.Array[Any]]:
        from napari_histodistill.slide.zarr_store import as_zarr

        return as_zarr(self)

    def pyramid(self) -> list[zarr.Array[Any]]:
        """One read-only uint8 (height, width, 3) zarr v3 array per level, level 0 first, decoded as it is read."""
        return self._zarr

    # Pictures beside the pyramid

    def associated_images(self) -> tuple[str, ...]:
        """Names of the pictures beside the pyramid, without reading them. Labels can carry names of people."""
        return self._source.associated_images()

    def associated_image(self, name: str) -> NDArray[np.uint8]:
        """One of them: uint8 (height, width, 3). Raises SlideError if there is none of that name or it is damaged."""
        try:
            return self._source.associated_image(name)
        except KeyError as error:
            have = ", ".join(self.associated_images()) or "none"
            raise SlideError(f"{self.name} has no picture {name!r}: it has {have}.") from error
        except RegionError as error:
            raise SlideError(f"The picture {name!r} of {self.name} is damaged ({error}): leave it out.") from error


def _numbers(levels: tuple[Level, ...], *, stored: bool) -> list[int]:
    return [index for index, level in enumerate(levels) if level.stored is stored]


def _covered(start: int, size: int, ratio: float, offset: int) -> tuple[int, int]:
    """Grid px, counted from a window's `offset`, that a span of a level touches."""
    return max(0, math.floor(start * ratio) - offset), max(0, math.ceil((start + size) * ratio) - offset)
