"""Readers of outside files, under one rule: a result, or an error of ours in one sentence.

`make test` tries some dozens of inputs a reader, always the same. For a long run:
``HISTODISTILL_FUZZ=2000 python -m pytest tests/fuzz`` tries that many, new ones each time, and prints the counts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, settings

from napari_histodistill.errors import HistodistillError
from napari_histodistill.export import ImportRequest, preview_import
from napari_histodistill.jobs import InlineControl
from napari_histodistill.slide import open_slide
from napari_histodistill.study import Study, StudySlide

MANY = int(os.environ.get("HISTODISTILL_FUZZ", "0"))
COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
settings.register_profile("short", max_examples=40, derandomize=True, **COMMON)
settings.register_profile("long", max_examples=MANY or 1, **COMMON)
settings.load_profile("long" if MANY else "short")

COUNTS: Counter[str] = Counter()


@pytest.fixture(scope="session")
def small_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled TIFF of 320 x 240 px at 0.5 µm."""
    path = tmp_path_factory.mktemp("fuzz") / "small.tiff"
    image = np.full((240, 320, 3), 230, np.uint8)
    image[60:180, 80:240] = (200, 110, 170)
    options: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER", "compression": "zlib"}
    tifffile.imwrite(path, image, tile=(64, 64), photometric="rgb", **options)
    return path


@pytest.fixture(scope="session")
def small_entry(small_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> StudySlide:
    """That slide in a study, with tissue everywhere."""
    with open_slide(small_slide) as slide:
        entry = Study.create(tmp_path_factory.mktemp("study") / "study").add_slide(slide, target_mpp=2.0)
    entry.save_tissue(np.ones((30, 40), np.uint8), settings={})
    return entry


@pytest.fixture(scope="session")
def attempt() -> Callable[..., Any]:
    """Do something with an outside file: its result, or None after one sentence of ours; anything else is a fault."""

    def attempt(reader: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            result = function(*args, **options)
        except HistodistillError as error:
            COUNTS[f"{reader}, refused"] += 1
            sentence = str(error)
            assert sentence.isprintable(), repr(sentence)
            assert 10 < len(sentence) < 1000
            return None
        COUNTS[f"{reader}, read"] += 1
        return result

    return attempt


@pytest.fixture(scope="session")
def take_in(small_entry: StudySlide, attempt: Callable[..., Any]) -> Callable[..., Any]:
    """Preview the import of a file."""

    def take_in(reader: str, file: Path, **options: Any) -> Any:
        request = ImportRequest(small_entry.folder, file, "corrections", **options)
        return attempt(reader, preview_import, request, InlineControl())

    return take_in


@pytest.fixture(scope="session", autouse=True)
def counted() -> Iterator[None]:
    """After a long run, how many inputs each reader was given."""
    yield
    if MANY:
        lines = "".join(f"{name}: {count}\n" for name, count in sorted(COUNTS.items()))
        Path("fuzz-counts.txt").write_text(lines + f"all: {sum(COUNTS.values())}\n")
