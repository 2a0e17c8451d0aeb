"""The corrected pseudo-mask as GeoJSON annotations that QuPath imports in place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.export.outlines import polygons
from napari_histodistill.slide.labels import IGNORE, TUMOUR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from napari_histodistill.export.outlines import Points, Polygon
    from napari_histodistill.study import StudySlide

CLASSES = {TUMOUR: ("Tumor", [200, 0, 0]), IGNORE: ("Ignore*", [180, 180, 180])}
"""Mask value to QuPath's class name and colour."""


def write_geojson(entry: StudySlide, path: Path) -> None:
    """Write one annotation per connected area of tumour and of what is ignored.

    Coordinates are level-0 px, counted from the scanned area as QuPath does; normal tissue is not outlined.
    """
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(_features(entry)):
            file.write(("," if number else "") + "\n" + json.dumps(feature, separators=(",", ":")))
        file.write("\n]}\n")


def _features(entry: StudySlide) -> Iterator[dict[str, Any]]:
    for value, (name, colour) in CLASSES.items():
        strips = (strip == value for _, strip in entry.mask_blocks())
        properties = {"objectType": "annotation", "classification": {"name": name, "color": colour}}
        for polygon in polygons(strips, entry.grid.shape[1]):
            yield {"type": "Feature", "geometry": _geometry(entry, polygon), "properties": properties}


def _geometry(entry: StudySlide, polygon: Polygon) -> dict[str, Any]:
    rings = [_coordinates(entry, ring) for ring in [polygon.outer, *polygon.holes]]
    return {"type": "Polygon", "coordinates": rings}


def _coordinates(entry: StudySlide, ring: Points) -> list[list[float]]:
    """A ring of (y, x) on the working grid as [x, y] in level-0 px, to a hundredth."""
    level0 = ring * (np.array(entry.grid.slide_shape) / entry.grid.shape) - entry.origin
    rounded: list[list[float]] = np.round(level0[:, ::-1], 2).tolist()
    return rounded
