"""A study with a slide, tissue and a result whose every edge is known."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study import Study, StudySlide

MPP = 0.5
TUMOUR_BOX = (200, 360, 300, 500)
"""top, bottom, left, right in px of the working grid, which has 4 x 4 level-0 px each."""
HOLE_BOX = (240, 280, 350, 400)
IGNORE_BOX = (10, 20, 700, 730)


def boxes_mask() -> np.ndarray:
    mask = np.full((600, 800), OUTSIDE, np.uint8)
    mask[100:500, 200:700] = NORMAL
    for (top, bottom, left, right), value in [(TUMOUR_BOX, TUMOUR), (HOLE_BOX, NORMAL), (IGNORE_BOX, IGNORE)]:
        mask[top:bottom, left:right] = value
    return mask


def give_result(entry: StudySlide, mask: np.ndarray) -> None:
    """Make a mask the result of a model."""
    run = entry.new_run({"model": "m 0123456789ab"})
    run.probability.write(0, 0, np.where(mask == TUMOUR, 204, np.where(mask == NORMAL, 51, 0)).astype(np.uint8))
    with run.replace_pseudo_mask() as target:
        target.write(0, 0, mask)
    entry.complete_run(run, {"model": "m", "threshold": 0.5, "smoothing_um": 0.0, "unreadable": 0})


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide and its study: glass, a box of tissue, a box of tumour with a hole, and an ignored box."""
    folder = tmp_path_factory.mktemp("template")
    image = np.full((2400, 3200, 3), 240, np.uint8)
    image[400:2000, 800:2800] = (200, 120, 170)
    path = folder / "data" / "boxes é.tiff"
    path.parent.mkdir()
    options = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER", "compression": "zlib"}
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", **options)
    with open_slide(path) as slide:
        entry = Study.create(folder / "study").add_slide(slide, target_mpp=2.0)
    assert entry.grid.shape == (600, 800)
    mask = boxes_mask()
    entry.save_tissue(np.where(mask == NORMAL, 1, np.where(mask == TUMOUR, 1, mask)).astype(np.uint8), settings={})
    give_result(entry, mask)
    return folder


@pytest.fixture
def entry(template: Path, tmp_path: Path) -> StudySlide:
    """The slide of the template, in a copy of it."""
    for name in ("data", "study"):
        shutil.copytree(template / name, tmp_path / name)
    entry = Study.open(tmp_path / "study").slide_named()
    entry.save()  # the template's slide is not its
    return entry


@pytest.fixture
def hard_mask() -> np.ndarray:
    """Tumour with holes, islands in them, one-pixel features, and pixels that touch at corners only; some ignored."""
    rng = np.random.default_rng(4)
    mask = np.full((600, 800), NORMAL, np.uint8)
    mask[:40] = OUTSIDE
    blobs = ndimage.gaussian_filter(rng.random((600, 800)), 9)
    mask[blobs > np.quantile(blobs, 0.7)] = TUMOUR
    mask[60:300, 60:300] = TUMOUR
    mask[100:260, 100:260] = NORMAL
    mask[150:200, 150:200] = TUMOUR
    mask[170, 170] = NORMAL
    mask[110:140, 110:140] = NORMAL
    mask[np.arange(110, 140), np.arange(110, 140)] = TUMOUR
    mask[500:560, 600:700] = np.where(rng.random((60, 100)) > 0.5, TUMOUR, IGNORE)
    mask[400:420, 20:60] = IGNORE
    mask[0, 0] = mask[599, 799] = mask[599, 0] = TUMOUR
    return mask


@pytest.fixture
def hard(entry: StudySlide, hard_mask: np.ndarray) -> StudySlide:
    """The slide with that mask as its result."""
    give_result(entry, hard_mask)
    return entry


@pytest.fixture
def with_result() -> Callable[[StudySlide, np.ndarray], None]:
    """Make a mask the result of a slide."""
    return give_result
