"""Choose, name and write export files of a slide; each appears whole or not at all."""

from __future__ import annotations

import csv
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_histodistill.errors import HistodistillError
from napari_histodistill.export.geojson import write_geojson
from napari_histodistill.export.picture import write_mask, write_overlay
from napari_histodistill.export.zarr import write_ome_zarr
from napari_histodistill.predict.figures import Figures, summarise_blocks
from napari_histodistill.study import StudySlide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import zarr


Format = Literal["ome-zarr", "geojson", "png", "csv"]
FORMATS: tuple[str, ...] = get_args(Format)


class ExportError(HistodistillError):
    """Something cannot be exported as asked."""


def export_slide(slide: StudySlide | Path, formats: Iterable[str], folder: Path | None = None) -> dict[str, Path]:
    """Write files of a slide's result, with its corrections laid over what the model says.

    Parameters
    ----------
    slide : StudySlide or Path
        The slide's entry in a study, or its folder.
    formats : iterable of {"ome-zarr", "geojson", "png", "csv"}
        "png" writes two files: an overlay for people, and the mask with its label values.
    folder : Path, optional
        Where to; by default ``exports`` in the slide's folder of the study. Files of the same name are replaced.

    Returns
    -------
    dict of str to Path
        What was written, by format; the second file of "png" is under "png-mask".

    Raises
    ------
    HistodistillError
        If a format is unknown, the slide has no result yet, or the folder cannot be written.
    """
    wanted = check_formats(formats)
    entry = StudySlide.open(slide) if isinstance(slide, Path) else slide
    folder = entry.folder / "exports" if folder is None else folder
    writers: dict[str, Callable[[StudySlide, Path], dict[str, Path]]] = {
        "ome-zarr": export_ome_zarr,
        "geojson": export_geojson,
        "png": export_png,
        "csv": export_csv,
    }
    written: dict[str, Path] = {}
    for name in wanted:
        written |= writers[name](entry, folder)
    return written


def check_formats(formats: Iterable[str]) -> list[str]:
    """The formats without repeats; `ExportError` names one that is unknown."""
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in FORMATS:
            raise ExportError(f"There is no export format {name!r}: choose from {', '.join(FORMATS)}.")
    return wanted


def export_ome_zarr(entry: StudySlide, folder: Path) -> dict[str, Path]:
    """``<slide>.ome.zarr``: probability, and the mask as labels under it."""
    path = _write(entry, folder, ".ome.zarr", lambda path: write_ome_zarr(entry, probability_of(entry), path))
    return {"ome-zarr": path}


def export_geojson(entry: StudySlide, folder: Path) -> dict[str, Path]:
    """``<slide>.geojson``: outlines for QuPath."""
    return {"geojson": _write(entry, folder, ".geojson", lambda path: write_geojson(entry, path))}


def export_png(entry: StudySlide, folder: Path) -> dict[str, Path]:
    """``<slide>-overlay.png`` for people and ``<slide>-mask.png`` with label values 0 to 3."""
    overlay = _write(entry, folder, "-overlay.png", lambda path: write_overlay(entry, figures_of(entry), path))
    return {"png": overlay, "png-mask": _write(entry, folder, "-mask.png", lambda path: write_mask(entry, path))}


def export_csv(entry: StudySlide, folder: Path) -> dict[str, Path]:
    """``<slide>.csv``: the figures, a line of names and a line of values."""
    return {"csv": _write(entry, folder, ".csv", lambda path: _write_csv(entry, path))}


def figures_of(entry: StudySlide) -> Figures:
    """Areas and mean probability of the mask with its corrections."""
    probability = probability_of(entry)
    pairs = ((mask, np.asarray(probability[y : y + len(mask)])) for y, mask in entry.mask_blocks())
    return summarise_blocks(pairs, entry.grid.pixel_size_um)


def probability_of(entry: StudySlide) -> zarr.Array[Any]:
    """The slide's probability; `ExportError` if it has none."""
    probability = entry.probability()
    if probability is None:
        raise ExportError(f"{entry.known_path.name} has no result to export yet: run the teacher first.")
    return probability


def _write_csv(entry: StudySlide, path: Path) -> None:
    run = entry.run
    made_with = {} if run is None or run.record.summary is None else run.record.summary
    row: dict[str, Any] = {
        "slide": entry.known_path.name,
        "width_px": entry.grid.slide_shape[1],
        "height_px": entry.grid.slide_shape[0],
        "mpp_x": entry.mpp[1],
        "mpp_y": entry.mpp[0],
        **asdict(figures_of(entry)),
        **{name: made_with.get(name, "") for name in ("model", "threshold", "smoothing_um", "unreadable")},
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)


def _write(entry: StudySlide, folder: Path, ending: str, write: Callable[[Path], None]) -> Path:
    """Write beside the final place, then move there; remove what a failure leaves."""
    target = folder / f"{entry.known_path.stem}{ending}"
    partial = folder / f".partial-{target.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            write(partial)
            _remove(target)
            partial.replace(target)
        finally:
            _remove(partial)
    except OSError as error:
        raise ExportError(f"{target} cannot be written ({error.strerror}): choose another folder.") from error
    return target


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
