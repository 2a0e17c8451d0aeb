"""What the manifest points at: readers and sample data, which also make the viewer follow its slides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari

from napari_histodistill.viewer import reader, samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_histodistill.viewer.reader import LayerData


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Reader of slides: whole-slide formats, OME-Zarr, and ordinary TIFF, PNG and JPEG."""
    _follow()
    return reader.get_reader(path)


def generated_slide() -> list[LayerData]:
    """Sample data: a generated H&E-like slide with known truth."""
    _follow()
    return samples.generated_slide()


def cmu_slide() -> list[LayerData]:
    """Sample data: OpenSlide's CMU-1-Small-Region, downloaded once."""
    _follow()
    return samples.cmu_slide()


def _follow() -> None:
    """Make the viewer, if there is one, build the levels of its slides and close them when they are removed."""
    viewer = napari.current_viewer()
    if viewer is not None:
        from napari_histodistill.widgets.session import session_of

        session_of(viewer)
