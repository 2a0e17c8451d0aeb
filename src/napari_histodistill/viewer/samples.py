"""Sample data in napari's File > Open Sample menu."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import napari
import numpy as np

from napari_histodistill.errors import HistodistillError
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.cache import cache_folder
from napari_histodistill.viewer.geometry import Frame
from napari_histodistill.viewer.layers import slide_layer
from napari_histodistill.viewer.reader import NOTHING, LayerData
from napari_histodistill.viewer.work import tell

CMU_URL: Final = "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs"
CMU_SHA256: Final = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"


class SampleError(HistodistillError):
    """A sample cannot be had, for instance because there is no network."""


def generated_slide() -> list[LayerData]:
    """A generated H&E-like slide and, hidden, the truth about its tumour. Drawn once, then kept in the cache."""
    from napari_histodistill.slide.synthetic import sample_slide_path, sample_truth

    path = sample_slide_path()
    slide = open_slide(path)
    truth = sample_truth(path).astype(np.uint8)
    place = Frame(slide.shape, slide.mpp).place(truth.shape)
    return [slide_layer(slide), (truth, {"name": "truth", "visible": False, **place}, "labels")]


def cmu_slide() -> list[LayerData]:
    """A small region of a real H&E slide; told in one sentence if it cannot be downloaded."""
    try:
        return [slide_layer(open_slide(download_cmu()))]
    except HistodistillError as error:
        if napari.current_viewer() is None:
            raise
        tell(error)
        return NOTHING


def download_cmu(url: str = CMU_URL, folder: Path | None = None) -> Path:
    """Path of OpenSlide's CMU-1-Small-Region.svs (2 MB, CC0), downloaded if need be and checked by its hash.

    Raises
    ------
    SampleError
        If it cannot be downloaded or is not what it should be.
    """
    import pooch

    folder = folder or cache_folder() / "samples"
    try:
        return Path(pooch.retrieve(url, known_hash=f"sha256:{CMU_SHA256}", fname=url.rpartition("/")[2], path=folder))
    except ValueError as error:
        raise SampleError(
            "The downloaded CMU-1-Small-Region.svs is not the file it should be: try again later."
        ) from error
    except OSError as error:  # errors of requests are OSErrors
        raise SampleError(
            "CMU-1-Small-Region.svs cannot be downloaded: check the network, or open a slide of your own."
        ) from error
