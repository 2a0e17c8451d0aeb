"""A uint8 image or label image on a working grid as OME-Zarr 0.5, its lower levels written as blocks land.

Every level covers the slide edge to edge, so a level of odd size is not cut or padded: its lower neighbour has pixels
of a little less than two by two, an image is averaged over their exact areas, labels are taken at their centres.

References
----------
.. [1] OME-Zarr 0.5, https://ngff.openmicroscopy.org/0.5/
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from napari_histodistill.errors import reason
from napari_histodistill.slide.errors import DAMAGED
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.slide.zarr_guard import open_guarded
from napari_histodistill.study.files import DamagedError, ForbiddenError, StudyError, put_in_place, way_out, writing
from napari_histodistill.urls import UrlPath, require_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.slide.grid import WorkingGrid
    from napari_histodistill.slide.zarr_guard import GuardedStore

    UInt8 = npt.NDArray[np.uint8]

CHUNK = 256
"""Side of a zarr chunk in px: small, so that first views are fast."""
SMALLEST_SIDE = 512
"""No further level is added once a level's longer side is at most this."""
NO_CORRECTION = 255
LARGEST_CHUNK = 1 << 24
"""Bytes; chunks written here have a 256th of it."""

Kind = Literal["image", "labels"]

LABEL_NAMES = {OUTSIDE: "outside tissue", TUMOUR: "tumour", NORMAL: "normal tissue", IGNORE: "ignore"}
LABEL_COLOURS = {OUTSIDE: (0, 0, 0, 0), TUMOUR: (220, 40, 40, 255), NORMAL: (0, 0, 0, 0), IGNORE: (240, 200, 40, 255)}


@dataclass(frozen=True)
class Plan:
    """What the heads of a `Pyramid` say, see `Pyramid.create`."""

    grid: WorkingGrid
    kind: Kind
    name: str
    fill: int = 0
    multiscale: bool = True

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Of the levels."""
        return level_shapes(self.grid.shape) if self.multiscale else [self.grid.shape]

    def make(self, store: Any) -> zarr.Group:
        """Write the group and arrays without a chunk into an empty folder; damaged chunks will be noticed."""
        attributes = {"ome": _metadata(self.grid, self.shapes, self.kind, self.name)}
        group = zarr.create_group(store, zarr_format=3, attributes=attributes)
        for index, shape in enumerate(self.shapes):
            group.create_array(
                str(index),
                shape=shape,
                chunks=(min(CHUNK, shape[0]), min(CHUNK, shape[1])),
                dtype=np.uint8,
                fill_value=self.fill,
                dimension_names=["y", "x"],
                compressors=ZstdCodec(level=0, checksum=True),
            )
        return group

    def differs(self, pyramid: Pyramid) -> str:
        """What of an array's heads is other than `make` makes it; empty if nothing that counts is."""
        made = _made(self)
        group = zarr.open_group(pyramid.folder, mode="r", zarr_format=3)
        said, wanted = _plain(group.attrs["ome"]), _plain(made.attrs["ome"])
        if said["multiscales"] != wanted["multiscales"] or pyramid.kind != self.kind:
            return "description"
        for index, array in enumerate(pyramid.levels):
            model: Any = made[str(index)]
            is_, should = _plain(array.metadata.to_dict()), _plain(model.metadata.to_dict())
            for part in ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value"):
                if is_[part] != should[part]:
                    return f"{part.replace('_', ' ')} of level {index}"
            if [codec["name"] for codec in is_["codecs"]] != [codec["name"] for codec in should["codecs"]]:
                return f"codecs of level {index}"
        return ""


