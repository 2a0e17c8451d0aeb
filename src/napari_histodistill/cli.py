"""The command line: ``histodistill``.

Results go to stdout (one JSON object with ``--json``), progress and warnings to stderr. What the user can mend is one
sentence on stderr and exit code 2.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_histodistill import __version__, console
from napari_histodistill.distill import RECIPES, find_recipe
from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import JobCancelled, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.predict import PredictRequest, PredictSummary
    from napari_histodistill.slide import Slide

    _Text = click.ParamType[str]
else:
    _Text = click.ParamType  # not generic in every version that will do

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class _UserError(click.ClickException):
    exit_code = EXIT_USER_ERROR


class _Interrupted(click.ClickException):
    exit_code = EXIT_INTERRUPTED


class _Commands(click.Group):
    """Turns what a user can mend, and a Ctrl-C, into one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HistodistillError as error:
            raise _UserError(str(error)) from error
        except JobCancelled as error:
            raise _Interrupted("Stopped; what was finished is kept, --resume goes on.") from error


class _Name(_Text):
    """One of the names that a registry has; it is asked only when it is needed."""

    name = "name"

    def __init__(self, names: Callable[[], Sequence[str]]) -> None:
        self._names = names

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002
        return f"[{'|'.join(self._names())}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self._names():
            self.fail(f"there is no {value!r}: choose one of {', '.join(self._names())}.", param, ctx)
        return value


def _methods() -> Sequence[str]:
    from napari_histodistill.mil import methods

    return methods()


def _encoders() -> Sequence[str]:
    from napari_histodistill.nets.registry import ENCODERS

    return ENCODERS.names()


def _split_exports(_ctx: click.Context, _param: click.Parameter, value: str) -> list[str]:
    """The formats of a comma-separated list."""
    from napari_histodistill.export import check_formats

    return check_formats(part.strip() for part in value.split(",") if part.strip())


slide_argument = click.argument("slide", type=click.Path(path_type=Path))
mpp_option = click.option(
    "--mpp", type=click.FloatRange(0, min_open=True), help="µm per pixel, where the files do not say or are wrong."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
model_option = click.option(
    "--model", default="bundled", show_default=True, help="A folder with model.json, or the name of a bundled model."
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
threshold_option = click.option(
    "--threshold", type=click.FloatRange(0, 1), help="Probability from which a pixel is tumour.  [default: the model's]"
)
smoothing_option = click.option(
    "--smoothing",
    "smoothing_um",
    type=click.FloatRange(0),
    metavar="UM",
    help="Sigma in µm of the Gaussian before the threshold.  [default: the model's]",
)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="histodistill")
def main() -> None:
    """Tumour masks for H&E slides, from models trained on image-level labels only. For research, not for diagnosis."""


@main.command()
@slide_argument
@mpp_option
@json_option
def info(slide: Path, mpp: float | None, as_json: bool) -> None:
    """Say what SLIDE is: size, levels, pixel size, tissue, warnings."""
    from napari_histodistill.slide import open_slide

    with open_slide(slide, mpp=mpp) as opened:
        facts = console.run(_describe, opened)
    _print_result(facts, as_json)


@main.command()
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
    callback=_split_exports,
    default="",
    metavar="FORMATS",
    help="Comma-separated: ome-zarr, ome-tiff, geojson, asap-xml, png, csv.",
)
@json_option
def segment(slide: Path, study: Path, exports: list[str], as_json: bool, **options: Any) -> None:
    """Find tumour in SLIDE and leave probability, pseudo-mask and exports in the study."""
    from napari_histodistill.predict import PredictRequest

    _print_result(_segment(PredictRequest(slide_path=slide, study_folder=study, **options), exports), as_json)


study_argument = click.argument("study", type=click.Path(path_type=Path))
slide_option = click.option(
    "--slide", metavar="NAME", help="Of the study's slides, by file name; needed if it has more."
)


