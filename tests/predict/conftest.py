"""Slides that are drawn and a model that can be foretold, so that prediction is tested without data or weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

FAKE_MODEL = '''
"""A model whose answer at a pixel is the darkness around it; importable by child processes too."""
import time
import numpy as np
from scipy import ndimage
from napari_histodistill.nets import Architecture, ModelCard

class FakeModel:
    device = "cpu"

    def __init__(self, mpp=0.5, blur=15, margin=32, delay=0.0, name="fake"):
        self.card = ModelCard(name, Architecture("none", (1.0,)), mpp, margin=margin)
        self.blur, self.delay, self.calls = blur, delay, 0

    def predict(self, images):
        self.calls += len(images)
        time.sleep(self.delay)
        dark = np.clip((200 - images[..., 1].astype(np.float32)) / 150, 0, 1)
        return np.stack([ndimage.uniform_filter(one, self.blur, mode="reflect") for one in dark])
'''

MPP = 0.5


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "histodistill_fake_model.py").write_text(FAKE_MODEL)
    return folder


@pytest.fixture(scope="session")
def fake_model(model_folder: Path):
    """The class `FakeModel`."""
    sys.path.insert(0, str(model_folder))
    try:
        from histodistill_fake_model import FakeModel
    finally:
        sys.path.remove(str(model_folder))
    return FakeModel


def _write_tiff(path: Path, image: np.ndarray, mpp: float | None = MPP) -> Path:
    """A tiled TIFF that opens as a slide."""
    options = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", **options)
    return path


def _tissue_like(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Pink and violet texture that passes for H&E: uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((shape[0] // 32 + 2, shape[1] // 32 + 2))
    fine = np.kron(coarse, np.ones((32, 32)))[: shape[0], : shape[1], None]
    noise = rng.normal(0, 8, (*shape, 1))
    colour = (1 - fine) * np.array([225, 150, 190]) + fine * np.array([140, 80, 160])
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def write_tiff():
    return _write_tiff


@pytest.fixture(scope="session")
def tissue_like():
    return _tissue_like


@pytest.fixture(scope="session")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,400 x 2,800 px at 0.5 µm, tissue but for a broad border of glass: 3 x 3 blocks of 512 px at 1 µm."""
    image = np.full((2400, 2800, 3), 243, np.uint8)
    image[150:2250, 150:2650] = _tissue_like((2100, 2500))
    return _write_tiff(tmp_path_factory.mktemp("slides") / "drawn.tiff", image)
