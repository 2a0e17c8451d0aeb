"""Pixel sizes, units and OpenSlide's properties."""

from __future__ import annotations

import pytest

from napari_histodistill.slide.metadata import checked_mpp, micrometres
from napari_histodistill.slide.sources.openslide_source import read_metadata


@pytest.mark.parametrize("mpp", [(0.05, 0.05), (0.25, 0.5), (8.0, 8.0)])
def test_plausible_pixel_sizes_are_believed(mpp: tuple[float, float]) -> None:
    assert checked_mpp(mpp) == (mpp, None)


@pytest.mark.parametrize("mpp", [None, (0.0499, 0.5), (0.5, 8.01), (0.0, 0.0), (-0.5, 0.5), (float("nan"), 0.5)])
def test_missing_and_absurd_ones_are_not(mpp: tuple[float, float] | None) -> None:
    believed, warning = checked_mpp(mpp)
    assert believed is None
    assert warning is not None
    assert "µm" in warning
    assert warning.endswith(".")


@pytest.mark.parametrize(
    ("unit", "size"),
    [("micrometer", 1), ("µm", 1), ("um", 1), ("nm", 1e-3), ("mm", 1e3), (" Inch", 25400), ("px", None)],
)
def test_units_of_length_in_micrometres(unit: str, size: float | None) -> None:
    assert micrometres(unit) == size


def test_openslide_properties_become_metadata() -> None:
    metadata = read_metadata(
        {
            "openslide.mpp-x": "0.25",
            "openslide.mpp-y": "0.5",
            "openslide.objective-power": "40",
            "openslide.vendor": "mirax",
            "openslide.bounds-x": "100",
            "openslide.bounds-y": "200",
            "openslide.bounds-width": "3000",
            "openslide.bounds-height": "4000",
            "openslide.background-color": "FFF0E0",
        }
    )
    assert metadata.raw_mpp == (0.5, 0.25)
    assert metadata.objective_power == 40
    assert metadata.vendor == "mirax"
    assert metadata.bounds == (200, 100, 4000, 3000)
    assert metadata.background == (255, 240, 224)


def test_properties_that_are_missing_or_no_numbers_are_none() -> None:
    metadata = read_metadata({"openslide.mpp-x": "0.25", "openslide.objective-power": "twenty"})
    assert (metadata.raw_mpp, metadata.objective_power, metadata.vendor, metadata.bounds) == (None,) * 4
    assert metadata.background == (255, 255, 255)
