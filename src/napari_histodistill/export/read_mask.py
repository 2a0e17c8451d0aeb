"""Mask images of other programs, read window by window: PNG, TIFF and OME-Zarr with one number per pixel."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tifffile
import zarr
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring
from PIL import Image

from napari_histodistill.errors import HistodistillError, reason
from napari_histodistill.export.provenance import KEY
from napari_histodistill.export.rasterise import ImportFileError
from napari_histodistill.slide.errors import DAMAGED
from napari_histodistill.slide.metadata import LARGEST_SIDE, micrometres
from napari_histodistill.slide.sources.segments import LOSSY, LZW, READABLE
from napari_histodistill.slide.zarr_guard import open_guarded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slide.zarr_guard import GuardedStore

LARGEST_CHUNK: Final = 1 << 26
"""Bytes of a tile or chunk, the least that is decoded at a time."""
LARGEST_PNG: Final = 300_000_000
"""Pixels of a PNG, which is read in one piece."""
LARGEST_METADATA: Final = 1 << 24
"""Bytes of an XML document."""
_SINGLE_CHANNEL: Final = {"1", "L", "P", "I", "I;16"}
Pair = tuple[float, float]


@dataclass(frozen=True)
class MaskImage:
    """A mask in a file.

    Parameters
    ----------
    shape : (int, int)
    read : callable
        ``read(rows, columns)`` gives a window: integers (h, w).
    pixel_um : (float, float) or None
        Size of a pixel as (y, x) in µm, where the file gives it.
    centre_um : (float, float) or None
        Position of the first pixel's centre that the file gives, in µm.
    provenance : dict
        What this software wrote into it, if it did.
    notes : list of str
        Sentences for the user.
    """

    shape: tuple[int, int]
    read: Callable[[slice, slice], npt.NDArray[Any]]
    pixel_um: Pair | None = None
    centre_um: Pair | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@contextmanager
def open_mask(path: Path) -> Iterator[MaskImage]:
    """Open a PNG, TIFF or OME-Zarr.

    Raises
    ------
    ImportFileError
        If it is none, is damaged, holds colours, or is absurd in size, shape or metadata.
    """
    try:
        with _opener(path)(path) as mask:
            if max(mask.shape) > LARGEST_SIDE or min(mask.shape) < 1:
                raise ImportFileError(
                    f"{path.name} has {mask.shape[1]} x {mask.shape[0]} px, which is no mask of a slide."
                )
            yield mask
    except HistodistillError:
        raise
    except (*DAMAGED, tifffile.TiffFileError, zarr.errors.BaseZarrError, DefusedXmlException, ParseError) as error:
        raise ImportFileError(
            f"{path.name} is damaged or no mask ({reason(error)}): get a complete copy of it."
        ) from error


def _opener(path: Path) -> Any:
    if path.is_dir():
        return _open_zarr
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith((b"II", b"MM")):
        return _open_tiff
    if head.startswith(b"\x89PNG"):
        return _open_png
    raise ImportFileError(f"{path.name} is no mask in a known format: give a PNG, TIFF or OME-Zarr.")


@contextmanager
def _open_png(path: Path) -> Iterator[MaskImage]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(path, formats=["PNG"])
        except Image.DecompressionBombError as error:
            raise ImportFileError(_too_large(path)) from error
    with image:
        if image.width * image.height > LARGEST_PNG:
            raise ImportFileError(_too_large(path))
        if image.mode not in _SINGLE_CHANNEL:
            raise ImportFileError(_coloured(path))
        pixels = np.asarray(image)
        about = _provenance(image.info.get(KEY))
        yield MaskImage(pixels.shape[:2], lambda rows, columns: pixels[rows, columns], provenance=about)


@contextmanager
def _open_tiff(path: Path) -> Iterator[MaskImage]:
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        shape = tuple(size for size in page.shape if size != 1) or page.shape
        if len(page.shape) != 2 and len(shape) != 2:
            raise ImportFileError(_coloured(path))
        if int(page.compression) in LOSSY or int(page.compression) not in READABLE:
            raise ImportFileError(
                f"{path.name} is compressed in a way that changes values: save it with deflate or LZW."
            )
        if int(np.prod(page.chunks, dtype=np.float64)) * page.dtype.itemsize > LARGEST_CHUNK and page.is_tiled:
            raise ImportFileError(f"{path.name} has tiles too large to read one by one: write it anew.")
        if not page.is_tiled and int(np.prod(page.shape, dtype=np.float64)) * page.dtype.itemsize > 4 * LARGEST_CHUNK:
            raise ImportFileError(f"{path.name} is a large TIFF without tiles: write it with tiles.")
        if max(page.shape) > LARGEST_SIDE:
            raise ImportFileError(f"{path.name} has a side of {max(page.shape)} px, which is no mask of a slide.")
        pixel_um, about = _tiff_metadata(file, page)
        if int(page.compression) == LZW:
            array: Any = _lzw_pixels(path)
        elif page.is_tiled:
            array = zarr.open_array(page.aszarr(), mode="r")
        else:
            array = page.asarray()
        extra = (0,) * (len(array.shape) - 2)
        yield MaskImage(
            (page.imagelength, page.imagewidth),
            lambda rows, columns: np.asarray(array[(rows, columns, *extra)]),
            pixel_um,
            provenance=about,
        )


def _lzw_pixels(path: Path) -> npt.NDArray[Any]:
    """Pixels of a TIFF with LZW through libtiff, see `sound_lzw`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=["TIFF"]) as image:
                if image.width * image.height > LARGEST_PNG or image.mode not in {*_SINGLE_CHANNEL, "I;16B"}:
                    raise ImportFileError(f"{path.name} is too large a TIFF with LZW: save it with deflate.")
                return np.asarray(image)
        except Image.DecompressionBombError as error:
            raise ImportFileError(_too_large(path)) from error


