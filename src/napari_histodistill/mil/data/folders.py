"""Adapters: folders of images in the layouts of published data sets, as bags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from napari_histodistill.mil.data.bags import Bag, DatasetError, Split, read_mask, training_split_of
from napari_histodistill.mil.data.manifest import read_rows

if TYPE_CHECKING:
    from pathlib import Path

EBHI_MPP: Final = 1.1  # not in the files; from the size of the crypts
EBHI_LABELS: Final = {"adenocarcinoma": 1, "high_grade_in": 1, "normal": 0, "polyp": 0}
GLAS_MPP: Final = 0.62
IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})


def read_ebhi(folder: Path) -> tuple[str, list[Bag]]:
    """EBHI-Seg (Shi et al. 2023): carcinoma or high-grade neoplasia against normal and polyp, the rest left out."""
    bags = []
    for row in read_rows(folder / "images.csv", ("class", "name", "patient")):
        label = EBHI_LABELS.get(row["class"])
        if label is None:
            continue
        base = folder / row["class"]
        mask = base / "mask" / f"{row['name']}.png" if label else None
        bags.append(Bag(base / "image" / f"{row['name']}.jpg", label, row["patient"], EBHI_MPP, mask))
    return "ebhi-seg", bags


def read_glas(folder: Path) -> tuple[str, list[Bag]]:
    """GlaS (Sirinukunwattana et al. 2017): the glands of malignant images are tumour, benign images hold none."""
    bags = []
    for row in read_rows(folder / "images.csv", ("name", "patient", "label")):
        label = int(row["label"] == "malignant")
        mask = folder / "mask" / f"{row['name']}.png" if label else None
        bags.append(Bag(folder / "image" / f"{row['name']}.jpg", label, row["patient"], GLAS_MPP, mask))
    return "glas", bags


def is_ifkd(folder: Path) -> bool:
    """Whether a folder is in the layout of the authors of IFKD (and of SA-MIL and Swin-MIL before them)."""
    return all((folder / "train" / kind).is_dir() for kind in ("pos", "neg"))


def read_ifkd(folder: Path, mpp: float | None) -> tuple[str, list[Bag]]:
    """The authors' folders: ``train/pos``, ``train/neg``, masks in ``train/gt``; the same in ``test``, or that flat.

    The mask of ``pos/a.png`` is ``gt/a.*`` or ``gt/a_mask.*``. A flat ``test`` takes its labels from its masks. The
    files name no patients, so that every image is its own; 15% of the training images are for validation.

    Raises
    ------
    DatasetError
        If ``mpp``, which the files do not say, is None, or a positive or flat image lacks its mask.
    """
    if mpp is None:
        raise DatasetError(f"The images of {folder} do not say their µm per pixel: give it with --mpp.")
    bags = [
        Bag(image, label, f"{kind}/{image.stem}", mpp, mask, training_split_of(f"{kind}/{image.stem}"))
        for kind, label in (("pos", 1), ("neg", 0))
        for image, mask in _with_masks(folder / "train", kind, label)
    ]
    test: Split = "test"
    if (folder / "test" / "pos").is_dir() or (folder / "test" / "neg").is_dir():
        for kind, label in (("pos", 1), ("neg", 0)):
            found = _with_masks(folder / "test", kind, label)
            bags += [Bag(image, label, f"test/{kind}/{image.stem}", mpp, mask, test) for image, mask in found]
    elif (folder / "test").is_dir():
        for image, mask in _with_masks(folder / "test", "", 1):
            if mask is None:
                raise DatasetError(f"Nothing says whether {image} holds tumour: put its mask into {folder}/test/gt.")
            label = int(read_mask(mask).any())
            bags.append(Bag(image, label, f"test/{image.stem}", mpp, mask if label else None, test))
    return folder.resolve().name, bags


def _with_masks(part: Path, kind: str, label: int) -> list[tuple[Path, Path | None]]:
    """Images of a folder with their masks; where there are masks at all, each positive image must have one."""
    images = images_in(part / kind)
    masks = {file.stem.removesuffix("_mask"): file for file in images_in(part / "gt")}
    if not label or not masks:
        return [(image, None) for image in images]
    for image in images:
        if image.stem not in masks:
            raise DatasetError(f"{part / 'gt'} has no mask of the name of {image}: add it or take the image out.")
    return [(image, masks[image.stem]) for image in images]


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
