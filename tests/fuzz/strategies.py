"""What outside files are made of when somebody means harm, or a disk fails."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = st.one_of(
    st.sampled_from(
        ["Tumor", "Normal", "Ignore*", "=1+1", "<b>x</b>", "\x1b[2J", "\u202egnp", "a\nb", "'\"", "", "%s"]
    ),
    st.text(max_size=20),
)
NUMBERS = st.one_of(
    st.integers(-1000, 1000),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0, -1, 2**31, 2**53, 2**63, 2**64, 10**30, 1e-300, 1e300, -0.0]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, NAMES)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=12,
)


class Mutated(bytes):
    """Bytes that do not fill the screen when a test fails; the file that they were written to has them."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


@st.composite
def mutated(draw: st.DrawFn, whole: bytes, most: int = 8) -> bytes:
    """Bytes of a sound file with some changed, cut out, doubled or cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["set", "set", "set", "flip", "word", "cut", "double", "truncate"])):
            case "set" if data:
                data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "word":
                data[at : at + 4] = draw(
                    st.sampled_from([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0" * 4])
                )
            case "cut":
                del data[at : at + draw(st.integers(1, 32))]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 32))]
            case "truncate":
                del data[at:]
    return Mutated(data)


@st.composite
def changed(draw: st.DrawFn, document: Any, most: int = 3) -> Any:
    """A JSON document with some of its values, wherever they are, replaced, dropped or moved."""
    for _ in range(draw(st.integers(1, most))):
        document = _change(draw, document)
    return document


def _change(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 9)) == 0:
            return {name: held for name, held in value.items() if name != key}
        return value | {key: _change(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(value) - 1))
        if draw(st.integers(0, 9)) == 0:
            return value[:at] + value[at + 1 :]
        return [*value[:at], _change(draw, value[at]), *value[at + 1 :]]
    return draw(JSON)


@st.composite
def geojson(draw: st.DrawFn) -> Any:
    """Something like a GeoJSON."""
    point = st.one_of(st.lists(NUMBERS, min_size=2, max_size=3), st.lists(st.integers(0, 400), min_size=2, max_size=2))
    rings = st.lists(st.lists(point, max_size=8), max_size=3)
    geometry = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Polygon", "MultiPolygon", "Point", "LineString", "GeometryCollection", "x"]),
            "coordinates": st.one_of(rings, st.lists(rings, max_size=2), JSON),
        }
    )
    classification = st.one_of(st.fixed_dictionaries({"name": NAMES}), st.fixed_dictionaries({"names": JSON}), JSON)
    feature = st.fixed_dictionaries(
        {
            "type": st.just("Feature"),
            "geometry": st.one_of(geometry, JSON),
            "properties": st.one_of(st.fixed_dictionaries({"classification": classification}), JSON),
        }
    )
    features = st.lists(st.one_of(feature, feature, JSON), max_size=4)
    collection = st.fixed_dictionaries({"type": st.just("FeatureCollection"), "features": st.one_of(features, JSON)})
    return draw(st.one_of(collection, features, feature, JSON))
