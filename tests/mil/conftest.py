"""Manifests written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