def _tiff_metadata(file: tifffile.TiffFile, page: Any) -> tuple[Pair | None, dict[str, Any]]:
    """Size of a pixel, and provenance, from OME-XML or the resolution tags."""
    if file.is_ome and file.ome_metadata is not None:
        if len(file.ome_metadata) > LARGEST_METADATA:
            raise ImportFileError(f"{file.filename} has absurdly large metadata: write it anew.")
        root = fromstring(file.ome_metadata, forbid_dtd=True)
        image: Any = root.find("{*}Image")
        pixels = image.find("{*}Pixels")
        size = tuple(_physical_size(pixels.attrib, axis) for axis in "YX")
        description = image.find("{*}Description")
        about = _provenance(None if description is None else description.text)
        if size[0] and size[1]:
            return (size[0], size[1]), about
    if page.tags.get("XResolution") is None or page.resolutionunit not in {2, 3}:
        return None, {}
    x, y = page.get_resolution("MICROMETER")
    return (None if min(x, y) <= 0 or max(x, y) < 1 / 10 else (1 / y, 1 / x)), {}


def _physical_size(pixels: Any, axis: str) -> float | None:
    unit = micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    size = pixels.get(f"PhysicalSize{axis}")
    return None if unit is None or size is None else _positive(float(size) * unit)


def _positive(number: float) -> float | None:
    return number if np.isfinite(number) and number > 0 else None


@contextmanager
def _open_zarr(path: Path) -> Iterator[MaskImage]:
    group, store, notes = _label_group(path)
    attributes = dict(group.attrs)
    ome: Any = attributes.get("ome", attributes)
    multiscale = ome["multiscales"][0]
    dataset = multiscale["datasets"][0]
    array: Any = store.array(group, dataset["path"], LARGEST_CHUNK)
    leading = len(array.shape) - 2
    if leading < 0 or any(size != 1 for size in array.shape[:leading]):
        raise ImportFileError(f"{path.name} has more than one plane: give a mask with one.")
    first = (0,) * leading
    scale, translation = _transformations(multiscale, dataset, leading)
    yield MaskImage(
        (int(array.shape[-2]), int(array.shape[-1])),
        lambda rows, columns: np.asarray(array[(*first, rows, columns)]),
        scale,
        translation,
        _provenance(attributes.get(KEY)),
        notes,
    )


def _label_group(path: Path) -> tuple[zarr.Group, GuardedStore, list[str]]:
    """The label image in a folder: itself, or the first one under it."""
    group, store = open_guarded(path)
    attributes = dict(group.attrs)
    ome: Any = attributes.get("ome", attributes)
    if "image-label" in ome or "labels" not in group:
        return group, store, []
    listed: dict[str, Any] = dict(open_guarded(path / "labels")[0].attrs)
    names: Any = listed.get("ome", listed).get("labels", [])
    if not names or "/" in str(names[0]) or ".." in str(names[0]):
        raise ImportFileError(f"{path.name} lists no labels: give the label image itself.")
    notes = [f"The file holds {len(names)} label images; {names[0]!r} is taken."] if len(names) > 1 else []
    return *open_guarded(path / "labels" / str(names[0])), notes


def _transformations(multiscale: Any, dataset: Any, leading: int) -> tuple[Pair | None, Pair | None]:
    """Scale and translation (y, x) of a level in µm; None without units of length."""
    axes = multiscale.get("axes", [])
    units = [micrometres(str(axis.get("unit", ""))) for axis in axes[leading:] if isinstance(axis, dict)]
    if len(units) != 2 or units[0] is None or units[1] is None:
        return None, None
    size, shift = np.ones(2), np.zeros(2)
    for holder in (dataset, multiscale):
        for step in holder.get("coordinateTransformations", []):
            values = np.array(step.get(step["type"], []), dtype=np.float64)[leading:]
            if values.shape == (2,) and np.isfinite(values).all():
                size, shift = (size * values, shift * values) if step["type"] == "scale" else (size, shift + values)
    unit = np.array(units, dtype=np.float64)
    size, shift = size * unit, shift * unit
    if (size <= 0).any():
        return None, None
    return (float(size[0]), float(size[1])), (float(shift[0]), float(shift[1]))


def _provenance(found: Any) -> dict[str, Any]:
    """What this software wrote, from JSON or as it is; an empty dictionary if it wrote nothing."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return {}
    return found if isinstance(found, dict) and found.get("software") == "napari-histodistill" else {}


def _too_large(path: Path) -> str:
    return f"{path.name} has more than {LARGEST_PNG // 10**6} million pixels: save it as a tiled TIFF or OME-Zarr."


def _coloured(path: Path) -> str:
    return f"{path.name} holds colours: save the mask with one number per pixel."
