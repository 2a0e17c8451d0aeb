"""The fast path must equal OpenSlide, pixel for pixel, on every file both can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_histodistill.slide import open_slide
from napari_histodistill.slide.sources.openslide_source import OpenSlideSource
from napari_histodistill.slide.sources.tiff import TiffSource

if TYPE_CHECKING:
    from pathlib import Path

BOTH = [
    "CMU-1-Small-Region.svs",
    "CMU-1-Small-Region-wrong-mpp.jpeg.tiff",
    "crc-section-pyramid.tiff",
    "fixtures/boxes.tiff",
    "fixtures/small.svs",
    "fixtures/😐.svs",
]


def windows(rng: np.random.Generator, shape: tuple[int, int], count: int) -> list[tuple[int, int, int, int]]:
    """Random windows and the four corners; some reach beyond the level."""
    height, width = shape
    h, w = min(300, height), min(400, width)
    corners = [(-7, -9, 40, 50), (-7, width - 20, 40, 50), (height - 20, -9, 40, 50), (height - 20, width - 20, 40, 50)]
    picked = [(int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w) for _ in range(count)]
    return corners + picked


@pytest.mark.parametrize("name", BOTH)
def test_fast_path_equals_openslide_exactly(slides_dir: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    with (
        open_slide(slides_dir / name, source="fast") as fast,
        open_slide(slides_dir / name, source="openslide") as reference,
    ):
        assert isinstance(fast._source, TiffSource)
        assert isinstance(reference._source, OpenSlideSource)
        assert fast.metadata == reference.metadata
        assert [level.shape for level in fast.levels] == [level.shape for level in reference.levels]
        for number, level in enumerate(fast.levels):
            if level.stored:
                for window in windows(rng, level.shape, 12):
                    np.testing.assert_array_equal(
                        fast.read_level(number, *window), reference.read_level(number, *window)
                    )
        assert fast.unreadable == reference.unreadable == 0
