"""A small generated data set: positive images hold dark blue discs on pink, negative ones only the pink."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE, COUNT = 96, 24


def _draw(rng: np.random.Generator, label: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.full((SIZE, SIZE, 3), (230, 170, 200), np.float64)
    mask = np.zeros((SIZE, SIZE), bool)
    for _ in range(4 * label):
        cy, cx = rng.uniform(15, SIZE - 15, 2)
        mask |= (y - cy) ** 2 + (x - cx) ** 2 < 14**2
    image[mask] = (90, 50, 140)
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """A manifest of 24 images of 12 patients, with masks, splits and mpp."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(5)
    rows = []
    for i in range(COUNT):
        label = i % 2
        image, mask = _draw(rng, label)
        Image.fromarray(image).save(folder / f"{i}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{i}_mask.png")
        split = ("train", "train", "val", "test")[i // 6]
        row = {"image": f"{i}.png", "label": label, "mask": f"{i}_mask.png" if label else ""}
        rows.append(row | {"patient": f"p{i // 2}", "split": split, "mpp": 1.5})
    with (folder / "cohort.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "cohort.csv"


@pytest.fixture
def write_manifest(tmp_path) -> Callable[[str], Path]:
    """Writes the text of a manifest beside one image ``a.png`` and one mask ``m.png``."""
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((8, 10), 255, np.uint8)).save(tmp_path / "m.png")

    def write(text: str) -> Path:
        path = tmp_path / "manifest.csv"
        path.write_text(text)
        return path

    return write


class Recorder:
    """A job control that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.payloads: list[object] = []
        self.checks = 0

    def progress(self, done: int, total: int, message: str = "", payload: object = None) -> None:
        self.messages.append(message)
        self.payloads.append(payload)

    def checkpoint(self) -> None:
        self.checks += 1


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
