"""OME-Zarr images (0.1 to 0.5, zarr v2 and v3) as slides: first time and depth, one channel or three."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_histodistill.errors import reason
from napari_histodistill.slide.errors import DAMAGED, RegionError, SlideError
from napari_histodistill.slide.metadata import SlideMetadata, micrometres
from napari_histodistill.slide.sources import SourceLevel
from napari_histodistill.slide.sources.pixels import grey_to_rgb, scale_to_8bit, white_level
from napari_histodistill.urls import UrlError, UrlPath, told

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray

    from napari_histodistill.slide.zarr_guard import GuardedStore

_OLD_AXES: Final = ("t", "c", "z", "y", "x")
_TILE: Final = 512
_LARGEST_TILE: Final = 2048
_SAMPLE_SIDE: Final = 1024
_MOST_LEVELS: Final = 32


class OmeZarrSource:
    """Stored levels of an OME-Zarr image group.

    Raises
    ------
    SlideError
        The folder is no OME-Zarr image.
    """

    def __init__(self, path: Path) -> None:
        # The libraries of object stores raise errors of their own that share no base class.
        self._failures = (Exception,) if isinstance(path, UrlPath) else DAMAGED
        try:
            self._open(path)
        except DAMAGED as error:
            raise SlideError(
                f"{path.name} is a damaged OME-Zarr ({reason(error)}): get a complete copy of it, or convert it anew."
            ) from error

    def _open(self, path: Path) -> None:
        group, store, attributes, notes = _open_image(path)
        multiscale = attributes["multiscales"][0]
        self._axes = tuple(
            axis if isinstance(axis, str) else axis["name"] for axis in multiscale.get("axes", _OLD_AXES)
        )
        datasets = multiscale["datasets"][:_MOST_LEVELS]
        self._arrays = [_array(path, group, store, dataset["path"]) for dataset in datasets]
        if not {"y", "x"} <= set(self._axes) or any(array.ndim != len(self._axes) for array in self._arrays):
            raise SlideError(f"{path.name} has axes that are not those of an image: choose an image with y and x.")
        self.levels = tuple(self._level(array) for array in self._arrays)
        self._channels, channel_notes = self._pick_channels()
        self._white = self._settle_white(attributes.get("omero"))
        self.format = "ome-zarr"
        self.metadata = SlideMetadata(raw_mpp=_pixel_size(multiscale), vendor=None)
        self.icc_profile: bytes | None = None
        self.warnings = (*notes, *channel_notes)

    def _level(self, array: zarr.Array[Any]) -> SourceLevel:
        y, x = self._axes.index("y"), self._axes.index("x")
        tile = (int(array.chunks[y]), int(array.chunks[x]))
        return SourceLevel(
            (int(array.shape[y]), int(array.shape[x])), tile if max(tile) <= _LARGEST_TILE else (_TILE, _TILE)
        )

    def _pick_channels(self) -> tuple[int, list[str]]:
        sizes = dict(zip(self._axes, self._arrays[0].shape, strict=True))
        names = {"t": "time", "z": "depth"}
        notes = [
            f"Only the first {names.get(axis, axis)} of the image is shown."
            for axis, size in sizes.items()
            if axis not in {"c", "y", "x"} and size > 1
        ]
        count = int(sizes.get("c", 1))
        if count == 1:
            return 1, [*notes, "Grey image, shown as RGB."]
        if count == 2:
            return 1, [*notes, "Only the first channel of the image is shown, in grey."]
        if count > 3:
            notes.append(f"Only the first 3 of {count} channels are shown, as red, green and blue.")
        return 3, notes

    def _settle_white(self, omero: Mapping[str, Any] | None) -> float:
        """Full brightness: 255 for bytes, else the display window of the file, else what the samples use."""
        if self._arrays[0].dtype == np.uint8:
            return 255.0
        ends = [channel.get("window", {}).get("max") for channel in (omero or {}).get("channels", [])]
        if ends and all(end for end in ends[: self._channels]):
            return float(max(ends[: self._channels]))
        height, width = self.levels[-1].shape
        top, left = max(0, (height - _SAMPLE_SIDE) // 2), max(0, (width - _SAMPLE_SIDE) // 2)
        return white_level(
            self._samples(len(self.levels) - 1, slice(top, top + _SAMPLE_SIDE), slice(left, left + _SAMPLE_SIDE))
        )

    def read_tile(self, level: int, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of one tile; see `Source`."""
        height, width = self.levels[level].tile
        rows, cols = slice(row * height, (row + 1) * height), slice(col * width, (col + 1) * width)
        try:
            samples = self._samples(level, rows, cols)
        except self._failures as error:
            raise RegionError(str(error)) from error
        eight = scale_to_8bit(samples, self._white)
        return grey_to_rgb(eight[..., 0]) if self._channels == 1 else eight

    def _samples(self, level: int, rows: slice, cols: slice) -> NDArray[Any]:
        """A window of a level as (y, x, c)."""
        picks = {"y": rows, "x": cols, "c": slice(self._channels)}
        block = np.asarray(self._arrays[level][tuple(picks.get(axis, 0) for axis in self._axes)])
        kept = [axis for axis in self._axes if axis in picks]
        if "c" not in kept:
            block, kept = block[..., None], [*kept, "c"]
        return block.transpose([kept.index(axis) for axis in ("y", "x", "c")])

    def associated_images(self) -> tuple[str, ...]:
        """No pictures beside the pyramid."""
        return ()

    def associated_image(self, name: str) -> NDArray[np.uint8]:
        """Refuse: there are none."""
        raise KeyError(name)

    def close(self) -> None:
        """Nothing is held open."""


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr group or array of any version."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs", ".zarray"))


