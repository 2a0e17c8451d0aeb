"""Annotations of a GeoJSON file, one after the other: memory holds one feature, whatever the size of the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO

import numpy as np

from napari_histodistill.errors import reason
from napari_histodistill.export.rasterise import ImportFileError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Points = npt.NDArray[np.float64]

LARGEST_FEATURE: Final = 32_000_000
"""Characters; more than a million points."""
_CHUNK: Final = 1 << 20
UNCLASSIFIED: Final = "without a class"


@dataclass(frozen=True)
class Shape:
    """A polygon of a file.

    Parameters
    ----------
    name : str
        Its class.
    rings : list of float (n, 2)
        Outline and holes, (y, x) as in the file; none for what is no area.
    """

    name: str
    rings: list[Points]


def read_geojson(path: Path) -> Iterator[Shape]:
    """Shapes of a FeatureCollection, of a list of features (older QuPath), or of one feature or geometry.

    Raises
    ------
    ImportFileError
        If the file is no GeoJSON, is nested absurdly, or one feature is absurdly large.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for feature in _features(_Json(file)):
                yield from _shapes(feature)
    except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError, MemoryError) as error:
        raise ImportFileError(
            f"{path.name} is no GeoJSON that can be read ({reason(error)}): export it anew."
        ) from error
    except OSError as error:
        raise ImportFileError(f"{path.name} cannot be read ({error.strerror}): check the disk.") from error


def _features(text: _Json) -> Iterator[Any]:
    if text.peek() == "[":
        yield from text.items()
        return
    rest: dict[str, Any] = {}
    text.take("{")
    while text.peek() != "}":
        key = text.value()
        text.take(":")
        if key == "features" and text.peek() == "[":
            yield from text.items()
        elif key in {"type", "geometry", "properties", "coordinates"}:
            rest[key] = text.value()
        else:
            text.value()
        if text.peek() == ",":
            text.take(",")
        elif text.peek() != "}":
            raise ValueError("it ends too early")
    if rest.get("type") == "Feature":
        yield rest
    elif "coordinates" in rest:
        yield {"geometry": rest, "properties": {}}


def _shapes(feature: Any) -> Iterator[Shape]:
    geometry, name = feature["geometry"], _class_name(feature.get("properties") or {})
    kind = geometry["type"] if geometry else None
    if kind == "Polygon":
        yield Shape(name, [_ring(ring) for ring in geometry["coordinates"]])
    elif kind == "MultiPolygon":
        for polygon in geometry["coordinates"]:
            yield Shape(name, [_ring(ring) for ring in polygon])
    else:
        yield Shape(name, [])


def _class_name(properties: Any) -> str:
    found = properties.get("classification")
    if isinstance(found, dict):
        found = found.get("name") or ": ".join(str(name) for name in found.get("names", []))
    return str(found)[:100] if found else UNCLASSIFIED


def _ring(points: Any) -> Points:
    """A ring of [x, y, ...] as (y, x)."""
    ring = np.array([(point[1], point[0]) for point in points], dtype=object)
    if not all(isinstance(number, int | float) and abs(number) < 1e15 for number in ring.ravel()):
        raise ValueError("a coordinate is no number")
    return ring.astype(np.float64).reshape(-1, 2)


class _Json:
    """Values of a JSON text, read in pieces."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._at = file, "", 0
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def _more(self) -> bool:
        rest = self._text[self._at :]
        piece = self._file.read(max(_CHUNK, len(rest)))
        self._text, self._at = rest + piece, 0
        return bool(piece)

    def peek(self) -> str:
        """The next character that is no white space, or an empty string at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, character: str) -> None:
        """Go past a character that must come next."""
        if self.peek() != character:
            raise ValueError(f"{character!r} is missing" if self.peek() else "it ends too early")
        self._at += 1

    def value(self) -> Any:
        """The value that comes next."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if len(self._text) - self._at > LARGEST_FEATURE:
                    raise ValueError(f"a value has more than {LARGEST_FEATURE // 10**6} million characters") from None
                if not self._more():
                    raise
                continue
            if end < len(self._text) or not self._more():  # a number at the end of a piece may go on
                self._at += end - self._at
                return value

    def items(self) -> Iterator[Any]:
        """The items of the list that comes next."""
        self.take("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != "]":
                self.take(",")
        self.take("]")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
