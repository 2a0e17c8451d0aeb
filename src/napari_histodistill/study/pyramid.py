"""A uint8 image or label image on a working grid as OME-Zarr 0.5, its lower levels written as blocks land.

Every level covers the slide edge to edge, so a level of odd size is not cut or padded: its lower neighbour has pixels
of a little less than two by two, an image is averaged over their exact areas, labels are taken at their centres.

References
----------
.. [1] OME-Zarr 0.5, https://ngff.openmicroscopy.org/0.5/
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study.files import StudyError
from napari_histodistill.urls import require_disk, zarr_store

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slide.grid import WorkingGrid

    UInt8 = npt.NDArray[np.uint8]

CHUNK = 256
"""Side of a zarr chunk in px: small, so that first views are fast."""
SMALLEST_SIDE = 512
"""No further level is added once a level's longer side is at most this."""
NO_CORRECTION = 255

Kind = Literal["image", "labels"]

LABEL_NAMES = {OUTSIDE: "outside tissue", TUMOUR: "tumour", NORMAL: "normal tissue", IGNORE: "ignore"}
LABEL_COLOURS = {OUTSIDE: (0, 0, 0, 0), TUMOUR: (220, 40, 40, 255), NORMAL: (0, 0, 0, 0), IGNORE: (240, 200, 40, 255)}


