"""Numbers of a mask as CSV: a line that sums it up, and a line per region."""

from __future__ import annotations

import csv
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import printable
from napari_histodistill.export.geojson import CLASSES, measures, outlined
from napari_histodistill.export.source import ROWS
from napari_histodistill.predict.figures import Figures, summarise_blocks
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_histodistill.export.source import Source, UInt8

REGION_COLUMNS = (
    "region", "class", "area_um2", "perimeter_um", "centroid_x_um", "centroid_y_um", "centroid_x_px", "centroid_y_px",
    "holes", "mean_probability",
)  # fmt: skip
_AREAS = {"tumour_mm2": TUMOUR, "normal_mm2": NORMAL, "ignore_mm2": IGNORE, "outside_mm2": OUTSIDE}


def write_summary(source: Source, path: Path) -> None:
    """Write a line of names and a line of values, units in the names."""
    made_by, place = source.provenance, source.place
    row: dict[str, Any] = {
        "slide": as_cell(made_by.slide),
        "width_px": made_by.slide_shape[1],
        "height_px": made_by.slide_shape[0],
        "mpp_x": place.mpp[1],
        "mpp_y": place.mpp[0],
        "what": source.what,
        **(areas_of(source) if source.what == "corrections" else asdict(figures_of(source))),
        "model": None if made_by.model is None else as_cell(str(made_by.model)),
        "round": made_by.round,
        "threshold": made_by.threshold,
        "smoothing_um": made_by.smoothing_um,
        "support": made_by.support,
        "unreadable": made_by.options.get("unreadable"),
        "version": made_by.version,
        "date": made_by.date,
        "fingerprint": made_by.fingerprint,
    }
    if source.probability is None:
        row.pop("mean_probability", None)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow({name: "" if value is None else value for name, value in row.items()})


def write_regions(source: Source, path: Path, tolerance_um: float | None = None) -> None:
    """Write a line per connected area; centroids in µm and level-0 px from the corner of the slide."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(REGION_COLUMNS)
        for number, (value, region) in enumerate(outlined(source, tolerance_um), start=1):
            y, x = source.place.to_level0(np.array([region.centroid]))[0]
            mpp_y, mpp_x = source.place.mpp
            measured = measures(source.place, region)
            writer.writerow(
                [
                    number, CLASSES[value][0], measured["Area µm^2"], measured["Perimeter µm"],
                    round(x * mpp_x, 3), round(y * mpp_y, 3), round(x, 2), round(y, 2), len(region.holes),
                    measured.get("Mean probability", ""),
                ]
            )  # fmt: skip


def as_cell(text: str) -> str:
    r"""A name as a CSV cell: in one line, and never a formula, which spreadsheets would run.

    Examples
    --------
    >>> as_cell('=HYPERLINK("http://x")'), as_cell("slide-1.svs")
    ('\'=HYPERLINK("http://x")', 'slide-1.svs')
    """
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(("=", "+", "-", "@", "\ufffd")) else shown


def figures_of(source: Source) -> Figures:
    """Areas and mean probability of a mask."""

    def pairs() -> Iterator[tuple[UInt8, UInt8]]:
        for _, mask, probability in source.with_probability():
            yield mask, np.zeros_like(mask) if probability is None else probability

    return summarise_blocks(pairs(), source.place.pixel_um)


def areas_of(source: Source) -> dict[str, float]:
    """Area in mm² that each value covers."""
    counts = np.zeros(256, np.int64)
    for _, mask in source.strips(ROWS):
        counts += np.bincount(mask.ravel(), minlength=256)
    pixel_mm2 = source.place.pixel_um[0] * source.place.pixel_um[1] / 1e6
    return {name: float(counts[value] * pixel_mm2) for name, value in _AREAS.items()}
