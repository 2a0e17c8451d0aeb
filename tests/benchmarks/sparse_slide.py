"""A large slide made in seconds: two tiles, tissue and glass, encoded once and written as often as they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

TILE = 512
UM = 0.25
FIRST = 2048
"""Level-0 px from the corner to the tissue."""


def sparse_slide(folder: Path, height: int, width: int | None = None, side: int = 14_336, um: float = UM) -> Path:
    """A pyramid at ``um`` µm of glass with one square of stained texture of ``side`` px; made if it is not there."""
    width = width or height
    path = folder / f"sparse-{width}x{height}-{side}{'' if um == UM else f'-{um:g}'}.tiff"
    if not path.exists():
        partial = path.with_suffix(".partial")
        _write(partial, height, width, side, um)
        partial.replace(path)
    return path


def _write(path: Path, height: int, width: int, side: int, um: float) -> None:
    rng = np.random.default_rng(0)
    shade = np.kron(rng.random((32, 32)), np.ones((16, 16)))[..., None]
    colour = (1 - shade) * np.array([225, 150, 190]) + shade * np.array([140, 80, 160])
    tissue = np.clip(colour + rng.normal(0, 8, (TILE, TILE, 1)), 0, 255).astype(np.uint8)
    glass = np.full((TILE, TILE, 3), 243, np.uint8)
    encoded = {True: _encode(tissue), False: _encode(glass)}

    def inside(start: int, factor: int) -> np.ndarray:
        centres = (start + np.arange(TILE) + 0.5) * factor
        return (centres >= FIRST) & (centres < FIRST + side)

    def tiles(factor: int) -> Iterator[bytes]:
        for y in range(0, height // factor, TILE):
            for x in range(0, width // factor, TILE):
                there = inside(y, factor)[:, None] & inside(x, factor)
                whole = there.all() == there.any()
                yield encoded[bool(there.all())] if whole else _encode(np.where(there[..., None], tissue, glass))

    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for factor in (1, 4, 16, 64):
            tif.write(
                tiles(factor),
                shape=(height // factor, width // factor, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=(1, 1),
                compression="jpeg",
                resolution=(1e4 / (um * factor),) * 2,
                resolutionunit="CENTIMETER",
                subfiletype=int(factor > 1),
            )


def _encode(pixels: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(pixels, level=85, colorspace="RGB", outcolorspace="YCBCR", subsampling="444")
