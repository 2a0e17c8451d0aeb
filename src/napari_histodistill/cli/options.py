"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    _Text = click.ParamType[str]
else:
    _Text = click.ParamType  # not generic in every version that will do


class Name(_Text):
    """One of the names that a registry has; it is asked only when it is needed."""

    name = "name"

    def __init__(self, names: Callable[[], Sequence[str]]) -> None:
        self._names = names

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002
        """The names, for the help."""
        return f"[{'|'.join(self._names())}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name itself, refused if the registry lacks it."""
        if value not in self._names():
            self.fail(f"there is no {value!r}: choose one of {', '.join(self._names())}.", param, ctx)
        return value


def methods() -> Sequence[str]:
    """Names of teacher families."""
    from napari_histodistill.mil import methods

    return methods()


def encoders() -> Sequence[str]:
    """Names of encoders."""
    from napari_histodistill.nets.registry import ENCODERS

    return ENCODERS.names()


def recipes() -> Sequence[str]:
    """Names of recipes of distillation."""
    from napari_histodistill.distill import RECIPES

    return tuple(RECIPES)


def split_exports(_ctx: click.Context, _param: click.Parameter, value: str) -> list[str]:
    """The formats of a comma-separated list."""
    from napari_histodistill.export import check_formats

    return check_formats(part.strip() for part in value.split(",") if part.strip())


slide_argument = click.argument("slide", type=click.Path(path_type=Path))
study_argument = click.argument("study", type=click.Path(path_type=Path))
slide_option = click.option(
    "--slide", metavar="NAME", help="Of the study's slides, by file name; needed if it has more."
)
mpp_option = click.option(
    "--mpp", type=click.FloatRange(0, min_open=True), help="µm per pixel, where the files do not say or are wrong."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
MODEL_HELP = "A folder with model.json, or the name of a bundled model."
model_option = click.option("--model", default="bundled", show_default=True, help=MODEL_HELP)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads.  [default: torch's choice, but never all cores]"
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
support_option = click.option(
    "--support",
    type=click.FloatRange(0, 1, max_open=True),
    help="Score that the surroundings of tumour must reach; 0 for none.  [default: the model's]",
)
