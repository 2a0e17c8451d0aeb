"""Arrays of a study: whether their heads are as they were made and every chunk can be read."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.study import Pyramid
from napari_histodistill.study.files import DamagedError, writing
from napari_histodistill.study.pyramid import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_histodistill.check.inspection import Inspection

Window = tuple[int, int, int, int]
"""y, x, height, width in px of a level."""


def settle_heads(inspection: Inspection, folder: Path, plan: Plan) -> bool:
    """See that an array's heads are what ``plan`` makes; whether it can be read now."""
    inspection.report.files += 1 + len(plan.shapes)
    try:
        differs = plan.differs(Pyramid(folder))
        problem = f"its {differs} is not as it was made" if differs else ""
    except DamagedError as error:
        problem = f"its head cannot be read ({error.__cause__})"
    if not problem:
        return True
    return inspection.found(folder, problem, "make the heads anew", lambda: _remake_heads(inspection, folder, plan))


def _remake_heads(inspection: Inspection, folder: Path, plan: Plan) -> None:
    """Put the chunks under new heads."""
    mended = folder.with_name(f"{folder.name}.mended.partial")
    with writing(folder):
        if mended.exists():
            shutil.rmtree(mended)
        mended.mkdir()
        plan.make(mended)
        for index in range(len(plan.shapes)):
            chunks = folder / str(index) / "c"
            if chunks.is_dir():
                shutil.copytree(chunks, mended / str(index) / "c")
        inspection.set_aside(folder)
        mended.rename(folder)


def damaged_chunks(inspection: Inspection, pyramid: Pyramid) -> Iterator[tuple[int, Path, Window]]:
    """Chunks that cannot be read: level, file, and window of the level; the finest level first."""
    for level, array in enumerate(pyramid.levels):
        height, width = array.chunks
        root = pyramid.folder / str(level) / "c"
        for path in sorted(root.glob("*/*")):
            if not (path.name.isdecimal() and path.parent.name.isdecimal()):
                continue
            inspection.report.files += 1
            y, x = int(path.parent.name) * height, int(path.name) * width
            if y >= array.shape[0] or x >= array.shape[1]:
                continue
            try:
                np.asarray(array[y : y + height, x : x + width])
            except (OSError, RuntimeError, ValueError):
                yield level, path, (y, x, min(height, array.shape[0] - y), min(width, array.shape[1] - x))


def compute_anew(inspection: Inspection, pyramid: Pyramid, damaged: list[tuple[int, Path, Window]]) -> None:
    """Move damaged chunks of any level aside, and compute from the finest level what lies under them."""
    inspection.set_aside(*(path for _, path, _ in damaged))
    for level, _, (y, x, height, width) in damaged:
        (fine, across), (coarse, along) = pyramid.shape, pyramid.levels[level].shape
        top, left = y * fine // coarse, x * across // along
        bottom, right = -(-(y + height) * fine // coarse), -(-(x + width) * across // along)
        with writing(pyramid.folder):
            pyramid.reduce(top, left, min(bottom, fine) - top, min(right, across) - left)


def settle_coarse(inspection: Inspection, pyramid: Pyramid, damaged: list[tuple[int, Path, Window]]) -> None:
    """Compute chunks of the coarser levels anew from the finest."""
    problem = f"{len(damaged)} chunk(s) of its coarser levels are damaged"
    remedy = "compute them anew from the finest level"
    inspection.found(pyramid.folder, problem, remedy, lambda: compute_anew(inspection, pyramid, damaged))
