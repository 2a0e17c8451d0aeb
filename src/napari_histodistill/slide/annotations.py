"""Outlines that a person drew on a slide: reading ASAP's XML, and filling outlines on a grid over the slide.

Positions are (y, x) in level-0 px, 0 being the slide's edge, as everywhere in this package. ASAP (Litjens et al.)
writes the same as X and Y. A file may come from anywhere: entities and external references are refused, and no tree
is kept in memory.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from napari_histodistill.slide.errors import AnnotationError
from napari_histodistill.slide.filling import Polygon

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

TUMOUR_GROUPS: Final = frozenset({"tumor", "tumour", "metastases", "_0", "_1"})
"""ASAP groups, in small letters, whose outlines are tumour; ``_0``, ``_1`` and ``metastases`` are CAMELYON's."""
CUT_OUT_GROUPS: Final = frozenset({"exclude", "exclusion", "_2"})
"""ASAP groups, in small letters, cut out of others; ``_2`` is CAMELYON's, ``Exclude`` what this package writes."""
NO_GROUP: Final = "None"

LARGEST_FILE: Final = 1 << 29
"""Bytes."""
_DEEPEST: Final = 32
_LONGEST_NAME: Final = 100
_PIECE: Final = 1 << 16
MOST_OUTLINES: Final = 2_000_000
LONGEST_TAG: Final = 1 << 20
"""Bytes between two tags, and of one: the parser keeps that many, and more in the attributes of a tag."""
_AREAS: Final = frozenset({"polygon", "spline", "rectangle"})


@dataclass(frozen=True)
class Outline:
    """An annotation: a closed outline, or what has no area.

    Parameters
    ----------
    group : str
        Name of the group it belongs to, "None" where ASAP has none; no longer than 100 characters.
    points : float (n, 2)
        Corners as (y, x) in level-0 px; the last is joined to the first. None for dots and measurements.
    """

    group: str
    points: NDArray[np.float64]

    @property
    def has_area(self) -> bool:
        """Whether it has the three points that an area needs."""
        return len(self.points) > 2


def read_asap(path: Path) -> tuple[Outline, ...]:
    """Annotations in a file of ASAP, in its order.

    Polygons and rectangles are taken as they are, splines as the polygon through their points.

    Raises
    ------
    AnnotationError
        The file is no ASAP annotation, is damaged or too large, or holds what such a file has no use for.
    """
    target = _Target()
    parser = DefusedXMLParser(target=target, forbid_dtd=True)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise AnnotationError(f"{path} has more than {LARGEST_FILE >> 20} MB: split it.")
        with path.open("rb") as file:
            fed = 0
            while piece := file.read(_PIECE):
                tags = target.tags
                parser.feed(piece)
                fed = fed + len(piece) if target.tags == tags else 0
                if fed > LONGEST_TAG:
                    raise ValueError("a tag, or what lies between two, is absurdly long")
        parser.close()
    except DefusedXmlException as error:
        raise AnnotationError(
            f"{path} declares entities or refers to other files, which annotations never need: export it anew."
        ) from error
    except (ParseError, ValueError, LookupError, MemoryError) as error:
        raise AnnotationError(f"{path} is no ASAP XML that can be read ({error}): export it anew.") from error
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read ({error.strerror}): check the name and the disk.") from error
    return tuple(target.outlines)


class _Target:
    """Takes what the parser finds; keeps nothing but points."""

    def __init__(self) -> None:
        self.outlines: list[Outline] = []
        self.tags = 0
        self._depth = 0
        self._group, self._name, self._is_area = NO_GROUP, "", False
        self._points = array("d")  # 24 bytes a point, where tuples take six times as much

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.tags += 1
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        if self._depth == 1 and tag != "ASAP_Annotations":
            raise ValueError("it does not begin with ASAP_Annotations")
        if tag == "Annotation":
            self._group = attributes.get("PartOfGroup", NO_GROUP)[:_LONGEST_NAME]
            self._name = attributes.get("Name", "without a name")[:_LONGEST_NAME]
            self._is_area, self._points = attributes.get("Type", "Polygon").lower() in _AREAS, array("d")
        elif tag == "Coordinate" and self._is_area:
            try:
                order, y, x = (float(attributes[name]) for name in ("Order", "Y", "X"))
            except KeyError as error:
                raise ValueError(f"a point of the annotation {self._name} has no {error}") from error
            if not math.isfinite(order + y + x):
                raise ValueError(f"a point of the annotation {self._name} is no number")
            self._points.extend((order, y, x))

    def end(self, tag: str) -> None:
        self._depth -= 1
        if tag == "Annotation":
            if len(self.outlines) == MOST_OUTLINES:
                raise ValueError(f"it has more than {MOST_OUTLINES // 10**6} million annotations")
            points = np.array(self._points, np.float64).reshape(-1, 3)
            self.outlines.append(Outline(self._group, points[np.argsort(points[:, 0], kind="stable"), 1:]))
            self._points = array("d")

    def close(self) -> None:
        """Nothing is left to do."""


def fill_outlines(
    outlines: Iterable[Outline],
    slide_shape: tuple[int, int],
    grid_shape: tuple[int, int],
    window: tuple[int, int, int, int],
) -> NDArray[np.bool_]:
    """Pixels of a window of a grid over the slide whose centres lie inside any of the outlines, see `Polygon`.

    Parameters
    ----------
    outlines : iterable of Outline
    slide_shape, grid_shape : (height, width)
        Of level 0 and of the grid that covers the slide edge to edge.
    window : (y, x, height, width)
        In px of the grid; it may reach beyond it.

    Returns
    -------
    bool (height, width)
    """
    y, x, height, width = window
    ratio = np.array(grid_shape) / np.array(slide_shape)
    filled = np.zeros((height, width), np.bool_)
    for outline in outlines:
        for top, left, inside in Polygon([outline.points * ratio - (y, x)], (height, width)).blocks():
            filled[top : top + inside.shape[0], left : left + inside.shape[1]] |= inside
    return filled
