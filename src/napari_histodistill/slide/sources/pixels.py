"""Samples of any kind to 8-bit RGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_histodistill.slide.errors import SlideError

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


@dataclass(frozen=True)
class SampleKind:
    """What the samples of a TIFF mean, and how they become 8-bit RGB.

    Parameters
    ----------
    kind
        "rgb", "grey", "inverted" (0 is white) or "palette".
    alpha
        Whether the fourth sample is opacity; "premultiplied" where colours were multiplied by it.
    white
        Sample value of full brightness; 0 until it is known.
    palette
        Colours (n, 3) uint8 of a palette.
    """

    kind: Literal["rgb", "grey", "inverted", "palette"]
    alpha: Literal["", "straight", "premultiplied"] = ""
    white: float = 255.0
    palette: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, page: Any, planes: int) -> SampleKind:
        """Kind of the samples of a tifffile page. Raises SlideError for colours that are not supported."""
        samples = int(page.samplesperpixel) * (planes if page.samplesperpixel == 1 else 1)
        white = 255.0 if page.dtype == np.uint8 and page.bitspersample == 8 else _declared_white(page)
        if page.photometric == 3 and page.colormap is not None:
            return cls("palette", palette=(np.asarray(page.colormap).T // 257).astype(np.uint8))
        if page.photometric in {0, 1} and samples < 3:
            return cls("inverted" if page.photometric == 0 else "grey", white=white)
        if page.photometric in {1, 2, 6} and samples >= 3:
            extra = int(page.extrasamples[0]) if page.extrasamples and planes == 1 else 0
            alpha: Literal["", "straight", "premultiplied"] = "premultiplied" if extra == 1 else "straight"
            return cls("rgb", alpha=alpha if extra in {1, 2} else "", white=white)
        name = getattr(page.photometric, "name", page.photometric)
        raise SlideError(f"{page.parent.filename} holds colours of kind {name}: convert it to RGB.")

    @property
    def needs_white(self) -> bool:
        """Whether full brightness has to be found from the samples."""
        return self.white == 0

    def notes(self) -> list[str]:
        """Sentences about conversions."""
        depth = "" if self.white == 255 else f" Samples from 0 to {self.white:g} are scaled to 8 bits."
        if self.kind == "rgb":
            return [depth.strip()] if depth else []
        return [f"{'Palette' if self.kind == 'palette' else 'Grey'} image, shown as RGB.{depth}"]

    def to_rgb(self, samples: NDArray[Any], background: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Samples (h, w, c) as uint8 (h, w, 3)."""
        if self.kind == "palette":
            assert self.palette is not None
            colours: NDArray[np.uint8] = self.palette[np.minimum(samples[..., 0], len(self.palette) - 1)]
            return colours
        eight = scale_to_8bit(samples, self.white)
        if self.kind != "rgb":
            return grey_to_rgb(eight[..., 0] if self.kind == "grey" else 255 - eight[..., 0])
        if not self.alpha:
            return eight[..., :3]
        if self.alpha == "straight":
            return composite(eight[..., :4], background)
        paper = np.asarray(background, np.float32) * (1 - eight[..., 3:4].astype(np.float32) / 255)
        mixed: NDArray[np.uint8] = np.rint(np.clip(eight[..., :3] + paper, 0, 255)).astype(np.uint8)
        return mixed


def _declared_white(page: Any) -> float:
    """Full brightness by the tags of a page, or 0 where 16 or more bits leave it open."""
    if page.dtype.kind == "b":
        return 1.0
    tag = page.tags.get("MaxSampleValue")
    if page.dtype.kind == "u" and tag is not None:
        return float(np.max(tag.value))
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    return 2.0**bits - 1 if page.dtype.kind == "u" and bits < 16 else 0.0
