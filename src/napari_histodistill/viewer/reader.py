"""Reading slides for napari: from a path to layer data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import napari
from napari.utils.notifications import show_warning

from napari_histodistill.errors import HistodistillError
from napari_histodistill.viewer.layers import slide_layer
from napari_histodistill.viewer.work import tell

LayerData: TypeAlias = tuple[Any, ...]
NOTHING: list[LayerData] = [(None,)]
"""What a reader gives napari to say that it has dealt with a path and there is no layer."""


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Napari's reader hook: a function that reads slides; None for a stack, which slides are not."""
    return None if isinstance(path, list) and len(path) > 1 else read_slides


def read_slides(path: str | list[str]) -> list[LayerData]:
    """Open a slide, or several, as multiscale layers; no pixel is read.

    What cannot be opened is told in one sentence: as a notification where there is a napari window, otherwise as the
    HistodistillError that it is.
    """
    layers = []
    for one in [path] if isinstance(path, str) else path:
        try:
            layers.append(_read(one))
        except HistodistillError as error:
            if napari.current_viewer() is None:
                raise
            tell(error)
    return layers or NOTHING


def _read(path: str) -> LayerData:
    from napari_histodistill.slide import open_slide

    slide = open_slide(Path(path))
    if slide.mpp is None and napari.current_viewer() is not None:
        show_warning(f"The pixel size of {slide.name} is unknown: enter it in Plugins > HistoDistill > Slide.")
    return slide_layer(slide)
