"""Reading a data set by its path: a CSV manifest, or a folder in the layout of a published data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.mil.data.bags import Bag, BagDataset, DatasetError
from napari_histodistill.mil.data.folders import is_ifkd, read_ebhi, read_glas, read_ifkd
from napari_histodistill.mil.data.manifest import MPP_RANGE, read_manifest, read_rows
from napari_histodistill.mil.data.slides import layout_of

if TYPE_CHECKING:
    from collections.abc import Iterable


def load_dataset(path: str | Path, mpp: float | None = None) -> BagDataset:
    """Read a data set: a CSV manifest, or one of the folders that an adapter knows.

    Parameters
    ----------
    path : str or Path
        A CSV file with the columns ``image``, ``label`` (0 or 1) and optionally ``mask``, ``patient``, ``split``,
        ``mpp``, paths relative to it; a folder with such a ``manifest.csv`` (what `cut_dataset` leaves); or a folder
        of EBHI-Seg, of GlaS, or in the layout of the authors of IFKD (``train/pos``, ``train/neg``, ``test/...``).
    mpp : float, optional
        µm per pixel of all images, in place of what the data set says. The authors' folders need it.

    Raises
    ------
    DatasetError
        If something is missing or wrong: the message names the first such row or file.
    """
    path = Path(path)
    low, high = MPP_RANGE
    if mpp is not None and not low <= mpp <= high:
        raise DatasetError(f"{mpp:g} µm per pixel is no resolution of a slide: give one between {low:g} and {high:g}.")
    if path.is_dir():
        name, bags = _read_folder(path, mpp)
    elif path.is_file():
        name, bags = read_manifest(path, mpp)
    else:
        raise DatasetError(f"There is no data set at {path}: give a CSV manifest or a folder that exists.")
    if mpp is not None:
        bags = [replace(bag, mpp=mpp) for bag in bags]
    if not bags:
        raise DatasetError(f"The data set {path} has no images.")
    _check_files(bags)
    return BagDataset(name, tuple(bags))


def _read_folder(folder: Path, mpp: float | None) -> tuple[str, list[Bag]]:
    if (folder / "manifest.csv").is_file():
        return read_manifest(folder / "manifest.csv", mpp)
    if is_ifkd(folder):
        return read_ifkd(folder, mpp)
    table = folder / "images.csv"
    if table.is_file():
        columns = {name for row in read_rows(table, ())[:1] for name in row}
        if {"class", "name", "patient"} <= columns:
            return read_ebhi(folder)
        if {"name", "patient", "label"} <= columns:
            return read_glas(folder)
    layout = layout_of(folder)
    if layout is not None:
        raise DatasetError(
            f"{folder} holds the slides of {layout}: cut them into images (histodistill cut) and give their folder."
        )
    raise DatasetError(
        f"{folder} is neither EBHI-Seg nor GlaS as a folder with images.csv nor has it train/pos and train/neg: "
        "write a CSV manifest with the columns image, label and mpp instead."
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # names that no file can have
        return False


def _check_files(bags: Iterable[Bag]) -> None:
    for bag in bags:
        for kind, file in (("image", bag.image), ("mask", bag.mask)):
            if file is not None and not _is_file(file):
                raise DatasetError(f"The {kind} {file} does not exist: correct its row or take it out.")
