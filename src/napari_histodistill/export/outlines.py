"""Outlines of a mask as polygons with holes, while the mask comes in strips of rows.

The borders between pixels are followed with the inside on the right, pixels that touch at a corner only being apart
(4-connectivity), and corners are cut half a pixel from the tip. That is the contour of marching squares at one half:
straight outer edges lie on the pixels' edges, and rings never touch or cross. Points that a line misses by less than a
tolerance are dropped; rings are at least 0.7 px apart, so up to `TOLERANCE` they stay apart and the centre of every
pixel stays on its side. Where a larger tolerance would make a ring touch itself or another of its polygon, that polygon
is drawn with a smaller one.

An outline that a strip cuts is an open chain that the next strip goes on with, so there are no seams. A polygon is
given out as soon as no pixel of it can follow: memory is what is still open, not all polygons.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import shapely
from scipy import ndimage, sparse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    Points = npt.NDArray[np.float64]
    Codes = npt.NDArray[np.int64]
    Bool = npt.NDArray[np.bool_]
    UInt8 = npt.NDArray[np.uint8]
    Indices = npt.NDArray[np.intp]

Number = TypeVar("Number", bound=np.generic)

TOLERANCE = 0.3
"""In px; less than half the smallest distance between two rings, and than that from a pixel's centre to a ring."""

EAST, SOUTH, WEST, NORTH = range(4)


@dataclass
class Region:
    """A connected part of a mask.

    Parameters
    ----------
    outer : float (n, 2)
        Ring of (y, x) in px of the mask, 0 being the outer edge of pixel 0; the last point equals the first.
    holes : list of float (n, 2)
    pixels : int
        How many it holds.
    centroid : (float, float)
        Mean position (y, x) of its pixels, in px.
    mean_probability : float or None
        From 0 to 1.
    """

    outer: Points
    holes: list[Points]
    pixels: int
    centroid: tuple[float, float]
    mean_probability: float | None


def regions(strips: Iterable[tuple[Bool, UInt8 | None]], width: int, tolerance: float = TOLERANCE) -> Iterator[Region]:
    """Connected parts of a mask that comes in strips of rows from the top, in the order in which they end.

    Parameters
    ----------
    strips : iterable of (bool (h, width), uint8 (h, width) or None)
        Mask and, if there is one, probability x 255.
    tolerance : float
        In px, at least `TOLERANCE`; lines may miss the mask's outline by this much.
    """
    tracer = Tracer(width, tolerance)
    for inside, probability in strips:
        yield from tracer.feed(inside, probability)
    yield from tracer.finish()


@dataclass
class _Chain:
    """An outline that the last strip cut: it begins northwards and ends southwards on the line below that strip."""

    start: int
    end: int
    corners: list[Codes]
    part: int


@dataclass
class _Part:
    """A connected part that touches the last row: its closed rings, and sums over its pixels (1, y, x, probability)."""

    sums: npt.NDArray[np.float64]
    rings: list[Codes] = field(default_factory=list)