@lru_cache(maxsize=8)
def _made(plan: Plan) -> zarr.Group:
    return plan.make(MemoryStore())


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
            group, store = open_guarded(folder, mode, links=False)
            ome: Any = group.attrs["ome"]
            paths = [dataset["path"] for dataset in ome["multiscales"][0]["datasets"]]
            self.levels: tuple[zarr.Array[Any], ...] = tuple(_array(group, store, path) for path in paths)
        except PermissionError as error:
            raise ForbiddenError(Path(error.filename or folder)) from error
        except DAMAGED as error:
            raise DamagedError(
                f"{folder} is no OME-Zarr that can be read ({reason(error)}): {way_out(folder)}."
            ) from error
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
    ) -> Pyramid:
        """Make an empty one in place of whatever ``folder`` holds; after a crash it is there whole or not at all.

        Parameters
        ----------
        grid : WorkingGrid
            Shape of the finest level and where it lies; scale and translation follow from it.
        fill : int
            Value of what was never written; takes no space on disk.

        Raises
        ------
        StudyError
            If the folder above is not there or cannot be written.
        """
        require_disk(folder)
        new = folder.with_name(f"{folder.name}.partial")
        with writing(folder):
            for leftover in (new, folder):
                if leftover.exists():
                    shutil.rmtree(leftover)
            new.mkdir()  # and not what is above: that may be away for the moment
            Plan(grid, kind, name, fill, multiscale).make(new)
            put_in_place(new, folder)
        return cls(folder, "r+")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the finest level."""
        height, width = self.levels[0].shape
        return height, width

    def read(self, y: int, x: int, height: int, width: int) -> UInt8:
        """A window of the finest level; it must lie inside.

        Raises
        ------
        DamagedError
            If a chunk cannot be read.
        ForbiddenError
            If this user may not read it.
        StudyError
            If the array is no longer there: what lacks a chunk would read as empty.
        """
        try:
            window = np.asarray(self.levels[0][y : y + height, x : x + width])
        except PermissionError as error:
            raise ForbiddenError(Path(error.filename or self.folder)) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise DamagedError(f"{self.folder} cannot be read ({error}): {way_out(self.folder)}.") from error
        empty = (window == self.levels[0].fill_value).all()
        if empty and not isinstance(self.folder, UrlPath) and not (self.folder / "zarr.json").exists():
            raise StudyError(
                f"{self.folder} is no longer there: see that the study is where it was; if a newer result took its "
                "place, open the slide again."
            )
        return window

    def write(self, y: int, x: int, block: UInt8) -> None:
        """Write a block into the finest level and bring what lies under it in the others up to date.

        Raises
        ------
        StudyError
            If the disk is full or the folder is gone or cannot be written.
        DamagedError
            If a chunk that is to be changed in part cannot be read.
        ValueError
            If the block does not lie inside.
        """
        with writing(self.folder):
            self.put(y, x, block)
            self.reduce(y, x, *block.shape)

    def put(self, y: int, x: int, block: UInt8) -> None:
        """Write a block into the finest level alone, where `reduce` follows for several at once.

        Raises
        ------
        ValueError
            If the block does not lie inside.
        """
        if (
            block.ndim != 2
            or y < 0
            or x < 0
            or y + block.shape[0] > self.shape[0]
            or x + block.shape[1] > self.shape[1]
        ):
            raise ValueError(f"a block of {block.shape} at {(y, x)} does not lie in an array of {self.shape}")
        (self.folder / "zarr.json").stat()  # zarr would make the folders anew where a disk is away for the moment
        with self._changing():
            self.levels[0][y : y + block.shape[0], x : x + block.shape[1]] = block

    def reduce(self, y: int, x: int, height: int, width: int) -> None:
        """Bring what lies under a window of the finest level up to date; of the levels only the finest is read."""
        shrink = _shrink_image if self.kind == "image" else _shrink_labels
        shapes = [level.shape for level in self.levels]
        rows, columns = (
            _spans([shape[axis] for shape in shapes], start, start + size)
            for axis, (start, size) in enumerate([(y, height), (x, width)])
        )
        with self._changing():
            values = np.asarray(self.levels[0][slice(*rows[0].needed), slice(*columns[0].needed)])
            for fine, coarse, level in zip(range(len(shapes)), range(1, len(shapes)), self.levels[1:], strict=False):
                for axis, spans in enumerate((rows, columns)):
                    sizes = shapes[fine][axis], shapes[coarse][axis]
                    values = shrink(values, axis, sizes, spans[fine].needed[0], spans[coarse].needed)
                values = np.rint(values).astype(np.uint8)
                level[slice(*rows[coarse].changed), slice(*columns[coarse].changed)] = values[
                    rows[coarse].within, columns[coarse].within
                ]

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Make a sentence of what zarr and its codecs raise on a damaged chunk that is changed in part."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise DamagedError(f"{self.folder} cannot be read ({error}): {way_out(self.folder)}.") from error


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Shapes of the levels over ``shape``, each half of the one before, rounded up."""
    shapes = [shape]
    while max(shapes[-1]) > SMALLEST_SIDE:
        height, width = shapes[-1]
        shapes.append(((height + 1) // 2, (width + 1) // 2))
    return shapes


def _plain(said: Any) -> Any:
    """As JSON has it."""
    return json.loads(json.dumps(said, default=list))


def _array(group: zarr.Group, store: GuardedStore, path: str) -> zarr.Array[Any]:
    array = store.array(group, path, LARGEST_CHUNK)
    if array.ndim != 2 or array.dtype != np.uint8:
        raise TypeError(f"{path} is no array of bytes")
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


class _Span(NamedTuple):
    """Pixels of a level along an axis: those that a change concerns, and those that its coarser levels follow from."""

    changed: tuple[int, int]
    needed: tuple[int, int]

    @property
    def within(self) -> slice:
        """Of the needed pixels, those that are changed."""
        return slice(self.changed[0] - self.needed[0], self.changed[1] - self.needed[0])


def _spans(sizes: list[int], start: int, stop: int) -> list[_Span]:
    """Per level, finest first, what a change of fine pixels start..stop concerns."""
    changed = [(start, stop)]
    for fine, coarse in pairwise(sizes):
        first, last = changed[-1]
        changed.append((first * coarse // fine, -(-last * coarse // fine)))
    needed = changed[-1:]
    for coarse, fine in pairwise(sizes[::-1]):
        first, last = needed[0]
        needed.insert(0, (first * fine // coarse, -(-last * fine // coarse)))
    return [_Span(*pair) for pair in zip(changed, needed, strict=True)]


def _shrink_image(
    values: npt.NDArray[Any], axis: int, sizes: tuple[int, int], first: int, wanted: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Means over the exact areas of coarse pixels ``wanted``, along an axis; ``values`` begin at fine pixel ``first``.

    No matrix product: few weights are not zero, and a threaded one keeps a core busy waiting for long after.
    """
    fine, coarse = sizes
    edges = np.arange(wanted[0], wanted[1] + 1) * (fine / coarse)
    low, high = edges[:-1], edges[1:]
    pixels = np.arange(wanted[0], wanted[1]) * fine // coarse
    total = np.zeros([len(pixels) if i == axis else size for i, size in enumerate(values.shape)], np.float32)
    for pixel in (pixels, pixels + 1, pixels + 2):
        weights = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) / (high - low)
        if weights.any():
            taken = values.take(np.minimum(pixel - first, values.shape[axis] - 1), axis)
            total += taken * np.expand_dims(weights.astype(np.float32), 1 - axis)
    return total


def _shrink_labels(
    values: npt.NDArray[Any], axis: int, sizes: tuple[int, int], first: int, wanted: tuple[int, int]
) -> npt.NDArray[Any]:
    """The labels at the centres of coarse pixels ``wanted``, along an axis."""
    return values.take(pixels_at_centres(*sizes, *wanted) - first, axis)


def pixels_at_centres(fine: int, coarse: int, start: int, stop: int) -> npt.NDArray[np.intp]:
    """Pixels of a grid of ``fine`` under the centres of pixels start..stop of one of ``coarse``, along an axis.

    Both cover the same length edge to edge; ``fine`` may as well be the smaller number.
    """
    return ((2 * np.arange(start, stop) + 1) * fine // (2 * coarse)).astype(np.intp)
