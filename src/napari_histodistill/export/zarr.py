"""Probability and corrected pseudo-mask as one OME-Zarr: an image with a label image under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from napari_histodistill.study import Pyramid

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.study import StudySlide

ROWS = 512
LABELS = "pseudo-mask"


def write_ome_zarr(entry: StudySlide, probability: zarr.Array[Any], folder: Path) -> None:
    """Write an OME-Zarr 0.5: the probability (uint8, x 255) and, as labels, the mask with corrections laid over it.

    Both are multiscale, in µm, on the working grid.
    """
    image = Pyramid.create(folder, entry.grid, "image", name="tumour probability")
    zarr.open_group(folder, mode="r+").create_group(
        "labels", attributes={"ome": {"version": "0.5", "labels": [LABELS]}}
    )
    labels = Pyramid.create(folder / "labels" / LABELS, entry.grid, "labels", name=LABELS)
    for y, mask in entry.mask_blocks(ROWS):
        image.write(y, 0, np.asarray(probability[y : y + len(mask)]))
        labels.write(y, 0, mask)
