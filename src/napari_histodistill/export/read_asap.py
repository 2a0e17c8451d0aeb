"""Annotations of an ASAP XML file, without entities, external references or a tree in memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import shapely
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from napari_histodistill.export.asap import EXCLUDE
from napari_histodistill.export.rasterise import ImportFileError
from napari_histodistill.export.read_geojson import UNCLASSIFIED, Shape

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.export.read_geojson import Points

LARGEST_FILE: Final = 1 << 29
"""Bytes."""
DEEPEST: Final = 32
_PIECE: Final = 1 << 16
_AREAS: Final = {"Polygon", "Rectangle", "Spline"}
_CUT_OUT: Final = {EXCLUDE.lower(), "exclusion", "_2"}
"""Groups that are cut out of others, in lower case; ``_2`` is CAMELYON's."""


def read_asap(path: Path) -> list[Shape]:
    """Shapes of an ASAP file, largest first, named by their groups, in level-0 px from the corner of the slide.

    ASAP's polygons have no holes. One of a group that is cut out becomes a hole of the polygon before it if it lies
    there, else of the smallest around it. What lies within another is drawn after it, so it must come later.

    Raises
    ------
    ImportFileError
        If the file is no ASAP XML, too large, or holds what such a file has no use for.
    """
    target = _Target()
    parser = DefusedXMLParser(target=target, forbid_dtd=True)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ImportFileError(f"{path.name} has more than {LARGEST_FILE >> 20} MB: split it.")
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                parser.feed(piece)
        parser.close()
    except DefusedXmlException as error:
        raise ImportFileError(
            f"{path.name} declares entities or refers to other files, which annotations never need: export it anew."
        ) from error
    except (ParseError, ValueError) as error:
        raise ImportFileError(f"{path.name} is no ASAP XML that can be read ({error}): export it anew.") from error
    except OSError as error:
        raise ImportFileError(f"{path.name} cannot be read ({error.strerror}): check the disk.") from error
    return sorted(_with_holes(target.shapes), key=_area, reverse=True)


def _with_holes(shapes: list[Shape]) -> list[Shape]:
    """Give what is cut out to the polygons that it is cut out of."""
    kept: list[Shape] = []
    astray: list[Shape] = []
    for shape in shapes:
        if shape.name.lower() not in _CUT_OUT:
            kept.append(shape)
        elif kept and kept[-1].rings and shape.rings and _lies_in(shape.rings[0], kept[-1].rings[0]):
            kept[-1].rings.append(shape.rings[0])
        else:
            astray.append(shape)
    _settle(astray, [shape for shape in kept if shape.rings and len(shape.rings[0]) > 2])
    return kept


def _lies_in(inner: Points, outer: Points) -> bool:
    """Whether a ring lies within the box around another."""
    return bool(len(inner) and (inner.min(0) >= outer.min(0)).all() and (inner.max(0) <= outer.max(0)).all())


def _settle(astray: list[Shape], around: list[Shape]) -> None:
    """Make shapes holes of the smallest larger polygon around their first point; one that has none means nothing."""
    holes = [shape.rings[0] for shape in astray if shape.rings and len(shape.rings[0]) > 2]
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


class _Target:
    """Takes what the parser finds; keeps nothing but points."""

    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self._depth = 0
        self._group, self._is_area = UNCLASSIFIED, False
        self._points: list[tuple[float, float, float]] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        if self._depth == 1 and tag != "ASAP_Annotations":
            raise ValueError("it does not begin with ASAP_Annotations")
        if tag == "Annotation":
            group = attributes.get("PartOfGroup", "None")
            self._group = UNCLASSIFIED if group == "None" else group[:100]
            self._is_area, self._points = attributes.get("Type") in _AREAS, []
        elif tag == "Coordinate" and self._is_area:
            try:
                order, y, x = (float(attributes[name]) for name in ("Order", "Y", "X"))
            except KeyError as error:
                raise ValueError(f"a coordinate has no {error}") from error
            if not math.isfinite(order + y + x):
                raise ValueError("a coordinate is no number")
            self._points.append((order, y, x))

    def end(self, tag: str) -> None:
        self._depth -= 1
        if tag == "Annotation":
            points = np.array(self._points, dtype=np.float64).reshape(-1, 3)
            ring = points[np.argsort(points[:, 0], kind="stable"), 1:]
            self.shapes.append(Shape(self._group, [ring] if self._is_area else []))
            self._points = []

    def close(self) -> None:
        """Nothing is left to do."""


def _area(shape: Shape) -> float:
    if not shape.rings:
        return 0.0
    y, x = shape.rings[0].T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y))) / 2
