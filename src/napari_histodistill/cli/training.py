"""Commands about models: ``cut``, ``train-teacher``, ``distill`` and ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from napari_histodistill.cli.console import print_payload, print_result, run_shown, say
from napari_histodistill.cli.options import (
    MODEL_HELP,
    Name,
    device_option,
    encoders,
    json_option,
    methods,
    mpp_option,
    recipes,
    smoothing_option,
    support_option,
    threads_option,
    threshold_option,
)


@click.command()
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

    result = run_shown(cut_dataset, CutRequest(data=data, out=out, **options))
    print_result(result.as_dict(), as_json)


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--method", type=Name(methods), default="gm", show_default=True, help="Family of the bag loss.")
@click.option("--encoder", type=Name(encoders), help="In place of the family's own.")
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
@threads_option
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the folder.")
def train_teacher(data: Path, out: Path, recipe: str, **options: Any) -> None:
    """Train a teacher on DATA from image-level labels only ('masks': with full masks, as the ceiling).

    DATA is a CSV manifest (image,label,mask,patient,split,mpp), what 'cut' left, or a folder of a known data set.
    """
    from napari_histodistill.mil import TEACHER_RECIPES, TrainRequest
    from napari_histodistill.mil import train_teacher as train

    request = TrainRequest(data=data, out=out, recipe=TEACHER_RECIPES[recipe], **options)
    result = run_shown(train, request, print_payload)
    say(f"Model in {result.folder}, started from {result.card.training.start}")


@click.command()
@click.option("--teacher", default="bundled", show_default=True, help=MODEL_HELP)
@click.option("--data", type=click.Path(path_type=Path), help="As train-teacher takes it.")
@click.option("--study", type=click.Path(path_type=Path), help="Instead of data: learn on the slides of a study.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(1), help="Epochs of a round.  [default: the recipe's]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="With --data: folder for rounds and the best model.")
@click.option("--recipe", type=Name(recipes), default="default", show_default=True)
@click.option("--encoder", type=Name(encoders), help="Encoder of the students.  [default: the teacher's]")
@click.option(
    "--select",
    type=click.Choice(["bags", "masks"]),
    default="bags",
    show_default=True,
    help="What says whether a student is better: labels of validation patients, or their masks.",
)
@mpp_option
@device_option
@threads_option
@click.option("--resume", is_flag=True, help="Go on with what lies in the folder.")
def distill(recipe: str, data: Path | None, study: Path | None, out: Path | None, **options: Any) -> None:
    """Distil a teacher into students, round by round.

    On DATA, OUT then holds the best model. On a study every round leaves its model and a prediction of every slide
    there; held-out corrections decide which is best, and --select and --mpp mean nothing.
    """
    from napari_histodistill.distill import DistillRequest, StudyRequest, distill_study, find_recipe
    from napari_histodistill.distill import distill as run

    options["recipe"] = find_recipe(recipe)
    if study is not None and data is None and out is None:
        del options["select"], options["mpp"]
        rounds = run_shown(distill_study, StudyRequest(study, **options), print_payload)
        say(f"Rounds in {rounds.folder}")
    elif study is None and data is not None and out is not None:
        result = run_shown(run, DistillRequest(data=data, out=out, **options), print_payload)
        say(f"Best model, from {result.best}, in {result.folder}")
    else:
        raise click.UsageError("Give either --data with --out, or --study.")


@click.command()
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
@support_option
@click.option("--per-image", type=click.Path(path_type=Path), help="CSV file to write the scores of every image to.")
@json_option
def evaluate(
    model: str, data: Path, mpp: float | None, device: str, per_image: Path | None, as_json: bool, **options: Any
) -> None:
    """Measure MODEL (a folder, or 'bundled') on DATA with masks, beside the all-foreground mask."""
    from napari_histodistill.mil import evaluate_model, load_dataset
    from napari_histodistill.nets import load_model

    loaded, dataset = load_model(model, device), load_dataset(data, mpp)
    result = run_shown(lambda _, control: evaluate_model(loaded, dataset, control=control, **options), None)
    if per_image is not None:
        result.write_per_image(per_image)
    print_result(result.to_json(), as_json)
