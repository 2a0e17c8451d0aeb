"""Pixels of TIFF files decoded tile by tile, without OpenSlide: the fast path, and the TIFFs OpenSlide refuses.

tifffile finds the tiles and decodes one at a time through imagecodecs; a tile is read with one `pread`, so threads do
not wait for each other. Where OpenSlide reads the file too, both agree exactly: what could differ is left to OpenSlide.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tifffile

from napari_histodistill.slide.errors import DAMAGED, RegionError, SlideError
from napari_histodistill.slide.reader import filled
from napari_histodistill.slide.sources import SourceLevel
from napari_histodistill.slide.sources.pixels import SampleKind, white_level
from napari_histodistill.slide.sources.segments import JPEG, LZW, READABLE, check_segment, sound_lzw
from napari_histodistill.slide.sources.tiff_layout import LevelPages, find_levels, icc_profile, read_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_histodistill.slide.sources.openslide_source import OpenSlideSource

FAST_VENDORS: Final = (None, "aperio", "generic-tiff")
"""OpenSlide's names of the families whose tiles may be decoded directly: none has overlapping tiles or offsets."""

_STRIP_ROWS: Final = 256
_STRIP_BYTES: Final = 16 * 2**20
_SEGMENT_BYTES: Final = 128 * 2**20
_OPENSLIDE_ONLY: Final = frozenset({6, 33003, 33005})  # old-style JPEG, Aperio's JPEG 2000
_SAMPLE_SEGMENTS: Final = 16
_RGB: Final = 2
_SEPARATE: Final = 2


class TiffError(SlideError):
    """The tiles of a TIFF cannot be decoded, or not exactly as OpenSlide does it."""


