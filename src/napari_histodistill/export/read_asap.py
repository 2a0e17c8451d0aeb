"""Annotations of an ASAP XML file as polygons with holes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from napari_histodistill.export.read_geojson import UNCLASSIFIED, Shape
from napari_histodistill.slide.annotations import CUT_OUT_GROUPS, NO_GROUP, Outline, read_asap

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_histodistill.export.read_geojson import Points


def read_asap_shapes(path: Path) -> list[Shape]:
    """Shapes of an ASAP file, largest first, named by their groups, in level-0 px from the corner of the slide.

    ASAP's polygons have no holes. One of a group that is cut out becomes a hole of the polygon before it if it lies
    there, else of the smallest around it. What lies within another is drawn after it, so it must come later.

    Raises
    ------
    AnnotationError
        As `read_asap`.
    """
    return sorted(_with_holes(read_asap(path)), key=_area, reverse=True)


def _shape(outline: Outline) -> Shape:
    name = UNCLASSIFIED if outline.group == NO_GROUP else outline.group
    return Shape(name, [outline.points] if outline.has_area else [])


def _with_holes(outlines: Iterable[Outline]) -> list[Shape]:
    """Give what is cut out to the polygons that it is cut out of."""
    kept: list[Shape] = []
    astray: list[Shape] = []
    for shape in map(_shape, outlines):
        if shape.name.lower() not in CUT_OUT_GROUPS:
            kept.append(shape)
        elif kept and kept[-1].rings and shape.rings and _lies_in(shape.rings[0], kept[-1].rings[0]):
            kept[-1].rings.append(shape.rings[0])
        else:
            astray.append(shape)
    _settle([shape.rings[0] for shape in astray if shape.rings], [shape for shape in kept if shape.rings])
    return kept


def _lies_in(inner: Points, outer: Points) -> bool:
    """Whether a ring lies within the box around another."""
    return bool((inner.min(0) >= outer.min(0)).all() and (inner.max(0) <= outer.max(0)).all())


def _settle(holes: list[Points], around: list[Shape]) -> None:
    """Give rings to the smallest larger polygon around their first point; one that has none means nothing."""
    if not holes or not around:
        return
    tree = shapely.STRtree([shapely.Polygon(shape.rings[0]) for shape in around])
    areas = np.array([_area(shape) for shape in around])
    hole_of, polygon_of = tree.query([shapely.Point(ring[0]) for ring in holes], predicate="intersects")
    for number, ring in enumerate(holes):
        found = polygon_of[hole_of == number]
        found = found[areas[found] > _area(Shape("", [ring]))]
        if len(found):
            around[found[np.argmin(areas[found])]].rings.append(ring)


def _area(shape: Shape) -> float:
    if not shape.rings:
        return 0.0
    y, x = shape.rings[0].T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y))) / 2
