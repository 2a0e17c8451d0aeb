"""Samples of any kind to 8-bit RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def white_level(samples: NDArray[Any]) -> float:
    """Value that counts as full brightness: of the bit depth that integers use, 1 or 255 for floats.

    Cameras of 12 bits write 16-bit files whose upper bits are zero; scaled by 16 bits they would look black.
    """
    if samples.dtype.kind == "b":
        return 1.0
    largest = float(np.nanmax(samples, initial=0))
    if samples.dtype.kind == "f":
        return next((white for white in (1.0, 255.0) if largest <= white), largest)
    bits = next((bits for bits in (8, 10, 12, 14, 16, 20, 24) if largest < 2**bits), 32)
    return 2.0**bits - 1


def scale_to_8bit(samples: NDArray[Any], white: float) -> NDArray[np.uint8]:
    """Samples from 0 to `white` as uint8 from 0 to 255, rounded; values outside are clipped."""
    if samples.dtype == np.uint8 and white == 255:
        return samples
    clean = np.nan_to_num(samples) if samples.dtype.kind == "f" else samples
    scaled = np.clip(clean, 0, white).astype(np.float32)
    eight: NDArray[np.uint8] = np.rint(scaled * np.float32(255 / white)).astype(np.uint8)
    return eight


def grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey pixels (h, w) as (h, w, 3)."""
    return np.repeat(grey[..., None], 3, axis=2)


def composite(rgba: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Lay straight-alpha pixels (h, w, 4) over a colour: uint8 (h, w, 3)."""
    alpha = rgba[..., 3]
    if (alpha == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    weight = alpha[..., None].astype(np.uint32)
    mixed = rgba[..., :3] * weight + np.asarray(background, np.uint32) * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)