@dataclass(frozen=True)
class _Plane:
    """One page of a level, or one of the colour planes of a page: where its segments (tiles or strips) lie."""

    page: Any
    decode: Callable[..., tuple[NDArray[Any] | None, Any, Any]]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    tables: bytes | None
    first: int
    stop: int
    is_jfif: bool

    @property
    def segment(self) -> tuple[int, int]:
        """(height, width) of a tile or strip in px."""
        page = self.page
        shape = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        return int(shape[0]), int(shape[1])

    def decoded_size(self, index: int) -> int:
        """Bytes of a decoded tile or strip; the last strip of a plane has the rows that are left."""
        page, (rows, width) = self.page, self.segment
        if not page.is_tiled:
            rows = min(rows, int(page.imagelength) - (index - self.first) * rows)
        samples = 1 if page.planarconfig == _SEPARATE else int(page.samplesperpixel)
        bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
        return rows * -(-width * samples * bits // 8)

    @classmethod
    def of(cls, page: Any, number: int, planes: int) -> _Plane:
        offsets, sizes = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
        if offsets.shape != sizes.shape or offsets.ndim != 1:
            raise ValueError("as many tiles must have an offset as have a size")
        separate = planes > 1 and page.keyframe.planarconfig == _SEPARATE
        count = len(offsets) // page.keyframe.samplesperpixel if separate else len(offsets)
        first = number * count if separate else 0
        is_jfif = page.keyframe.compression in JPEG and bool(page.keyframe.is_jfif)
        # The decoder looks into the file when it is made, so it is made while the file is open.
        return cls(page.keyframe, page.keyframe.decode, offsets, sizes, page.jpegtables, first, first + count, is_jfif)

    def cut_into_strips(self) -> _Plane:
        """The same with its one uncompressed strip cut into strips of `_STRIP_ROWS` rows."""
        width, height = int(self.page.imagewidth), int(self.page.imagelength)
        samples = 1 if self.page.planarconfig == _SEPARATE else int(self.page.samplesperpixel)
        dtype = self.page.dtype.newbyteorder(self.page.parent.byteorder)
        row_bytes = width * samples * dtype.itemsize
        rows = np.arange(0, height, _STRIP_ROWS, dtype=np.int64)

        def decode(data: bytes, index: int) -> tuple[NDArray[Any], None, None]:  # noqa: ARG001 - as tifffile's
            return np.frombuffer(data, dtype).reshape(1, -1, width, samples), None, None

        offsets = self.offsets[self.first] + rows * row_bytes
        sizes = np.minimum(_STRIP_ROWS, height - rows) * row_bytes
        return replace(self, decode=decode, offsets=offsets, sizes=sizes, first=0, stop=len(rows))


def _is_raw(page: Any) -> bool:
    """Whether a page is one uncompressed strip (per colour plane), as ImageJ writes it."""
    whole = not page.is_tiled and page.rowsperstrip >= page.imagelength
    return bool(whole and page.compression == 1 and page.predictor == 1 and page.bitspersample in {8, 16, 32})


@dataclass(frozen=True)
class _Level:
    """A stored level: `strips` is the number of segments in one of its tiles, 1 unless the page has short strips."""

    info: SourceLevel
    planes: tuple[_Plane, ...]
    strips: int

    @classmethod
    def of(cls, pages: LevelPages) -> _Level:
        page = pages[0][0].keyframe
        shape = (int(page.imagelength), int(page.imagewidth))
        planes = tuple(_Plane.of(plane, number, len(pages)) for plane, number in pages)
        strips = 1
        if page.is_tiled:
            tile = (int(page.tilelength), int(page.tilewidth))
        elif _is_raw(page):
            planes = tuple(plane.cut_into_strips() for plane in planes)
            tile = (_STRIP_ROWS, shape[1])
        else:
            rows = min(int(page.rowsperstrip), shape[0])
            strips = max(1, min(_STRIP_ROWS // rows, _STRIP_BYTES // (rows * shape[1] * 3)))
            tile = (rows * strips, shape[1])
        return cls(SourceLevel(shape, tile), planes, strips)


class TiffSource:
    """Stored levels of a TIFF.

    Parameters
    ----------
    path
        The file.
    reference
        OpenSlide's view of the same file, for metadata and associated images; None where OpenSlide refuses it.

    Raises
    ------
    TiffError
        The tiles cannot be decoded, or not exactly as OpenSlide does.
    """

    def __init__(self, path: Path, reference: OpenSlideSource | None) -> None:
        self._path = path
        self._reference = reference
        self._file: _File | None = _File(path)
        try:
            with _quiet():
                self._read(path, reference)
        except (*DAMAGED, tifffile.TiffFileError) as error:
            raise TiffError(f"{path.name} is a damaged or truncated TIFF: get a complete copy of it.") from error

    def _read(self, path: Path, reference: OpenSlideSource | None) -> None:
        with tifffile.TiffFile(path) as tif:
            pages, notes = find_levels(tif, reference.format if reference else None)
            self._levels = tuple(_Level.of(level) for level in pages)
            self.metadata = read_metadata(tif, reference.metadata if reference else None)
            self.icc_profile = icc_profile(pages[0][0][0].keyframe)
            self.format = "ome-tiff" if tif.is_ome else reference.format if reference else "tiff"
        self.levels = tuple(level.info for level in self._levels)
        self._check_decodable()
        self._kind = SampleKind.of(self._levels[0].planes[0].page, len(self._levels[0].planes))
        if reference is not None:
            self._check_agreement(reference)
        if self._kind.needs_white:
            self._kind = replace(self._kind, white=white_level(self._sample()))
        self.warnings = (*notes, *self._kind.notes(), *self._truncation())

    def read_tile(self, level: int, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of one tile; see `Source`. Missing tiles hold the background."""
        one = self._levels[level]
        across = -(-one.info.shape[1] // one.info.tile[1])
        height = min(one.info.tile[0], one.info.shape[0] - row * one.info.tile[0])
        width = min(one.info.tile[1], one.info.shape[1] - col * one.info.tile[1])
        start = (row * across + col) * one.strips
        samples = self._decode(one, range(start, start + one.strips))
        if samples is None:
            return filled((height, width), self.metadata.background)
        return self._kind.to_rgb(samples[:height, :width], self.metadata.background)

    def _decode(self, level: _Level, segments: range) -> NDArray[Any] | None:
        """Samples of neighbouring segments below each other: (rows, width, samples); None where all are missing."""
        planes = []
        for plane in level.planes:
            indices = [plane.first + index for index in segments if plane.first + index < plane.stop]
            parts = [part for index in indices if (part := self._segment(plane, index)) is not None]
            if not parts or len(parts) < len(indices):
                return None
            planes.append(np.concatenate(parts) if len(parts) > 1 else parts[0])
        return np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0]

    def _segment(self, plane: _Plane, index: int) -> NDArray[Any] | None:
        offset, size = int(plane.offsets[index]), int(plane.sizes[index])
        if size == 0 or offset == 0:
            return None
        if self._file is None:
            raise SlideError(f"{self._path.name} was closed: open it again.")
        data = self._file.read(offset, size)
        if len(data) < size:
            raise RegionError("the file ends before the tile does")
        tables = {"jpegtables": plane.tables} if plane.page.compression in JPEG else {}
        check_segment(int(plane.page.compression), data, plane.segment)
        if plane.page.compression == LZW:
            data = sound_lzw(data, plane.decoded_size(index))
        try:
            samples = plane.decode(data, index, **tables)[0]
        except DAMAGED as error:
            raise RegionError(str(error)) from error
        decoded: NDArray[Any] | None = None if samples is None else samples[0]
        return decoded

    def _check_decodable(self) -> None:
        for level in self._levels:
            page = level.planes[0].page
            try:
                known = page.dtype is not None and int(page.compression) in READABLE
                known = known and tifffile.TIFF.DECOMPRESSORS[page.compression] is not False
            except (KeyError, TypeError, ValueError):
                known = False
            if not known:
                compression = getattr(page.compression, "name", page.compression)
                raise TiffError(
                    f"{self._path.name} uses a compression ({compression}) or sample type that cannot be decoded: "
                    "convert it to a tiled TIFF with JPEG compression."
                )
            if page.imagedepth > 1 or level.info.tile[0] * level.info.tile[1] * 3 > _SEGMENT_BYTES:
                raise TiffError(
                    f"{self._path.name} is stored in pieces too large to read one at a time: convert it to a tiled, "
                    "pyramidal TIFF or OME-Zarr."
                )

    def _check_agreement(self, reference: OpenSlideSource) -> None:
        """Leave to OpenSlide what could come out different here."""
        shapes = [level.shape for level in self.levels]
        wanted = [level.shape for level in reference.levels]
        seen = shapes[: len(wanted)] if self.format == "ome-tiff" else shapes
        if (
            seen != wanted
            or self._kind.alpha
            or any(self._is_doubtful(level, reference.format) for level in self._levels)
        ):
            raise TiffError(f"{self._path.name} has no fast path: open it with OpenSlide.")

    def _is_doubtful(self, level: _Level, family: str) -> bool:
        """Whether OpenSlide may decode a level differently.

        It fills tiles missing from Aperio's coarser levels from finer ones, and takes no hint from JFIF markers about
        colours that the tags call RGB.
        """
        plane = level.planes[0]
        if family == "aperio":
            incomplete = (plane.sizes == 0).any() if level is not self._levels[0] else plane.sizes[0] == 0
            return bool(incomplete) or plane.page.compression in _OPENSLIDE_ONLY
        return plane.page.compression in _OPENSLIDE_ONLY or (plane.page.photometric == _RGB and plane.is_jfif)

    def _sample(self) -> NDArray[Any]:
        """Samples from tiles spread over the coarsest level."""
        level = self._levels[-1]
        count = len(level.planes[0].offsets) // level.strips
        tiles = []
        for tile in range(0, count, -(-count // _SAMPLE_SEGMENTS)):
            try:
                samples = self._decode(level, range(tile * level.strips, (tile + 1) * level.strips))
            except RegionError:
                continue  # it will be counted when it is read for its pixels
            if samples is not None:
                tiles.append(samples.ravel())
        return np.concatenate(tiles) if tiles else np.zeros(1, self._levels[0].planes[0].page.dtype)

    def _truncation(self) -> list[str]:
        end = self._path.stat().st_size
        lost = [int((plane.offsets + plane.sizes > end).sum()) for level in self._levels for plane in level.planes]
        if not any(lost):
            return []
        return [f"The file is truncated: {sum(lost)} of its tiles are missing; get a complete copy of it."]

    def associated_images(self) -> tuple[str, ...]:
        """Names of the pictures beside the pyramid."""
        return self._reference.associated_images() if self._reference else ()

    def associated_image(self, name: str) -> NDArray[np.uint8]:
        """One of them: uint8 (height, width, 3)."""
        if self._reference is None:
            raise KeyError(name)
        return self._reference.associated_image(name)

    def close(self) -> None:
        """Let go of the file; it closes when the reads that are under way have ended."""
        self._file = None
        if self._reference is not None:
            self._reference.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No log lines of tifffile about a file that may be damaged: the user gets a sentence of ours."""
    logger = tifffile.logger()
    was = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was


class _File:
    """Reads at a position from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        try:
            if hasattr(os, "pread"):
                return os.pread(self._file.fileno(), size, offset)
            with self._lock:
                self._file.seek(offset)
                return self._file.read(size) or b""
        except OSError as error:
            raise RegionError(str(error)) from error

    def __del__(self) -> None:
        self._file.close()
