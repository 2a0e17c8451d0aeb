"""A mask as OME-Zarr 0.5: with a probability as labels under that image, without one as a label image on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import zarr

from napari_histodistill.export.provenance import KEY
from napari_histodistill.export.source import COLOURS, NAMES
from napari_histodistill.slide.grid import WorkingGrid
from napari_histodistill.slide.labels import IGNORE, TUMOUR
from napari_histodistill.study import NO_CORRECTION, Pyramid

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.export.source import Place, Source

_OPAQUE: Final = (TUMOUR, IGNORE)
"""Values that are drawn over a slide; the others are transparent."""


def write_ome_zarr(source: Source, folder: Path) -> None:
    """Write probability (uint8, x 255) and mask, both multiscale, in µm, where they lie on the slide.

    Names, colours and provenance are in the attributes; 0 is "outside tissue", in corrections 255 is "nothing set".
    """
    if source.probability is None:
        _write_labels(source, folder)
        return
    image = _create(source, folder, "image", "tumour probability")
    zarr.open_group(folder, mode="r+").create_group(
        "labels", attributes={"ome": {"version": "0.5", "labels": [source.label]}}
    )
    _write_labels(source, folder / "labels" / source.label, image)


def _write_labels(source: Source, folder: Path, image: Pyramid | None = None) -> None:
    labels = _create(source, folder, "labels", source.label)
    for y, mask, probability in source.with_probability():
        labels.write(y, 0, mask)
        if image is not None and probability is not None:
            image.write(y, 0, probability)


def _create(source: Source, folder: Path, kind: Any, name: str) -> Pyramid:
    place = source.place
    on_its_own = WorkingGrid(place.shape, place.shape, place.pixel_um)
    pyramid = Pyramid.create(folder, on_its_own, kind, name=name)
    group = zarr.open_group(folder, mode="r+")
    ome: Any = group.attrs["ome"]
    for dataset, level in zip(ome["multiscales"][0]["datasets"], pyramid.levels, strict=True):
        dataset["coordinateTransformations"] = _transformations(place, level.shape)
    if kind == "labels":
        shown = [value for value in NAMES if value != NO_CORRECTION or source.what == "corrections"]
        ome["image-label"] = {
            "colors": [
                {"label-value": value, "rgba": [*COLOURS[value], 255 if value in _OPAQUE else 0]} for value in shown
            ],
            "properties": [{"label-value": value, "name": NAMES[value]} for value in shown],
        }
    group.attrs.update({"ome": ome, KEY: source.provenance.as_dict()})
    return pyramid


def _transformations(place: Place, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Scale and translation of a level; pixel 0's centre is given from the centre of the slide's first pixel."""
    scale = [float(p * n / m) for p, n, m in zip(place.pixel_um, place.shape, shape, strict=True)]
    corner = zip(place.corner_um, scale, place.mpp, strict=True)
    return [
        {"type": "scale", "scale": scale},
        {"type": "translation", "translation": [float(c + (s - m) / 2) for c, s, m in corner]},
    ]
