"""Generated slides: small files of every kind, so that something runs without the shared data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Added levels go to a folder of the test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("HISTODISTILL_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., Picture]:
    """Smooth random colours, so that lossy compression keeps them recognisable: ``make_picture(height, width)``."""

    def make(height: int, width: int, seed: int = 0) -> Picture:
        rng = np.random.default_rng(seed)
        rough = rng.normal(size=(-(-height // 8) + 1, -(-width // 8) + 1, 3))
        smooth = ndimage.zoom(rough, (8, 8, 1), order=1)[:height, :width]
        return np.clip(150 + 45 * smooth, 0, 255).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def write_tiff() -> Callable[..., Path]:
    """``write_tiff(path, [level 0, level 1, ...], tile=128, mpp=0.5, **tifffile options)``: a generic pyramid."""

    def write(path: Path, levels: list[NDArray[Any]], tile: int = 128, mpp: float = 0.5, **options: Any) -> Path:
        settings = {"photometric": "rgb", "compression": "jpeg", "metadata": None} | options
        with tifffile.TiffWriter(path) as writer:
            for number, level in enumerate(levels):
                resolution = 1e4 / (mpp * levels[0].shape[0] / level.shape[0])
                writer.write(
                    level,
                    tile=(tile, tile),
                    subfiletype=1 if number else 0,
                    resolution=(resolution, resolution),
                    resolutionunit="CENTIMETER",
                    **settings,
                )
        return path

    return write


@pytest.fixture
def pyramid(tmp_path: Path, make_picture: Callable[..., Picture], write_tiff: Callable[..., Path]) -> Path:
    """A generic JPEG TIFF with downsamples 1, 2.01 and 8.1: sides that no tile divides."""
    full = make_picture(901, 1203)
    levels = [full, full[::2, ::2][:448, :598], full[::8, ::8][:111, :149]]
    return write_tiff(tmp_path / "pyramid.tiff", levels)


@pytest.fixture
def break_tile() -> Callable[[Path, int], None]:
    """``break_tile(path, index)`` overwrites one tile of the first level with bytes that decode to nothing."""

    def break_one(path: Path, index: int) -> None:
        with tifffile.TiffFile(path) as tif:
            offset, size = tif.pages[0].dataoffsets[index], tif.pages[0].databytecounts[index]
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"\x17" * size)

    return break_one
