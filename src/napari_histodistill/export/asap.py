"""A mask as ASAP annotations.

ASAP's polygons have no holes. As in the annotations of CAMELYON, a hole is a polygon of its own in a group that is cut
out of the others; here that group is called ``Exclude``. Coordinates are level-0 px from the corner of the slide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TextIO

from napari_histodistill.export.geojson import CLASSES, outlined

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.export.outlines import Points
    from napari_histodistill.export.source import Source

EXCLUDE: Final = "Exclude"
_EXCLUDE_COLOUR: Final = (64, 64, 255)


def write_asap(source: Source, path: Path, tolerance_um: float | None = None) -> None:
    """Write one polygon per connected area, followed by its holes; see `write_geojson`."""
    made_with = source.provenance.to_json().replace("-", "\\u002d")  # two hyphens would end the comment
    with path.open("w", encoding="ascii") as file:
        file.write(f'<?xml version="1.0"?>\n<!-- {made_with} -->\n<ASAP_Annotations>\n<Annotations>\n')
        number = 0
        for value, region in outlined(source, tolerance_um):
            name, colour = CLASSES[value]
            for ring, group, shade in [
                (region.outer, name, colour),
                *((hole, EXCLUDE, _EXCLUDE_COLOUR) for hole in region.holes),
            ]:
                _write_polygon(file, number, group, shade, source.place.to_level0(ring[:-1]))
                number += 1
        file.write("</Annotations>\n<AnnotationGroups>\n")
        for group, shade in [*CLASSES.values(), (EXCLUDE, _EXCLUDE_COLOUR)]:
            file.write(f'<Group Name="{group}" PartOfGroup="None" Color="{_hex(shade)}"><Attributes/></Group>\n')
        file.write("</AnnotationGroups>\n</ASAP_Annotations>\n")


def _write_polygon(file: TextIO, number: int, group: str, colour: tuple[int, int, int], ring: Points) -> None:
    head = f'Name="Annotation {number}" Type="Polygon" PartOfGroup="{group}" Color="{_hex(colour)}"'
    points = "".join(f'<Coordinate Order="{i}" X="{x:.2f}" Y="{y:.2f}"/>' for i, (y, x) in enumerate(ring))
    file.write(f"<Annotation {head}><Coordinates>{points}</Coordinates></Annotation>\n")


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02X}{:02X}{:02X}".format(*colour)