def _open_image(path: Path) -> tuple[zarr.Group, GuardedStore, Mapping[str, Any], list[str]]:
    """Group and OME attributes of the image in a folder, or of the first one of a bioformats2raw collection."""
    group, store = _open_group(path)
    attributes = _ome_attributes(group)
    if "multiscales" in attributes:
        return group, store, attributes, []
    if "plate" in attributes:
        raise SlideError(f"{path.name} is a plate of many images: choose one image inside it, such as A/1/0.")
    if "bioformats2raw.layout" in attributes and "0" in group:
        first, store = _open_group(path / "0")
        notes = ["The folder holds several images; the first one is shown."] if "1" in group else []
        if "multiscales" in _ome_attributes(first):
            return first, store, _ome_attributes(first), notes
    raise SlideError(f"{path.name} is a Zarr folder without OME-Zarr image metadata: choose an OME-Zarr image.")


def _open_group(path: Path) -> tuple[zarr.Group, GuardedStore]:
    from napari_histodistill.slide.bounded import ChunkError
    from napari_histodistill.slide.zarr_guard import open_guarded

    try:
        with told(path) if isinstance(path, UrlPath) else nullcontext():
            return open_guarded(path)
    except ChunkError:
        raise
    except UrlError as error:
        raise SlideError(str(error)) from error
    except DAMAGED as error:
        if isinstance(path, UrlPath) and isinstance(error, FileNotFoundError):
            raise SlideError(
                f"{path} holds no OME-Zarr: check the address; other slides are read from a disk only."
            ) from error
        raise SlideError(f"{path.name} is a Zarr array or damaged: choose an OME-Zarr image group.") from error


def _ome_attributes(group: zarr.Group) -> Mapping[str, Any]:
    attributes = dict(group.attrs)
    nested = attributes.get("ome")
    return nested if isinstance(nested, dict) else attributes


def _array(path: Path, group: zarr.Group, store: GuardedStore, name: str) -> zarr.Array[Any]:
    from napari_histodistill.slide.bounded import ChunkError

    try:
        return store.array(group, name)
    except DAMAGED as error:
        why = f" ({reason(error)})" if isinstance(error, ChunkError) else ""
        raise SlideError(
            f"{path.name} is damaged: its level {reason(name)} cannot be opened{why}; get a complete copy of it."
        ) from error


def _pixel_size(multiscale: Mapping[str, Any]) -> tuple[float, float] | None:
    """(y, x) in µm of level 0 from axes with units and the scales of the level and of the image."""
    axes = [axis for axis in multiscale.get("axes", []) if isinstance(axis, dict)]
    sides = []
    for wanted in ("y", "x"):
        index = next((number for number, axis in enumerate(axes) if axis.get("name") == wanted), None)
        unit = None if index is None else micrometres(str(axes[index].get("unit", "")))
        if index is None or unit is None:
            return None
        sides.append(unit * _scale(multiscale["datasets"][0], index) * _scale(multiscale, index))
    return sides[0], sides[1]


def _scale(holder: Mapping[str, Any], axis: int) -> float:
    steps = [step["scale"] for step in holder.get("coordinateTransformations", []) if step.get("type") == "scale"]
    return float(np.prod([float(step[axis]) for step in steps]))