class Pyramid:
    """A multiscale uint8 array on disk; reading is safe from any thread, writing from one at a time.

    Parameters
    ----------
    folder : Path
        The OME-Zarr group.
    mode : {"r", "r+"}

    Attributes
    ----------
    levels : tuple of zarr.Array
        uint8 ``(h, w)``, finest first; napari takes them as they are.
    kind : {"image", "labels"}
    """

    def __init__(self, folder: Path, mode: Literal["r", "r+"] = "r") -> None:
        self.folder = folder
        try:
            group = zarr.open_group(zarr_store(folder), mode=mode, zarr_format=3)
            ome: Any = group.attrs["ome"]
            paths = [dataset["path"] for dataset in ome["multiscales"][0]["datasets"]]
            self.levels: tuple[zarr.Array[Any], ...] = tuple(_array(group, path) for path in paths)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise StudyError(f"{folder} is no OME-Zarr that can be read ({error}): restore it from a copy.") from error
        self.kind: Kind = "labels" if "image-label" in ome else "image"

    @classmethod
    def create(
        cls,
        folder: Path,
        grid: WorkingGrid,
        kind: Kind,
        *,
        name: str,
        fill: int = 0,
        multiscale: bool = True,
        checksums: bool = False,
    ) -> Pyramid:
        """Make an empty one in place of whatever ``folder`` holds; after a crash it is there whole or not at all.

        Parameters
        ----------
        grid : WorkingGrid
            Shape of the finest level and where it lies; scale and translation follow from it.
        fill : int
            Value of what was never written; takes no space on disk.
        checksums : bool
            Whether a damaged chunk is to be noticed when it is read.
        """
        require_disk(folder)
        new = folder.with_name(f"{folder.name}.partial")
        for leftover in (new, folder):
            if leftover.exists():
                shutil.rmtree(leftover)
        shapes = level_shapes(grid.shape) if multiscale else [grid.shape]
        group = zarr.create_group(new, zarr_format=3, attributes={"ome": _metadata(grid, shapes, kind, name)})
        for index, shape in enumerate(shapes):
            chunks = (min(CHUNK, shape[0]), min(CHUNK, shape[1]))
            group.create_array(
                str(index),
                shape=shape,
                chunks=chunks,
                dtype=np.uint8,
                fill_value=fill,
                dimension_names=["y", "x"],
                compressors=ZstdCodec(level=0, checksum=checksums),
            )
        new.rename(folder)
        return cls(folder, "r+")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the finest level."""
        height, width = self.levels[0].shape
        return height, width

    def read(self, y: int, x: int, height: int, width: int) -> UInt8:
        """A window of the finest level; it must lie inside."""
        return np.asarray(self.levels[0][y : y + height, x : x + width])

    def write(self, y: int, x: int, block: UInt8) -> None:
        """Write a block into the finest level and bring what lies under it in the others up to date."""
        reduce = _reduce_image if self.kind == "image" else _reduce_labels
        top, bottom, left, right = y, y + block.shape[0], x, x + block.shape[1]
        self.levels[0][top:bottom, left:right] = block
        for fine, coarse in zip(self.levels, self.levels[1:], strict=False):
            top, bottom = _covered(top, bottom, fine.shape[0], coarse.shape[0])
            left, right = _covered(left, right, fine.shape[1], coarse.shape[1])
            coarse[top:bottom, left:right] = reduce(fine, coarse.shape, top, bottom, left, right)


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Shapes of the levels over ``shape``, each half of the one before, rounded up."""
    shapes = [shape]
    while max(shapes[-1]) > SMALLEST_SIDE:
        height, width = shapes[-1]
        shapes.append(((height + 1) // 2, (width + 1) // 2))
    return shapes


def _array(group: zarr.Group, path: str) -> zarr.Array[Any]:
    array = group[path]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{path} is no array")
    return array


def _metadata(grid: WorkingGrid, shapes: list[tuple[int, int]], kind: Kind, name: str) -> dict[str, Any]:
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    datasets = [_dataset(str(index), replace(grid, shape=shape)) for index, shape in enumerate(shapes)]
    method = "mean" if kind == "image" else "nearest"
    multiscale = {"name": name, "axes": axes, "datasets": datasets, "type": method}
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [multiscale]}
    if kind == "image":
        window = {"min": 0, "max": 255, "start": 0, "end": 255}
        ome["omero"] = {"channels": [{"label": name, "color": "FF0000", "window": window, "active": True}]}
    else:
        ome["image-label"] = {
            "colors": [{"label-value": value, "rgba": list(rgba)} for value, rgba in LABEL_COLOURS.items()],
            "properties": [{"label-value": value, "name": text} for value, text in LABEL_NAMES.items()],
        }
    return ome


def _dataset(path: str, grid: WorkingGrid) -> dict[str, Any]:
    transformations = [
        {"type": "scale", "scale": [float(value) for value in grid.scale]},
        {"type": "translation", "translation": [float(value) for value in grid.translate]},
    ]
    return {"path": path, "coordinateTransformations": transformations}


def _covered(start: int, stop: int, fine: int, coarse: int) -> tuple[int, int]:
    """Coarse pixels that share area with fine pixels start..stop of a length."""
    return start * coarse // fine, -(-stop * coarse // fine)


def _reduce_image(fine: zarr.Array[Any], shape: tuple[int, ...], top: int, bottom: int, left: int, right: int) -> UInt8:
    rows, row_weights = _area_weights(fine.shape[0], shape[0], top, bottom)
    columns, column_weights = _area_weights(fine.shape[1], shape[1], left, right)
    source = np.asarray(fine[rows, columns], dtype=np.float32)
    return np.rint(row_weights @ source @ column_weights.T).astype(np.uint8)


def _area_weights(fine: int, coarse: int, start: int, stop: int) -> tuple[slice, npt.NDArray[np.float32]]:
    """Fine pixels under coarse pixels start..stop, and the share of each in their means: ``(stop - start, n)``."""
    edges = np.arange(start, stop + 1) * (fine / coarse)
    first, last = start * fine // coarse, -(-stop * fine // coarse)
    pixels = np.arange(first, last)
    low, high = edges[:-1, None], edges[1:, None]
    overlap = np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, None)
    return slice(first, last), (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)


def _reduce_labels(
    fine: zarr.Array[Any], shape: tuple[int, ...], top: int, bottom: int, left: int, right: int
) -> UInt8:
    rows = pixels_at_centres(fine.shape[0], shape[0], top, bottom)
    columns = pixels_at_centres(fine.shape[1], shape[1], left, right)
    window = np.asarray(fine[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return window[np.ix_(rows - rows[0], columns - columns[0])]


def pixels_at_centres(fine: int, coarse: int, start: int, stop: int) -> npt.NDArray[np.intp]:
    """Pixels of a grid of ``fine`` under the centres of pixels start..stop of one of ``coarse``, along an axis.

    Both cover the same length edge to edge; ``fine`` may as well be the smaller number.
    """
    return ((2 * np.arange(start, stop) + 1) * fine // (2 * coarse)).astype(np.intp)
