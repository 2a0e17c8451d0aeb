"""Commands about one slide: ``info``, ``segment`` and ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_histodistill.cli.console import EXIT_SOME_FAILED, print_result, run_shown
from napari_histodistill.cli.options import (
    device_option,
    json_option,
    model_option,
    mpp_option,
    slide_argument,
    smoothing_option,
    split_exports,
    support_option,
    threads_option,
    threshold_option,
)
from napari_histodistill.errors import HistodistillError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histodistill.jobs import Progress
    from napari_histodistill.predict import PredictRequest


@click.command()
@slide_argument
@mpp_option
@json_option
def info(slide: Path, mpp: float | None, as_json: bool) -> None:
    """Say what SLIDE is: size, levels, pixel size, tissue, warnings."""
    from napari_histodistill.api import describe
    from napari_histodistill.slide import open_slide

    with open_slide(slide, mpp=mpp) as opened:
        facts = run_shown(describe, opened)
    print_result(facts, as_json)


@click.command()
@click.argument("slides", nargs=-1, required=True, type=click.Path(path_type=Path))
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
@support_option
@click.option(
    "--export",
    "exports",
    callback=split_exports,
    default="",
    metavar="FORMATS",
    help="Comma-separated: ome-zarr, ome-tiff, geojson, asap-xml, png, csv.",
)
@threads_option
@click.option("--scheduler", default="", metavar="ADDRESS", help="Compute on the workers of this dask scheduler.")
@click.option(
    "--local-cluster", type=click.IntRange(1), default=None, metavar="N", help="Compute in N processes of this machine."
)
@json_option
def segment(
    slides: tuple[Path, ...],
    study: Path,
    exports: list[str],
    scheduler: str,
    local_cluster: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find tumour in SLIDES and leave probability, pseudo-mask and exports in the study.

    Of several slides, those that fail are told and the others go on; the exit code is then 1.
    """
    from napari_histodistill.predict import PredictRequest

    if scheduler and local_cluster:
        raise click.UsageError("Give either --scheduler or --local-cluster.")
    requests = [PredictRequest(slide_path=path, study_folder=study, **options) for path in dict.fromkeys(slides)]
    results, failures = _segment(requests, exports, scheduler=scheduler, local_workers=local_cluster or 0)
    if len(requests) == 1:
        print_result(results[0], as_json)
        return
    if as_json:
        print_result({"slides": results, "failed": failures}, as_json)
    else:
        for result in results:
            print_result(result, as_json)
            click.echo()
        click.echo(f"{len(results)} of {len(requests)} slides done.")
    if failures:
        raise click.exceptions.Exit(EXIT_SOME_FAILED)


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
    ((result,), _) = _segment([request], ("png", "geojson", "csv"), out)
    if slide is None:
        result |= _compare_with_truth(path, Path(result["slide_folder"]))
    print_result(result, as_json=False)
    click.echo(f"\nLook at {result['exports']['png']}")


def _segment(
    requests: Sequence[PredictRequest], exports: Sequence[str], folder: Path | None = None, **cluster: Any
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Predict and export (into the study, or ``folder``); as JSON the summaries, with their exports, and the failures.

    What fails of a single slide is raised.
    """
    from napari_histodistill.export import export_slide
    from napari_histodistill.predict import CohortRequest, Notice, SlideFailure, predict_cohort

    alone = len(requests) == 1
    told: list[str] = []

    def tell(sentence: str, kind: str = "Warning") -> None:
        if sentence not in told:
            told.append(sentence)
            click.secho(f"{kind}: {printable(sentence)}", err=True, fg="yellow" if kind == "Warning" else "red")

    def show(progress: Progress) -> None:
        if isinstance(progress.payload, Notice):
            tell(progress.payload.sentence)

    def fail(failure: SlideFailure) -> None:
        if alone:
            raise HistodistillError(failure.sentence)
        tell(f"{failure.slide.name}: {failure.sentence}", "Failed")
        failures.append({"slide": str(failure.slide), "error": failure.sentence})

    results: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    outcome = run_shown(predict_cohort, CohortRequest(tuple(requests), **cluster), show)
    for failure in outcome.failures:
        fail(failure)
    for summary in outcome.summaries:
        for sentence in summary.warnings:
            tell(sentence if alone else f"{Path(summary.slide).name}: {sentence}")
        try:
            paths = export_slide(Path(summary.slide_folder), exports, folder)
        except HistodistillError as error:
            fail(SlideFailure(Path(summary.slide), str(error)))
            continue
        results.append({**summary.as_dict(), "exports": {name: str(path) for name, path in paths.items()}})
    return results, failures


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
