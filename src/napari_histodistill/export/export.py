"""Choose, name and write export files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_histodistill.errors import HistodistillError
from napari_histodistill.export.asap import write_asap
from napari_histodistill.export.files import safe_name, write_whole
from napari_histodistill.export.geojson import write_geojson
from napari_histodistill.export.picture import write_mask, write_overlay, write_probability
from napari_histodistill.export.source import ExportError, Source, source_of
from napari_histodistill.export.table import write_regions, write_summary
from napari_histodistill.export.tiff import write_ome_tiff
from napari_histodistill.export.zarr import write_ome_zarr
from napari_histodistill.jobs import InlineControl, JobControl
from napari_histodistill.study import StudySlide
from napari_histodistill.urls import UrlPath

if TYPE_CHECKING:
    from collections.abc import Iterable

    Writer = Callable[[Source, Path], None]


@dataclass(frozen=True)
class ExportOptions:
    """How files are made.

    Parameters
    ----------
    tolerance_um : float or None
        How far lines may miss outlines (GeoJSON, ASAP, regions in CSV); None for 0.3 px of the mask, which loses
        nothing.
    mpp : float or None
        Size of a pixel of pictures (PNG) in µm; None for the mask's own, and overlays of 2,048 px.
    """

    tolerance_um: float | None = None
    mpp: float | None = None


@dataclass(frozen=True)
class _File:
    """A file of a format: its ending after the slide's name, what writes it, and what it needs of a source."""

    ending: str
    writer: Callable[[ExportOptions], Writer]
    needs_probability: bool = False
    needs_slide: bool = False


FILES: Final[dict[str, dict[str, _File]]] = {
    "ome-zarr": {"ome-zarr": _File(".ome.zarr", lambda _: write_ome_zarr)},
    "ome-tiff": {"ome-tiff": _File(".ome.tiff", lambda _: write_ome_tiff)},
    "geojson": {"geojson": _File(".geojson", lambda o: partial(write_geojson, tolerance_um=o.tolerance_um))},
    "asap-xml": {"asap-xml": _File(".xml", lambda o: partial(write_asap, tolerance_um=o.tolerance_um))},
    "png": {
        "png": _File("-overlay.png", lambda o: partial(write_overlay, mpp=o.mpp), needs_slide=True),
        "png-mask": _File("-mask.png", lambda o: partial(write_mask, mpp=o.mpp)),
        "png-probability": _File(
            "-probability.png", lambda o: partial(write_probability, mpp=o.mpp), needs_probability=True
        ),
    },
    "csv": {
        "csv": _File(".csv", lambda _: write_summary),
        "csv-regions": _File("-regions.csv", lambda o: partial(write_regions, tolerance_um=o.tolerance_um)),
    },
}
"""Format to its files."""
FORMATS: tuple[str, ...] = tuple(FILES)
ENDINGS: Final = {
    "ome-zarr": (".ome.zarr", ".zarr"),
    "ome-tiff": (".ome.tiff", ".ome.tif", ".tiff", ".tif"),
    "geojson": (".geojson", ".json"),
    "asap-xml": (".xml",),
    "png": (".png",),
    "csv": (".csv",),
}
"""Format to the endings by which a file of it is told, the usual one first."""


@dataclass(frozen=True)
class ExportRequest:
    """What leaves a study, for a job.

    Parameters
    ----------
    slide : Path
        The slide's folder in the study.
    formats : tuple of str
        Of `FORMATS`.
    what : {"pseudo", "corrections", "prediction"}
    round : int or None
    out : Path or None
        A folder, or a file name with the ending of the only format; by default ``exports`` in the slide's folder.
    options : ExportOptions
    """

    slide: Path
    formats: tuple[str, ...]
    what: str = "pseudo"
    round: int | None = None
    out: Path | None = None
    options: ExportOptions = ExportOptions()


def run_export(request: ExportRequest, control: JobControl) -> dict[str, Path]:
    """`export_slide` as the work of a job."""
    return export_slide(
        request.slide,
        request.formats,
        request.out,
        what=request.what,
        round_number=request.round,
        options=request.options,
        control=control,
    )