class Tracer:
    """Follows outlines strip by strip; see `regions`."""

    def __init__(self, width: int, tolerance: float = TOLERANCE) -> None:
        self._width, self._stride = width, width + 1
        self._tolerance = max(tolerance, TOLERANCE)
        self._y = 0
        self._above = np.zeros(width, bool)
        self._part_above = np.zeros(width, np.intp)  # 1 + index in _parts, under each pixel of the row above
        self._parts: list[_Part] = []
        self._chains: list[_Chain] = []
        self._has_probability = False

    def feed(self, inside: Bool, probability: UInt8 | None = None) -> list[Region]:
        """Take the next rows; the parts that ended in or before them."""
        if not inside.any() and not self._parts:
            self._y += len(inside)
            return []
        self._has_probability |= probability is not None
        labels = np.empty(inside.shape, np.intp)
        count = int(ndimage.label(inside, output=labels))
        group_of, groups = self._join(labels, count)
        parts = self._merge(group_of, groups, self._sums(inside, labels, count, probability))
        open_chains = self._trace(inside, labels, group_of, parts)
        return self._settle(inside, labels, group_of, parts, open_chains)

    def finish(self) -> list[Region]:
        """The parts that reach the last row."""
        return self.feed(np.zeros((1, self._width), bool))

    # Parts

    def _join(self, labels: Indices, count: int) -> tuple[Indices, int]:
        """Groups of parts from above (first) and of this strip's labels that are connected."""
        above, below = self._part_above, labels[0]
        touch = (above > 0) & (below > 0)
        old = len(self._parts)
        pairs = (above[touch] - 1, old + below[touch] - 1)
        size = old + count
        graph = sparse.coo_matrix((np.ones(len(pairs[0]), np.int8), pairs), shape=(size, size))
        groups, group_of = sparse.csgraph.connected_components(graph, directed=False)
        return group_of.astype(np.intp), int(groups)

    def _sums(self, inside: Bool, labels: Indices, count: int, probability: UInt8 | None) -> npt.NDArray[np.float64]:
        rows, columns = np.nonzero(inside)
        at = labels[rows, columns]
        seen = np.zeros(len(at)) if probability is None else probability[rows, columns].astype(np.float64)
        weights = (np.ones(len(at)), rows + (self._y + 0.5), columns + 0.5, seen)
        return np.stack([np.bincount(at, weight, count + 1)[1:] for weight in weights], axis=1)

    def _merge(self, group_of: Indices, groups: int, sums: npt.NDArray[np.float64]) -> list[_Part]:
        total = np.zeros((groups, 4))
        parts_sums = [part.sums[None] for part in self._parts]
        np.add.at(total, group_of, np.concatenate([*parts_sums, sums]) if parts_sums else sums)
        parts = [_Part(row) for row in total]
        for index, part in enumerate(self._parts):
            parts[group_of[index]].rings += part.rings
        return parts

    def _settle(
        self,
        inside: Bool,
        labels: Indices,
        group_of: Indices,
        parts: list[_Part],
        chains: list[_Chain],
    ) -> list[Region]:
        """Keep the parts that touch the last row, give out the others."""
        last = labels[-1]
        groups = np.where(last > 0, group_of[len(self._parts) + last - 1], -1)
        going_on = np.unique(groups[last > 0])
        place = np.zeros(len(parts) + 1, np.intp)
        place[going_on] = np.arange(1, len(going_on) + 1)
        self._part_above = np.where(last > 0, place[groups], 0)
        for chain in chains:
            chain.part = int(place[chain.part]) - 1
        self._parts, self._chains = [parts[index] for index in going_on], chains
        self._above = inside[-1]
        self._y += len(inside)
        ended = np.setdiff1d(np.arange(len(parts)), going_on)
        return [self._region(parts[index]) for index in ended]

    # Outlines

    def _edges(self, inside: Bool) -> Codes:
        """Borders of unit length, as 4 x (vertex it starts from) + direction, vertex = y (width + 1) + x.

        Those between two strips belong to the lower one, which is also given the open chains as edges.
        """
        signed = inside.astype(np.int8)
        across = np.diff(signed, axis=1, prepend=0, append=0)
        down = np.diff(signed, axis=0, prepend=self._above.astype(np.int8)[None])
        found = [
            (across > 0, 1, 0, NORTH),
            (across < 0, 0, 0, SOUTH),
            (down > 0, 0, 0, EAST),
            (down < 0, 0, 1, WEST),
        ]
        parts = [np.array([4 * chain.start + NORTH for chain in self._chains], np.int64)]
        for where, more_y, more_x, direction in found:
            rows, columns = np.nonzero(where)
            parts.append(4 * ((self._y + rows + more_y) * self._stride + columns + more_x) + direction)
        return np.sort(np.concatenate(parts))

    def _trace(self, inside: Bool, labels: Indices, group_of: Indices, parts: list[_Part]) -> list[_Chain]:
        """Give closed rings to their parts; the chains that go on below."""
        edges = self._edges(inside)
        heading = edges % 4
        ends = edges // 4 + np.array([1, self._stride, -1, -self._stride])[heading]
        chain_of = np.full(len(edges), -1, np.intp)
        for index, chain in enumerate(self._chains):
            at = np.searchsorted(edges, 4 * chain.start + NORTH)
            chain_of[at], ends[at], heading[at] = index, chain.end, SOUTH
        bottom = (self._y + len(inside)) * self._stride
        following = _successors(edges, ends, heading, bottom).tolist()
        first_below = int(np.searchsorted(edges, 4 * bottom))  # these edges come from the strip below
        seen = bytearray(len(edges))
        open_chains = []
        for first in [*range(first_below, len(edges)), *range(first_below)]:
            if seen[first]:
                continue
            walk, edge = [], first
            while edge >= 0 and not seen[edge]:
                seen[edge] = 1
                walk.append(edge)
                edge = following[edge]
            taken = np.array(walk)
            corners = self._corners(edges[taken], heading[taken], chain_of[taken], closed=edge >= 0)
            group = self._group(int(edges[first]), int(chain_of[first]), labels, group_of)
            if edge >= 0:
                parts[group].rings.append(np.concatenate(corners))
            else:
                open_chains.append(_Chain(int(edges[first]) // 4, int(ends[walk[-1]]), corners, group))
        return open_chains

    def _corners(self, edges: Codes, heading: Codes, chain_of: Indices, *, closed: bool) -> list[Codes]:
        """Vertices at which a walk turns, in pieces; an open chain in it brings its own."""
        turns = edges % 4 != _turned(heading, -1)
        turns[0] &= closed
        pieces, done = [], 0
        for at in np.flatnonzero(chain_of >= 0).tolist():
            pieces.append(edges[done : at + 1][turns[done : at + 1]] // 4)
            pieces += self._chains[chain_of[at]].corners
            done = at + 1
        pieces.append(edges[done:][turns[done:]] // 4)
        return pieces

    def _group(self, edge: int, chain: int, labels: Indices, group_of: Indices) -> int:
        """The group of the pixel to the right of an edge."""
        if chain >= 0:
            return int(group_of[self._chains[chain].part])
        direction = edge % 4
        y = edge // 4 // self._stride - self._y - (direction in {WEST, NORTH})
        x = edge // 4 % self._stride - (direction in {SOUTH, WEST})
        node = int(self._part_above[x]) if y < 0 else len(self._parts) + int(labels[y, x])
        return int(group_of[node - 1])

    def _region(self, part: _Part) -> Region:
        begun = (_turned(ring, int(ring.argmin())) for ring in part.rings)  # at the top, wherever strips were cut
        rings = [np.column_stack(np.divmod(ring, self._stride)).astype(np.float64) for ring in begun]
        rings.sort(key=lambda ring: tuple(ring[0]))
        outer = next(index for index, ring in enumerate(rings) if _area(ring) > 0)
        rings.insert(0, rings.pop(outer))
        smooth = _simplified([_cut_corners(ring) for ring in rings], self._tolerance)
        pixels, y, x, probability = part.sums
        mean = probability / pixels / 255 if self._has_probability else None
        return Region(smooth[0], smooth[1:], int(pixels), (y / pixels, x / pixels), mean)


def _successors(edges: Codes, ends: Codes, heading: Codes, bottom: int) -> Indices:
    """Index of the edge that goes on from each edge's end, to the right where there is a choice; -1 if it is below."""
    right = 4 * ends + (heading + 1) % 4
    place = np.searchsorted(edges, right)
    turns_right = edges[np.minimum(place, len(edges) - 1)] == right
    following = np.where(turns_right, place, np.searchsorted(edges, 4 * ends))
    return np.where(ends >= bottom, -1, following).astype(np.intp)


def _turned(ring: npt.NDArray[Number], by: int) -> npt.NDArray[Number]:
    """A ring that begins ``by`` points later; what `np.roll` does, which takes most of the time of small rings."""
    return np.concatenate([ring[by:], ring[:by]])


def _area(ring: Points) -> float:
    """Signed area of an open ring of (y, x); positive where it runs clockwise on the screen."""
    y, x = ring.T
    return float(np.dot(x, _turned(y, 1)) - np.dot(_turned(x, 1), y)) / 2


def _cut_corners(ring: Points) -> Points:
    """Cut the corners of an open ring half a pixel from the tip, and close it."""
    to_next = _turned(ring, 1) - ring
    length = np.abs(to_next).sum(axis=1, keepdims=True)
    step = to_next / length / 2
    cut = np.empty((2 * len(ring), 2))
    cut[0::2] = ring + step
    cut[1::2] = ring + to_next - step
    cut = cut[(cut != _turned(cut, -1)).any(axis=1)]  # two cuts meet in the middle of a unit edge
    return np.concatenate([cut, cut[:1]])


def _simplified(rings: list[Points], tolerance: float) -> list[Points]:
    """Closed rings without the points that lines miss by little (Douglas and Peucker 1973), valid as one polygon."""
    ring_of = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    lines: Any = shapely.linestrings(np.concatenate(rings), indices=ring_of)
    while tolerance > TOLERANCE:
        found = _points(shapely.simplify(lines, tolerance, preserve_topology=False), len(rings))
        if all(len(ring) > 3 for ring in found) and shapely.Polygon(found[0], found[1:]).is_valid:
            return found
        tolerance /= 2
    return _points(shapely.simplify(lines, TOLERANCE, preserve_topology=False), len(rings))


def _points(lines: Any, count: int) -> list[Points]:
    points, line_of = shapely.get_coordinates(lines, return_index=True)
    return [np.asarray(ring) for ring in np.split(points, np.searchsorted(line_of, np.arange(1, count)))]
