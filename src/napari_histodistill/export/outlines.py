"""Outlines of a mask as polygons with holes, from strips of rows: memory follows the length of the outlines.

The borders between pixels are followed with the inside on the right, pixels that touch at a corner only being apart
(4-connectivity), and corners are cut half a pixel from the tip. That is the contour of marching squares at one half:
straight outer edges lie on the pixels' edges, and rings never touch or cross. Points that a line misses by less than
`TOLERANCE` are dropped; rings are at least 0.7 px apart, so they stay apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from skimage.measure import approximate_polygon

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    Points = npt.NDArray[np.float64]
    Codes = npt.NDArray[np.int64]

TOLERANCE = 0.3
"""In px; less than half the smallest distance between two rings."""

EAST, SOUTH, WEST, NORTH = range(4)


@dataclass
class Polygon:
    """A connected part of a mask.

    Parameters
    ----------
    outer : float (n, 2)
        Ring of (y, x) in px of the mask, 0 being the outer edge of pixel 0; the last point equals the first.
    holes : list of float (n, 2)
    """

    outer: Points
    holes: list[Points] = field(default_factory=list)


def polygons(strips: Iterable[npt.NDArray[np.bool_]], width: int) -> list[Polygon]:
    """Connected parts of a mask that comes in strips of rows from the top.

    Parameters
    ----------
    strips : iterable of bool (h, width)

    Returns
    -------
    list of Polygon
        By position of their first edge. Takes about 250 bytes per px of outline while it runs.
    """
    stride = width + 1
    edges = _edges(strips, width)
    if not len(edges):
        return []
    rings, ring_of, leftmost = _follow(edges, _successors(edges, stride), stride)
    parents = _parents(edges, ring_of, leftmost, stride)
    found = {number: Polygon(_smooth(ring)) for number, ring in enumerate(rings) if parents[number] == number}
    for number, ring in enumerate(rings):
        if parents[number] != number:
            found[parents[number]].holes.append(_smooth(ring))
    return list(found.values())


def _edges(strips: Iterable[npt.NDArray[np.bool_]], width: int) -> Codes:
    """Borders of unit length, sorted; each as 4 x (vertex it starts from) + direction, vertex = y (width + 1) + x."""
    stride = width + 1
    above = np.zeros(width, np.int8)
    parts: list[Codes] = []
    y = 0

    def add(rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], direction: int) -> None:
        parts.append(4 * ((y + rows) * stride + columns) + direction)

    for strip in strips:
        inside = strip.astype(np.int8)
        across = np.diff(inside, axis=1, prepend=0, append=0)
        down = np.diff(inside, axis=0, prepend=above[None])
        rows, columns = np.nonzero(across > 0)
        add(rows + 1, columns, NORTH)
        rows, columns = np.nonzero(across < 0)
        add(rows, columns, SOUTH)
        rows, columns = np.nonzero(down > 0)
        add(rows, columns, EAST)
        rows, columns = np.nonzero(down < 0)
        add(rows, columns + 1, WEST)
        above = inside[-1]
        y += len(strip)
    columns = np.flatnonzero(above)
    add(np.zeros_like(columns), columns + 1, WEST)
    return np.sort(np.concatenate(parts))


def _successors(edges: Codes, stride: int) -> npt.NDArray[np.intp]:
    """Index of the edge that goes on from each edge's end: to the right where there is a choice."""
    direction = edges % 4
    ends = edges // 4 + np.array([1, stride, -1, -stride])[direction]
    right = 4 * ends + (direction + 1) % 4
    place = np.searchsorted(edges, right)
    turns_right = edges[np.minimum(place, len(edges) - 1)] == right
    successors: npt.NDArray[np.intp] = np.where(turns_right, place, np.searchsorted(edges, 4 * ends))
    return successors


def _follow(
    edges: Codes, successors: npt.NDArray[np.intp], stride: int
) -> tuple[list[Points], npt.NDArray[np.int32], list[int]]:
    """Rings of corners, the ring that each edge belongs to, and each ring's leftmost edge that heads south.

    Outer rings have none of interest and get -1: their inside is to the west of every edge that heads south.
    """
    following = successors.tolist()
    heading = (edges % 4).astype(np.int8).tolist()
    ring_of = np.full(len(edges), -1, np.int32)
    members: list[npt.NDArray[np.intp]] = []
    seen = bytearray(len(edges))
    for first in range(len(edges)):
        if seen[first]:
            continue
        walk, edge = [], first
        while not seen[edge]:
            seen[edge] = 1
            walk.append(edge)
            edge = following[edge]
        members.append(np.array(walk))
        ring_of[members[-1]] = len(members) - 1
    directions = np.array(heading, np.int8)
    rings, leftmost = [], []
    for walk_ in members:
        heads = directions[walk_]
        corners = edges[walk_[heads != np.roll(heads, 1)]] // 4
        ring = np.column_stack([corners // stride, corners % stride]).astype(np.float64)
        rings.append(ring)
        south = walk_[heads == SOUTH]
        columns = edges[south] // 4 % stride
        leftmost.append(-1 if _area(ring) > 0 else int(south[np.argmin(columns)]))
    return rings, ring_of, leftmost


def _area(ring: Points) -> float:
    """Signed area of an open ring of (y, x); positive where it runs clockwise on the screen."""
    y, x = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2


def _parents(edges: Codes, ring_of: npt.NDArray[np.int32], leftmost: list[int], stride: int) -> list[int]:
    """The outer ring around each ring; its own number for an outer one.

    West of a hole's leftmost edge that heads south lies the inside, and where that began is an edge that heads north:
    of the outer ring, or of another hole further west that has the same outer ring (Suzuki and Abe 1985).
    """
    north = np.flatnonzero(edges % 4 == NORTH)
    pixels = edges[north] // 4 - stride  # of the inside that begins there: row y - 1, column x
    order = np.argsort(pixels)
    north, pixels = north[order], pixels[order]
    parents = [number if edge < 0 else -1 for number, edge in enumerate(leftmost)]
    west = [-1] * len(leftmost)
    for number, edge in enumerate(leftmost):
        if edge >= 0:
            west[number] = int(ring_of[north[np.searchsorted(pixels, edges[edge] // 4) - 1]])
    for number in range(len(parents)):
        chain = [number]
        while parents[chain[-1]] < 0:
            chain.append(west[chain[-1]])
        for link in chain:
            parents[link] = parents[chain[-1]]
    return parents


def _smooth(ring: Points) -> Points:
    """Cut the corners of a ring half a pixel from the tip, drop points that lines miss by little, and close it."""
    to_next = np.roll(ring, -1, axis=0) - ring
    length = np.abs(to_next).sum(axis=1, keepdims=True)
    step = to_next / length / 2
    cut = np.empty((2 * len(ring), 2))
    cut[0::2] = ring + step
    cut[1::2] = ring + to_next - step
    cut = cut[np.abs(cut - np.roll(cut, 1, axis=0)).sum(axis=1) > 0]  # two cuts meet in the middle of a unit edge
    closed = np.concatenate([cut, cut[:1]])
    return np.asarray(approximate_polygon(closed, TOLERANCE))