def export_slide(
    slide: StudySlide | Path,
    formats: Iterable[str],
    out: Path | None = None,
    *,
    what: str = "pseudo",
    round_number: int | None = None,
    options: ExportOptions = ExportOptions(),
    control: JobControl | None = None,
) -> dict[str, Path]:
    """Write files of what a study holds of a slide.

    Parameters
    ----------
    slide : StudySlide or Path
        The slide's entry in a study, or its folder.
    formats : iterable of str
        Of `FORMATS`; "png" and "csv" write several files.
    out, what, round_number, options
        See `ExportRequest`. Files of the same name are replaced.
    control : JobControl, optional

    Returns
    -------
    dict of str to Path
        What was written, by format; further files of a format under "png-mask", "png-probability", "csv-regions".

    Raises
    ------
    HistodistillError
        If a format is unknown, the study does not hold what is asked for, or the folder cannot be written.
    JobCancelled
        After a cancel; files that were not complete are not there.
    """
    wanted = check_formats(formats)
    if not wanted:
        return {}
    entry = StudySlide.open(slide) if isinstance(slide, Path) else slide
    source = source_of(entry, what, round_number)
    stem = safe_name(entry.known_path.stem) + ("" if what == "pseudo" else f"-{source.label}")
    if round_number is not None:
        stem += f"-round-{round_number}"
    return export_source(source, wanted, entry.folder / "exports" if out is None else out, stem, options, control)


def export_source(
    source: Source,
    formats: list[str],
    out: Path,
    stem: str,
    options: ExportOptions = ExportOptions(),
    control: JobControl | None = None,
) -> dict[str, Path]:
    """Write files of a source; ``stem`` begins their names unless ``out`` is a file name. See `export_slide`."""
    control = control or InlineControl()
    written: dict[str, Path] = {}
    named = _split_ending(out, formats)
    folder, stem = (out, stem) if named is None else named
    told = {name: value for name, value in asdict(options).items() if value is not None}
    source = source.noting(pixel_um=source.place.pixel_um, corner_um=source.place.corner_um, **told)
    for name in formats:
        for key, file in FILES[name].items():
            if (file.needs_probability and source.probability is None) or (
                file.needs_slide and source.slide_path is None
            ):
                continue
            target = folder / f"{stem}{file.ending}"
            if named is not None and (len(FILES[name]) == 1 or key == f"{name}-mask"):
                target = out
            _refuse_the_slide(target, source)
            watched = source.watched(control, f"Writing {target.name}")
            written[key] = write_whole(target, partial(_write_checked, file.writer(options), watched))
    if "csv" in formats:  # the one format that cannot say what made it
        written["csv-provenance"] = write_whole(folder / f"{stem}-provenance.json", partial(_write_provenance, source))
    return written


def check_formats(formats: Iterable[str]) -> list[str]:
    """The formats without repeats; `ExportError` names one that is unknown."""
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in FORMATS:
            raise ExportError(f"There is no export format {name!r}: choose from {', '.join(FORMATS)}.")
    return wanted


def _refuse_the_slide(target: Path, source: Source) -> None:
    """Files of the same name are replaced, but never the slide that the mask is of."""
    if source.slide_path is None or not target.exists():
        return
    try:
        slide = source.slide_path()
    except HistodistillError:  # it is not where it was, so it is not here
        return
    if not isinstance(slide, UrlPath) and slide.resolve().is_relative_to(target.resolve()):
        raise ExportError(f"{target} is the slide itself, which would be lost: choose another name or folder.")


def _write_checked(writer: Writer, source: Source, path: Path) -> None:
    writer(source, path)
    source.check()


def _write_provenance(source: Source, path: Path) -> None:
    path.write_text(source.provenance.to_json(indent=1) + "\n", encoding="ascii")


def _split_ending(out: Path, formats: list[str]) -> tuple[Path, str] | None:
    """Folder and stem of a file name with the ending of the only format, or None: then it names a folder."""
    if len(formats) != 1 or (out.is_dir() and formats[0] != "ome-zarr"):
        return None
    for ending in ENDINGS[formats[0]]:
        if out.name.lower().endswith(ending):
            return out.parent, out.name[: -len(ending)]
    return None
