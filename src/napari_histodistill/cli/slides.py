"""Commands about one slide: ``info``, ``segment`` and ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_histodistill.cli.console import print_result, run_shown
from napari_histodistill.cli.options import (
    device_option,
    json_option,
    model_option,
    mpp_option,
    slide_argument,
    smoothing_option,
    split_exports,
    threshold_option,
)
from napari_histodistill.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histodistill.jobs import JobControl, Progress
    from napari_histodistill.predict import PredictRequest, PredictSummary
    from napari_histodistill.slide import Slide


@click.command()
@slide_argument
@mpp_option
@json_option
def info(slide: Path, mpp: float | None, as_json: bool) -> None:
    """Say what SLIDE is: size, levels, pixel size, tissue, warnings."""
    from napari_histodistill.slide import open_slide

    with open_slide(slide, mpp=mpp) as opened:
        facts = run_shown(_describe, opened)
    print_result(facts, as_json)


@click.command()
@slide_argument
@click.option(
    "--study", type=click.Path(path_type=Path), required=True, help="Folder that keeps the work; made if new."
)
@model_option
@mpp_option
@device_option
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped.")
@click.option("--force", is_flag=True, help="Run although the slide is coarser than the model can use.")
@threshold_option
@smoothing_option
@click.option(
    "--export",
    "exports",
    callback=split_exports,
    default="",
    metavar="FORMATS",
    help="Comma-separated: ome-zarr, ome-tiff, geojson, asap-xml, png, csv.",
)
@json_option
def segment(slide: Path, study: Path, exports: list[str], as_json: bool, **options: Any) -> None:
    """Find tumour in SLIDE and leave probability, pseudo-mask and exports in the study."""
    from napari_histodistill.predict import PredictRequest

    print_result(_segment(PredictRequest(slide_path=slide, study_folder=study, **options), exports), as_json)


@click.command()
@click.argument("slide", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), default=Path("histodistill-demo"), show_default=True)
@model_option
@mpp_option
@device_option
def demo(slide: Path | None, out: Path, **options: Any) -> None:
    """Segment SLIDE, or a generated one, and leave a picture to look at."""
    from napari_histodistill.predict import PredictRequest
    from napari_histodistill.slide.synthetic import sample_slide_path

    if slide is None:
        click.echo("Drawing a sample slide ...", err=True)
    path = slide or sample_slide_path()
    request = PredictRequest(slide_path=path, study_folder=out / "study", **options)
    result = _segment(request, ("png", "geojson", "csv"), out)
    if slide is None:
        result |= _compare_with_truth(path, Path(result["slide_folder"]))
    print_result(result, as_json=False)
    click.echo(f"\nLook at {result['exports']['png']}")


def _describe(slide: Slide, control: JobControl) -> dict[str, Any]:
    """What ``info`` tells. A pixel size that no slide has is given as the file gives it, beside its warning."""
    from napari_histodistill.slide import find_tissue

    tissue = find_tissue(slide, control=control)
    mpp_y, mpp_x = slide.mpp or slide.metadata.raw_mpp or (None, None)
    return {
        "path": str(slide.path),
        "format": slide.format,
        "vendor": slide.metadata.vendor,
        "width": slide.shape[1],
        "height": slide.shape[0],
        "mpp_x": mpp_x,
        "mpp_y": mpp_y,
        "objective_power": slide.metadata.objective_power,
        "levels": [
            {"width": level.shape[1], "height": level.shape[0], "downsample": round(sum(level.downsample) / 2, 4)}
            for level in slide.levels
            if level.stored
        ],
        "associated_images": list(slide.associated_images()),
        "tissue_fraction": round(tissue.fraction, 4),
        "unreadable_regions": slide.unreadable,
        "warnings": [*slide.warnings, *tissue.warnings],
    }


def _segment(request: PredictRequest, exports: Sequence[str], folder: Path | None = None) -> dict[str, Any]:
    """Predict and export (into the study, or ``folder``); the summary as JSON, with the files under ``exports``."""
    from napari_histodistill.export import export_slide
    from napari_histodistill.predict import Notice, predict_slide

    warned: list[str] = []

    def warn(sentence: str) -> None:
        if sentence not in warned:
            warned.append(sentence)
            click.secho(f"Warning: {printable(sentence)}", err=True, fg="yellow")

    def show_notice(progress: Progress) -> None:
        if isinstance(progress.payload, Notice):
            warn(progress.payload.sentence)

    summary: PredictSummary = run_shown(predict_slide, request, show_notice)
    for sentence in summary.warnings:
        warn(sentence)
    paths = export_slide(Path(summary.slide_folder), exports, folder)
    return {**summary.as_dict(), "exports": {name: str(path) for name, path in paths.items()}}


def _compare_with_truth(slide: Path, study_slide: Path) -> dict[str, Any]:
    """Dice of the pseudo-mask against the generated slide's truth, and that of calling all tissue tumour."""
    import numpy as np
    from PIL import Image

    from napari_histodistill.slide.labels import IGNORE, OUTSIDE, TUMOUR
    from napari_histodistill.slide.synthetic import sample_truth
    from napari_histodistill.study import StudySlide

    mask = np.asarray(StudySlide.open(study_slide).pseudo_mask())
    size = (mask.shape[1], mask.shape[0])
    truth = np.asarray(Image.fromarray(sample_truth(slide)).resize(size, Image.Resampling.NEAREST))

    def dice(found: Any) -> float:
        counted = mask != IGNORE
        both = np.count_nonzero(found & truth & counted)
        return round(2 * both / (np.count_nonzero(found & counted) + np.count_nonzero(truth & counted)), 3)

    return {"dice_against_truth": dice(mask == TUMOUR), "dice_of_all_tissue": dice(mask != OUTSIDE)}
