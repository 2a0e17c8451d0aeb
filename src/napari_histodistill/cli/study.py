"""Commands about what a study holds: ``import``, ``export``, ``audit`` and ``check``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from napari_histodistill.cli.console import print_result, run_shown
from napari_histodistill.cli.options import json_option, slide_option, split_exports, study_argument
from napari_histodistill.errors import printable

EXIT_DAMAGED, EXIT_UNCHECKED = 1, 2


@click.command(name="import")
@study_argument
@click.argument("file", type=click.Path(path_type=Path))
@slide_option
@click.option(
    "--as",
    "kind",
    type=click.Choice(["pseudo", "corrections"]),
    required=True,
    help="Replace the slide's pseudo-mask, or lay it over the corrections.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(0, min_open=True),
    help="µm per pixel of a mask image.  [default: as the file says, or over the whole slide]",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME=MEANING",
    help="What a class of the file means: tumour, normal, ignore or outside. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Say where it lands and write nothing.")
@json_option
def import_file(
    study: Path, file: Path, slide: str | None, classes: tuple[str, ...], dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Bring FILE (GeoJSON of QuPath, ASAP XML, or a mask as PNG, TIFF or OME-Zarr) into STUDY."""
    from napari_histodistill.export import ImportRequest, apply_import, preview_import, read_classes
    from napari_histodistill.study import Study

    meanings = read_classes(classes)
    entry = Study.open(study).slide_named(slide)
    preview = run_shown(preview_import, ImportRequest(entry.folder, file, classes=meanings, **options))
    for note in preview.notes:
        click.secho(f"Note: {printable(note)}", err=True, fg="yellow")
    if not dry_run:
        run_shown(apply_import, preview)
    print_result(preview.summary(applied=not dry_run), as_json)


@click.command()
@study_argument
@click.option("--repair", is_flag=True, help="Mend what can be mended; damaged files move into STUDY/damaged.")
@click.option("--break-lock", is_flag=True, help="Break locks of processes that are gone, or on computers that are.")
@json_option
@click.pass_context
def check(context: click.Context, /, study: Path, as_json: bool, **options: bool) -> None:
    """Read everything of STUDY and say what is damaged, a line each.

    Nothing is written without --repair, and nothing is ever deleted.

    Exit codes: 0 all is sound, or was mended without a loss; 1 something is damaged, or was lost; 2 it cannot be
    checked, or a part of it cannot: no study, one of a newer version, a link, a file that you may not read, or, to
    repair, a study that another process is writing to.
    """
    from napari_histodistill.check import CheckRequest, check_study

    report = run_shown(check_study, CheckRequest(study, **options))
    if as_json:
        print_result(report.as_dict(), as_json)
    else:
        for line in [*report.held, *map(str, report.findings)]:
            click.echo(printable(line))
        aside = f" What was damaged is in {printable(report.aside)}." if report.aside else ""
        click.echo(f"{report.files} files read, {len(report.damaged)} found damaged.{aside}")
    context.exit(0 if report.sound else EXIT_UNCHECKED if report.whole else EXIT_DAMAGED)


@click.command()
@study_argument
@slide_option
@click.option(
    "--format",
    "formats",
    callback=split_exports,
    required=True,
    metavar="F",
    help="ome-zarr, ome-tiff, geojson, asap-xml, png or csv; several with commas.",
)
@click.option(
    "--what",
    type=click.Choice(["pseudo", "corrections", "prediction"]),
    default="pseudo",
    show_default=True,
    help="The mask with corrections laid over it, the corrections alone, or what a round predicts.",
)
@click.option("--round", "round_number", type=click.IntRange(1), help="Whose prediction.  [default: the last]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder, or a file name.  [default: in the study]")
@click.option(
    "--tolerance",
    "tolerance_um",
    type=click.FloatRange(0),
    metavar="UM",
    help="How far polygons may miss outlines, in µm.  [default: 0.3 px of the mask, which loses nothing]",
)
@click.option(
    "--mpp", type=click.FloatRange(0, min_open=True), help="µm per pixel of pictures.  [default: the mask's own]"
)
@json_option
def export(study: Path, slide: str | None, formats: list[str], out: Path | None, as_json: bool, **options: Any) -> None:
    """Write files of what STUDY holds of a slide, for other tools."""
    from napari_histodistill.export import ExportOptions, ExportRequest, run_export
    from napari_histodistill.study import Study

    how = ExportOptions(tolerance_um=options["tolerance_um"], mpp=options["mpp"])
    entry = Study.open(study).slide_named(slide)
    request = ExportRequest(entry.folder, tuple(formats), options["what"], options["round_number"], out, how)
    written = run_shown(run_export, request)
    print_result({name: str(path) for name, path in written.items()}, as_json)


@click.command()
@study_argument
@slide_option
@json_option
def audit(study: Path, slide: str | None, as_json: bool) -> None:
    """Say how good the predictions of a slide in STUDY are on the patches that were audited in napari."""
    from napari_histodistill.predict.audit import FiguresRequest, audit_figures
    from napari_histodistill.study import Study

    entry = Study.open(study).slide_named(slide)
    print_result(run_shown(audit_figures, FiguresRequest(entry)).to_json(), as_json)
