"""Small data sets in the layouts of Camelyon16 and DigestPath2019, with tumour of known outline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.draw import polygon

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (1050, 1350)
MPP = 1.0
GLASS, STROMA, TUMOUR = (242, 241, 244), (222, 150, 190), (110, 60, 150)
TISSUE_WIDTH = 1000
"""The slides are tissue left of this, glass right of it."""
OUTLINE = np.array([(75.0, 60.0), (90.0, 605.25), (666.6, 750.0), (800.0, 200.0), (350.0, 45.0)])
HOLE = np.array([(250.0, 250.0), (250.0, 450.0), (450.0, 450.0), (450.0, 250.0)])
SECOND = np.array([(650.0, 850.0), (650.0, 950.0), (750.0, 950.0), (750.0, 850.0)])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))


def area(points: np.ndarray) -> float:
    y, x = points.T
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))


def draw(*, tumour: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A slide uint8 (h, w, 3) whose tumour has a colour of its own, and the tumour bool (h, w)."""
    mask = np.zeros(SHAPE, bool)
    if tumour:
        for corners, value in ((OUTLINE, True), (SECOND, True), (HOLE, False)):
            mask[polygon(*(corners - 0.5).T, shape=SHAPE)] = value
    image = np.full((*SHAPE, 3), GLASS, np.int16)
    image[:, :TISSUE_WIDTH] = STROMA
    image[mask] = TUMOUR
    noise = np.random.default_rng(seed).integers(-12, 13, (*SHAPE, 3), np.int16)
    noise[:, TISSUE_WIDTH:] //= 8
    return np.clip(image + noise, 0, 255).astype(np.uint8), mask


def write_pyramid(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as writer:
        for number, step in enumerate((1, 2, 4)):
            small = Image.fromarray(image).reduce(step) if step > 1 else image
            writer.write(
                np.asarray(small),
                tile=(256, 256),
                photometric="rgb",
                compression="adobe_deflate",
                subfiletype=int(number > 0),
                resolution=(1e4 / (MPP * step),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


@dataclass(frozen=True)
class Drawn:
    """A data set in its published layout, and the tumour of its tumour slides at level 0, bool (h, w)."""

    folder: Path
    tumour: np.ndarray


@pytest.fixture(scope="session")
def camelyon(tmp_path_factory, asap_xml) -> Drawn:
    """Camelyon16: a tumour and a normal slide to train on, one of each to test on."""
    folder = tmp_path_factory.mktemp("camelyon16")
    image, mask = draw(tumour=True, seed=0)
    plain, _ = draw(tumour=False, seed=1)
    write_pyramid(folder / "training/tumor/tumor_001.tif", image)
    write_pyramid(folder / "training/normal/normal_001.tif", plain)
    write_pyramid(folder / "testing/images/test_001.tif", image)
    write_pyramid(folder / "testing/images/test_002.tif", plain)
    text = asap_xml(("_0", OUTLINE), ("_1", SECOND), ("_2", HOLE))
    for xml in ("training/lesion_annotations/tumor_001.xml", "testing/lesion_annotations/test_001.xml"):
        (folder / xml).parent.mkdir(exist_ok=True)
        (folder / xml).write_text(text)
    (folder / "testing/reference.csv").write_text("test_001,Tumor,IDC,Macro\ntest_002,Normal,None,None\n")
    return Drawn(folder, mask)


@pytest.fixture(scope="session")
def training(camelyon, tmp_path_factory) -> Drawn:
    """The training part of the same: half as much to cut."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "training").symlink_to(camelyon.folder / "training")
    return Drawn(folder, camelyon.tumour)


@pytest.fixture(scope="session")
def digestpath(tmp_path_factory) -> Drawn:
    """DigestPath2019: one positive picture with its mask, one negative."""
    folder = tmp_path_factory.mktemp("digestpath")
    image, mask = draw(tumour=True, seed=2)
    positive, negative = folder / "tissue-train-pos-v1", folder / "tissue-train-neg"
    positive.mkdir()
    negative.mkdir()
    Image.fromarray(image).save(positive / "18-01B_2019-05-07 23_23_07-lv1-0-0-1350-1050.jpg", quality=95)
    Image.fromarray(mask.astype(np.uint8) * 255).save(
        positive / "18-01B_2019-05-07 23_23_07-lv1-0-0-1350-1050_mask.jpg"
    )
    Image.fromarray(draw(tumour=False, seed=3)[0]).save(negative / "18-02_2019-05-08-lv1-0-0-1350-1050.jpg", quality=95)
    return Drawn(folder, mask)
