"""A mask as GeoJSON annotations that QuPath imports in place; polygons are written as they are found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_histodistill.export.outlines import TOLERANCE, Tracer
from napari_histodistill.export.provenance import KEY
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from napari_histodistill.export.outlines import Points, Region
    from napari_histodistill.export.source import Place, Source

CLASSES: Final = {
    TUMOUR: ("Tumor", (200, 0, 0)),
    IGNORE: ("Ignore*", (180, 180, 180)),
    NORMAL: ("Normal", (80, 160, 80)),
    OUTSIDE: ("Outside*", (225, 225, 225)),
}
"""Mask value to QuPath's class name and colour; a star marks classes that QuPath leaves out of its counts."""


def write_geojson(source: Source, path: Path, tolerance_um: float | None = None) -> None:
    """Write one annotation per connected area.

    Of a pseudo-mask or prediction tumour and what is ignored are outlined, of corrections every value. Coordinates are
    level-0 px, counted from the scanned area as QuPath does.

    Parameters
    ----------
    tolerance_um : float, optional
        Lines may miss the mask's outline by this much; by default 0.3 px of the mask, at which rasterising gives the
        very mask back, and never less.
    """
    offset = np.array(source.place.origin)
    with path.open("w", encoding="ascii") as file:
        file.write('{"type": "FeatureCollection",\n')
        file.write(f'"{KEY}": {source.provenance.to_json()},\n"features": [')
        for number, (value, region) in enumerate(outlined(source, tolerance_um)):
            feature = json.dumps(_feature(source.place, offset, value, region), separators=(",", ":"))
            file.write(("," if number else "") + "\n" + feature)
        file.write("\n]}\n")


def outlined(source: Source, tolerance_um: float | None = None) -> Iterator[tuple[int, Region]]:
    """(value, region) of the classes that a source is outlined in, in one pass over its strips."""
    values = tuple(CLASSES) if source.what == "corrections" else (TUMOUR, IGNORE)
    tolerance = TOLERANCE if tolerance_um is None else tolerance_um / min(source.place.pixel_um)
    tracers = {value: Tracer(source.place.shape[1], tolerance) for value in values}
    for _, mask, probability in source.with_probability():
        for value, tracer in tracers.items():
            yield from ((value, region) for region in tracer.feed(mask == value, probability))
    for value, tracer in tracers.items():
        yield from ((value, region) for region in tracer.finish())


def measures(place: Place, region: Region) -> dict[str, float]:
    """Area in µm² (of its pixels), perimeter in µm (of its outline with its holes) and mean probability of a region."""
    lengths = [np.hypot(*(np.diff(ring, axis=0) * place.pixel_um).T).sum() for ring in (region.outer, *region.holes)]
    found = {
        "Area µm^2": round(region.pixels * place.pixel_um[0] * place.pixel_um[1], 3),
        "Perimeter µm": round(float(sum(lengths)), 3),
    }
    if region.mean_probability is not None:
        found["Mean probability"] = round(float(region.mean_probability), 4)
    return found


def _feature(place: Place, offset: Any, value: int, region: Region) -> dict[str, Any]:
    name, colour = CLASSES[value]
    rings = [_coordinates(place.to_level0(ring) - offset) for ring in (region.outer, *region.holes)]
    properties = {
        "objectType": "annotation",
        "classification": {"name": name, "color": colour},
        "measurements": measures(place, region),
    }
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": rings}, "properties": properties}


def _coordinates(level0: Points) -> list[list[float]]:
    """A ring of (y, x) as [x, y], to a hundredth of a pixel."""
    rounded: list[list[float]] = np.round(level0[:, ::-1], 2).tolist()
    return rounded
