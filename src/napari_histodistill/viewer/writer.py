"""Saving a mask that napari shows: through its own dialog, with its place on the slide and what made it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.export import KEY, WHAT, ExportError, Place, Provenance, Source, export_source
from napari_histodistill.study import NO_CORRECTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt


def write_ome_tiff(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a mask's layer as OME-TIFF."""
    return _write(path, data, meta, "ome-tiff")


def write_ome_zarr(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a mask's layer as OME-Zarr labels."""
    return _write(path, data, meta, "ome-zarr")


def write_geojson(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a mask's layer as outlines for QuPath."""
    return _write(path, data, meta, "geojson")


def write_png(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a mask's layer as a PNG of its values."""
    return _write(path, data, meta, "png")


def _write(path: str, data: Any, meta: Mapping[str, Any], format_: str) -> list[str]:
    source = layer_source(data, meta)
    return [str(written) for written in export_source(source, [format_], Path(path), Path(path).stem).values()]


def layer_source(data: Any, meta: Mapping[str, Any]) -> Source:
    """A layer's mask, ready to leave.

    Parameters
    ----------
    data, meta
        As in napari's layer data: the labels, and the layer's settings. Its metadata must hold a provenance, as
        those of the pseudo-mask and of its copies do.

    Raises
    ------
    ExportError
        If it is no mask of this plugin's.
    """
    said = meta.get("metadata", {}).get(KEY)
    labels = np.asarray(data)
    values = {0, 1, 2, 3, NO_CORRECTION}
    if not isinstance(said, dict) or said.get("what") not in WHAT or labels.ndim != 2 or labels.dtype != np.uint8:
        raise ExportError(
            "Only HistoDistill's pseudo-mask and its copies are saved like this: choose another format for this layer."
        )
    if not set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()) <= values:
        raise ExportError("The layer holds other values than 0 to 3: paint with those only, or choose another format.")
    made_by = Provenance.from_dict(said)
    pixel = (float(meta["scale"][-2]), float(meta["scale"][-1]))
    corner = tuple(float(at) - (p - m) / 2 for at, p, m in zip(meta["translate"][-2:], pixel, made_by.mpp, strict=True))
    place = Place(labels.shape, pixel, made_by.mpp, (corner[0], corner[1]), made_by.origin)
    return Source(made_by.what, place, lambda rows: _strips(labels, rows), replace(made_by, options={}))


def _strips(labels: npt.NDArray[np.uint8], rows: int) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    for y in range(0, len(labels), rows):
        yield y, labels[y : y + rows]
