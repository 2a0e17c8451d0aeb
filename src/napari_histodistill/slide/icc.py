"""Colours from a scanner's ICC profile to sRGB."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

from napari_histodistill.slide.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def to_srgb(profile: bytes) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """A function that converts uint8 (h, w, 3) from the profile to sRGB, relative colorimetric; safe on many threads.

    Raises SlideError if the profile is damaged or not one of RGB.
    """
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.NOCACHE,  # the cache is what would not be safe on many threads
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise SlideError("The ICC profile of this slide cannot be used: open it without colour conversion.") from error

    def convert(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        converted = transform.apply(Image.fromarray(pixels))
        return np.asarray(converted)

    return convert