@main.command()
@study_argument
@slide_option
@click.option(
    "--format",
    "formats",
    callback=_split_exports,
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
    written = console.run(run_export, request)
    _print_result({name: str(path) for name, path in written.items()}, as_json)


@main.command(name="import")
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
    from napari_histodistill.export import ImportRequest, apply_import, preview_import
    from napari_histodistill.study import Study

    meanings = dict(pair.rpartition("=")[::2] for pair in classes)
    entry = Study.open(study).slide_named(slide)
    preview = console.run(preview_import, ImportRequest(entry.folder, file, classes=meanings, **options))
    for note in preview.notes:
        click.secho(f"Note: {note}", err=True, fg="yellow")
    if not dry_run:
        console.run(apply_import, preview)
    _print_result(preview.summary(applied=not dry_run), as_json)


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for images, masks, manifest.csv.")
@click.option("--mpp", type=click.FloatRange(0.05, 8), required=True, help="µm per pixel of the cuts.")
@click.option(
    "--size", type=click.Choice(["256", "512"]), default="256", show_default=True, callback=lambda *a: int(a[2])
)
@click.option(
    "--source-mpp",
    type=click.FloatRange(0, min_open=True),
    help="µm per pixel of the slides, where the files do not say or are wrong.",
)
@click.option(
    "--min-tissue", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Least share of tissue in a cut."
)
@click.option(
    "--min-tumour",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Share of a cut's tissue from which tumour makes it positive; cuts with less, but some, are left out.",
)
@click.option(
    "--negatives",
    type=click.Choice(["all", "normal"]),
    default="all",
    show_default=True,
    help="Slides that negative cuts come from: all, or those without tumour.",
)
@click.option("--per-slide", type=click.IntRange(1), help="At most so many positive and so many negative cuts a slide.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draw with --per-slide.")
@click.option("--resume", is_flag=True, help="Go on with a cutting that was stopped.")
@json_option
def cut(data: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Cut the slides of DATA (Camelyon16 or DigestPath2019, as published) into images with image-level labels."""
    from napari_histodistill.mil.data import CutRequest, cut_dataset

    result = console.run(cut_dataset, CutRequest(data=data, out=out, **options))
    _print_result(result.as_dict(), as_json)


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--method", type=_Name(_methods), default="gm", show_default=True, help="Family of the bag loss.")
@click.option("--encoder", type=_Name(_encoders), help="In place of the family's own.")
@click.option(
    "--attention/--no-attention", default=None, help="At every depth of the network.  [default: the family's]"
)
@click.option(
    "--recipe",
    type=click.Choice(["default", "published"]),
    default="default",
    show_default=True,
    help="The best found, or the family's loss as its paper has it.",
)
@click.option("--epochs", type=click.IntRange(1), default=8, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the model.")
@mpp_option
@device_option
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: torch's choice]")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the folder.")
def train_teacher(data: Path, out: Path, recipe: str, **options: Any) -> None:
    """Train a teacher on DATA from image-level labels only ('masks': with full masks, as the ceiling).

    DATA is a CSV manifest (image,label,mask,patient,split,mpp), what 'cut' left, or a folder of a known data set.
    """
    from napari_histodistill.mil import TEACHER_RECIPES, TrainRequest
    from napari_histodistill.mil import train_teacher as train

    request = TrainRequest(data=data, out=out, recipe=TEACHER_RECIPES[recipe], **options)
    result = console.run(train, request, _print_payload)
    click.echo(f"Model in {result.folder}, started from {result.card.training.start}")


@main.command()
@click.option(
    "--teacher", default="bundled", show_default=True, help="A folder with model.json, or the name of a bundled model."
)
@click.option("--data", type=click.Path(path_type=Path), help="As train-teacher takes it.")
@click.option("--study", type=click.Path(path_type=Path), help="Instead of data: learn on the slides of a study.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(1), help="Epochs of a round.  [default: the recipe's]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="With --data: folder for rounds and the best model.")
@click.option("--recipe", type=click.Choice(tuple(RECIPES)), default="default", show_default=True)
@click.option("--encoder", type=_Name(_encoders), help="Encoder of the students.  [default: the teacher's]")
@click.option(
    "--select",
    type=click.Choice(["bags", "masks"]),
    default="bags",
    show_default=True,
    help="What says whether a student is better: labels of validation patients, or their masks.",
)
@mpp_option
@device_option
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: torch's choice]")
@click.option("--resume", is_flag=True, help="Go on with what lies in the folder.")
def distill(recipe: str, data: Path | None, study: Path | None, out: Path | None, **options: Any) -> None:
    """Distil a teacher into students, round by round.

    On DATA, OUT then holds the best model. On a study every round leaves its model and a prediction of every slide
    there; held-out corrections decide which is best, and --select and --mpp mean nothing.
    """
    from napari_histodistill.distill import DistillRequest, StudyRequest, distill_study
    from napari_histodistill.distill import distill as run

    options["recipe"] = find_recipe(recipe)
    if study is not None and data is None and out is None:
        del options["select"], options["mpp"]
        rounds = console.run(distill_study, StudyRequest(study, **options), _print_payload)
        click.echo(f"Rounds in {rounds.folder}")
    elif study is None and data is not None and out is not None:
        result = console.run(run, DistillRequest(data=data, out=out, **options), _print_payload)
        click.echo(f"Best model, from {result.best}, in {result.folder}")
    else:
        raise click.UsageError("Give either --data with --out, or --study.")


@main.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["auto", "all", "train", "val", "test"]),
    default="auto",
    show_default=True,
    help="Images to measure on; auto: patients that the model has not seen.",
)
@click.option(
    "--normalise/--no-normalise", default=None, help="Normalise the stain of every image.  [default: the model's]"
)
@mpp_option
@device_option
@threshold_option
@smoothing_option
@click.option("--per-image", type=click.Path(path_type=Path), help="CSV file to write the scores of every image to.")
@json_option
def evaluate(
    model: str, data: Path, mpp: float | None, device: str, per_image: Path | None, as_json: bool, **options: Any
) -> None:
    """Measure MODEL (a folder, or 'bundled') on DATA with masks, beside the all-foreground mask."""
    from napari_histodistill.mil import evaluate_model, load_dataset
    from napari_histodistill.nets import load_model

    loaded, dataset = load_model(model, device), load_dataset(data, mpp)
    result = console.run(lambda _, control: evaluate_model(loaded, dataset, control=control, **options), None)
    if per_image is not None:
        result.write_per_image(per_image)
    _print_result(result.to_json(), as_json)


@main.command()
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
    _print_result(result, as_json=False)
    click.echo(f"\nLook at {result['exports']['png']}")


def _print_payload(progress: Progress) -> None:
    """A line for every finished epoch or round."""
    from napari_histodistill.distill.rounds import Round
    from napari_histodistill.mil.settings import Epoch

    if isinstance(progress.payload, Epoch | Round):
        click.echo(str(progress.payload))


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
            click.secho(f"Warning: {sentence}", err=True, fg="yellow")

    def show_notice(progress: Progress) -> None:
        if isinstance(progress.payload, Notice):
            warn(progress.payload.sentence)

    summary: PredictSummary = console.run(predict_slide, request, show_notice)
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


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    """One JSON object, or a line for every entry."""
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
        return
    width = max(map(len, result))
    for key, value in result.items():
        name = f"{key.replace('_', ' '):{width}}"
        for line in _lines(value):
            click.echo(f"{name}  {line}")
            name = " " * width


def _lines(value: Any) -> list[str]:
    """A value for people: dictionaries and lists have a line per entry, sizes and intervals one, numbers 4 digits."""
    if isinstance(value, dict):
        return [f"{key}: {' '.join(_lines(entry))}" for key, entry in value.items()]
    if isinstance(value, tuple):
        return [" x ".join(" ".join(_lines(entry)) for entry in value)]
    if isinstance(value, list) and len(value) == 2 and all(isinstance(entry, float) for entry in value):
        return [" to ".join(" ".join(_lines(entry)) for entry in value)]
    if isinstance(value, list):
        return [" ".join(_lines(entry)) for entry in value]
    if isinstance(value, float):
        return [f"{value:.4g}"]
    return ["unknown" if value is None else str(value)]
