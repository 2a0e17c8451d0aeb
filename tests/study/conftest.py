"""A slide that a study can know without a file of pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from napari_histodistill.slide.grid import WorkingGrid
from napari_histodistill.slide.metadata import SlideMetadata
from napari_histodistill.study import Study, StudySlide


@dataclass
class FakeSlide:
    path: Path
    shape: tuple[int, int] = (4001, 6007)
    mpp: tuple[float, float] = (0.5, 0.25)
    fingerprint: str = "one"
    metadata: SlideMetadata = field(default_factory=lambda: SlideMetadata(bounds=(100, 50, 3000, 5000)))

    def require_mpp(self) -> tuple[float, float]:
        return self.mpp


@pytest.fixture
def fake_slide(tmp_path: Path) -> FakeSlide:
    path = tmp_path / "data" / "my slide é.svs"
    path.parent.mkdir()
    path.write_bytes(b"")
    return FakeSlide(path)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "study")


@pytest.fixture
def entry(study: Study, fake_slide: FakeSlide) -> StudySlide:
    return study.add_slide(fake_slide)


@pytest.fixture
def odd_grid() -> WorkingGrid:
    """A grid none of whose levels has an even size."""
    return WorkingGrid((1027, 2051), (4110, 8203), (0.5, 0.4))
