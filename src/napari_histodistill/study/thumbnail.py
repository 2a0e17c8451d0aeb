"""A small picture of a slide, kept in the study: of its pixels only, never its label or overview picture."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from napari_histodistill.slide import open_slide
from napari_histodistill.slide.errors import DAMAGED
from napari_histodistill.study.files import StudyError, write_atomically
from napari_histodistill.urls import UrlPath

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.study.slide import StudySlide

logger = logging.getLogger(__name__)

SIDE: Final = 128
"""Px of the longer side."""
NAME: Final = "thumbnail.png"


def thumbnail_of(entry: StudySlide) -> npt.NDArray[np.uint8] | None:
    """The slide, at most `SIDE` px high and wide: uint8 (h, w, 3), from the study where it is kept.

    None where the file is not there, or would have to be read whole: it is, in the background, once it is opened.

    Raises
    ------
    SlideError
        If the file is no slide any more.
    """
    path = entry.folder / NAME
    kept = _kept(path)
    if kept is not None or not entry.is_there:
        return kept
    with open_slide(entry.known_path, mpp=entry.mpp) as slide:
        pixels = slide.quick_thumbnail(SIDE)
    if pixels is not None and not isinstance(path, UrlPath):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        try:
            write_atomically(path, buffer.getvalue())
        except StudyError:
            logger.info("%s cannot be written: the picture will be made again", path)
    return pixels


def _kept(path: Path) -> npt.NDArray[np.uint8] | None:
    """The picture in a study, None if it is not there yet, damaged, or not one that this software wrote."""
    try:
        with path.open("rb") as file, Image.open(file, formats=["PNG"]) as picture:
            return np.asarray(picture.convert("RGB")) if max(picture.size) <= SIDE else None
    except (*DAMAGED, Image.DecompressionBombError):
        return None
