"""A mask as a tiled, pyramidal OME-TIFF with a palette: label values for programs, colours for people.

The lower levels are in SubIFDs. tifffile and Bio-Formats read all of it; OpenSlide reads level 0, at the size of pixel
that the resolution tags give. Every level is written tile by tile from strips, each in its own pass over the mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import tifffile

from napari_histodistill.export.files import safe_name
from napari_histodistill.export.source import COLOURS, ROWS
from napari_histodistill.study.pyramid import level_shapes, pixels_at_centres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    import numpy.typing as npt

    from napari_histodistill.export.source import Source

    UInt8 = npt.NDArray[np.uint8]

TILE: Final = 256
BIG: Final = 2**31
"""Pixels from which the file is a BigTIFF; deflated labels take far less than a byte each."""


def write_ome_tiff(source: Source, path: Path) -> None:
    """Write the mask as uint8 labels (see `Source`), deflated, with the provenance as the image's description."""
    place = source.place
    shapes = level_shapes(place.shape)
    size_y, size_x = place.pixel_um
    metadata = {
        "axes": "YX",
        "Name": f"{safe_name(source.provenance.slide)} {source.label}",
        "Description": source.provenance.to_json(),
        "PhysicalSizeX": size_x,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": size_y,
        "PhysicalSizeYUnit": "µm",
    }
    options: dict[str, Any] = {
        "dtype": np.uint8,
        "tile": (TILE, TILE),
        "compression": "zlib",
        "photometric": "palette",
        "colormap": _palette(),
        "resolutionunit": "CENTIMETER",
    }
    with tifffile.TiffWriter(path, bigtiff=place.shape[0] * place.shape[1] > BIG, ome=True) as file:
        for number, shape in enumerate(shapes):
            scale = (place.shape[0] / shape[0], place.shape[1] / shape[1])
            file.write(
                _tiles(source, shape),
                shape=shape,
                resolution=(1e4 / (size_x * scale[1]), 1e4 / (size_y * scale[0])),
                subifds=len(shapes) - 1 if number == 0 else None,
                subfiletype=int(number > 0),
                metadata=metadata if number == 0 else None,
                **options,
            )


def _tiles(source: Source, shape: tuple[int, int]) -> Iterator[UInt8]:
    """The tiles of a level in raster order; pixels are the ones under their centres."""
    whole = source.place.shape
    columns = pixels_at_centres(whole[1], shape[1], 0, shape[1])
    rows = pixels_at_centres(whole[0], shape[0], 0, shape[0])
    waiting = np.empty((0, shape[1]), np.uint8)
    for y, strip in source.strips(ROWS):
        here = rows[(rows >= y) & (rows < y + len(strip))] - y
        waiting = np.concatenate([waiting, strip if shape == whole else strip[np.ix_(here, columns)]])
        while len(waiting) >= TILE:
            yield from _row_of_tiles(waiting[:TILE])
            waiting = waiting[TILE:]
    if len(waiting):
        yield from _row_of_tiles(waiting)


def _row_of_tiles(rows: UInt8) -> Iterator[UInt8]:
    for x in range(0, rows.shape[1], TILE):
        tile = rows[:, x : x + TILE]
        yield np.pad(tile, ((0, TILE - tile.shape[0]), (0, TILE - tile.shape[1])))


def _palette() -> npt.NDArray[np.uint16]:
    """uint16 (3, 256): the colour of each label value."""
    palette = np.zeros((3, 256), np.uint16)
    for value, colour in COLOURS.items():
        palette[:, value] = np.array(colour, np.uint16) * 257
    return palette
