"""Outlines that a person drew on a slide: reading ASAP's XML, and filling outlines on a grid over the slide.

Positions are (y, x) in level-0 px, 0 being the slide's edge, as everywhere in this package. ASAP (Litjens et al.)
writes the same as X and Y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import defusedxml.ElementTree
import numpy as np
from defusedxml import DefusedXmlException

from napari_histodistill.slide.errors import AnnotationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

_AREAS: Final = ("polygon", "spline", "rectangle")


@dataclass(frozen=True)
class Outline:
    """A closed outline.

    Parameters
    ----------
    group : str
        Name of the group it belongs to, "None" where ASAP has none.
    points : float (n, 2)
        Corners as (y, x) in level-0 px; the last is joined to the first.
    """

    group: str
    points: NDArray[np.float64]


def read_asap(path: Path) -> tuple[Outline, ...]:
    """Outlines in an annotation file of ASAP, in its order.

    Polygons and rectangles are taken as they are, splines as the polygon through their points. What has no area (dots,
    measurements, outlines of fewer than three points) is left out. Entities and external references are refused.

    Raises
    ------
    AnnotationError
        The file is no ASAP annotation or is damaged.
    """
    try:
        root = defusedxml.ElementTree.parse(path).getroot()
    except (OSError, ValueError, SyntaxError, DefusedXmlException) as error:
        raise AnnotationError(f"{path} cannot be read as XML ({error}): get a complete copy of it.") from error
    if root is None or root.tag != "ASAP_Annotations":
        raise AnnotationError(f"{path} is XML but no annotation of ASAP: choose a file that ASAP wrote.")
    outlines = []
    for annotation in root.iter("Annotation"):
        if annotation.get("Type", "Polygon").lower() not in _AREAS:
            continue
        points = _points(path, annotation)
        if len(points) >= 3:
            outlines.append(Outline(annotation.get("PartOfGroup", "None"), points))
    return tuple(outlines)


def _points(path: Path, annotation: Element) -> NDArray[np.float64]:
    try:
        corners = sorted(
            (int(float(c.attrib["Order"])), float(c.attrib["Y"]), float(c.attrib["X"]))
            for c in annotation.iter("Coordinate")
        )
    except (KeyError, ValueError) as error:
        name = annotation.get("Name", "without a name")
        raise AnnotationError(f"{path}: the annotation {name} has a point without Order, X or Y: mend it.") from error
    points = np.array([(y, x) for _, y, x in corners], np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise AnnotationError(
            f"{path}: the annotation {annotation.get('Name')} has a point that is no number: mend it."
        )
    return points


def fill_outline(
    points: NDArray[np.float64],
    slide_shape: tuple[int, int],
    grid_shape: tuple[int, int],
    window: tuple[int, int, int, int],
) -> NDArray[np.bool_]:
    """Pixels of a window of a grid over the slide whose centres lie inside an outline.

    Even-odd rule, by the crossings of each row of centres; a centre on the outline belongs to what lies right of and
    below it, so that outlines that share an edge share no pixel. Time follows the rows that the outline's edges cross
    in the window, not corners times pixels.

    Parameters
    ----------
    points : float (n, 2)
        Corners as (y, x) in level-0 px.
    slide_shape, grid_shape : (height, width)
        Of level 0 and of the grid that covers the slide edge to edge.
    window : (y, x, height, width)
        In px of the grid; it may reach beyond it.

    Returns
    -------
    bool (height, width)
    """
    top, left, height, width = window
    ratio = np.array(grid_shape) / np.array(slide_shape)
    y, x = (points * ratio - (top + 0.5, left + 0.5)).T  # so that the centre of pixel i is at i
    y_next, x_next = np.roll(y, -1), np.roll(x, -1)
    first, last = np.ceil(np.minimum(y, y_next)), np.ceil(np.maximum(y, y_next))
    first, last = (np.clip(side, 0, height).astype(np.intp) for side in (first, last))
    crossed = last - first
    edge = np.repeat(np.arange(len(y)), crossed)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed, crossed) + first[edge]
    along = (row - y[edge]) / (y_next - y)[edge]
    column = np.clip(np.ceil(x[edge] + along * (x_next - x)[edge]), 0, width).astype(np.intp)
    crossings = np.zeros((height, width + 1), np.int64)
    np.add.at(crossings, (row, column), 1)
    inside: NDArray[np.bool_] = np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
    return inside


def fill_outlines(
    outlines: Sequence[Outline],
    slide_shape: tuple[int, int],
    grid_shape: tuple[int, int],
    window: tuple[int, int, int, int],
) -> NDArray[np.bool_]:
    """Pixels inside any of the outlines, see `fill_outline`."""
    filled = np.zeros(window[2:], np.bool_)
    for outline in outlines:
        if _may_touch(outline, slide_shape, grid_shape, window):
            filled |= fill_outline(outline.points, slide_shape, grid_shape, window)
    return filled


def _may_touch(
    outline: Outline, slide_shape: tuple[int, int], grid_shape: tuple[int, int], window: tuple[int, int, int, int]
) -> bool:
    low, high = outline.points.min(0), outline.points.max(0)
    pixel = np.array(slide_shape) / np.array(grid_shape)
    corner, size = np.array(window[:2]), np.array(window[2:])
    return bool((high >= corner * pixel).all() and (low <= (corner + size) * pixel).all())
