"""Data sets of bags: images with an image-level label, from a CSV manifest or a known folder.

Nothing here imports torch. Masks are for evaluation (and for the full-mask ceiling); training reads labels only.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from napari_histodistill.errors import HistodistillError
from napari_histodistill.nets.stain import fit_stain, normalise_stain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from napari_histodistill.nets.stain import StainStatistics

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_SALT = (
    4  # of 0 to 7 the one whose EBHI-Seg split has the best sizes: 124, 31 and 42 patients; set before any training
)
SHARES = {"train": 0.65, "val": 0.15, "test": 0.20}


class DatasetError(HistodistillError):
    """A data set that cannot be read as it is: the message names the file and what to mend."""


@dataclass(frozen=True)
class Bag:
    """One image with its image-level label.

    Attributes
    ----------
    image : Path
    label : int
        1 if the image holds tumour, else 0.
    patient : str
        What a split divides; the image's own name where the data set does not say.
    mpp : float
        µm per pixel of the image file.
    mask : Path or None
        Non-zero where there is tumour. Images with label 0 need none: nothing in them is tumour.
    split : str or None
        "train", "val" or "test" where the data set declares it.
    """

    image: Path
    label: int
    patient: str
    mpp: float
    mask: Path | None = None
    split: Split | None = None

    @property
    def has_truth(self) -> bool:
        """Whether the tumour pixels of the image are known."""
        return self.label == 0 or self.mask is not None

    def read_image(self, mpp: float | None = None, reference: StainStatistics | None = None) -> NDArray[np.uint8]:
        """The image as uint8 (h, w, 3), resampled (antialiased) to ``mpp`` and its stain normalised where given."""
        try:
            with Image.open(self.image) as file:
                picture = file.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise DatasetError(f"The image {self.image} cannot be read: check the file or take it out.") from error
        if mpp is not None and abs(mpp / self.mpp - 1) > 0.01:
            size = tuple(max(1, round(side * self.mpp / mpp)) for side in picture.size)
            picture = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
        image = np.asarray(picture)
        own = fit_stain([image]) if reference else None
        return normalise_stain(image, own, reference) if reference and own else image

    def read_truth(self) -> NDArray[np.bool_]:
        """Tumour pixels (h, w) at the mask's own resolution; of a negative image without a mask, at the image's."""
        if self.mask is None or self.label == 0:
            with Image.open(self.mask or self.image) as file:
                return np.zeros((file.height, file.width), bool)
        try:
            with Image.open(self.mask) as file:
                return np.asarray(file) > 0
        except (OSError, UnidentifiedImageError) as error:
            raise DatasetError(f"The mask {self.mask} cannot be read: check the file or take it out.") from error


@dataclass(frozen=True)
class BagDataset:
    """Bags under a name that says which data they are, so that a model knows the patients it was trained on."""

    name: str
    bags: tuple[Bag, ...]

    def __len__(self) -> int:
        return len(self.bags)

    def where(self, keep: Callable[[Bag], bool]) -> BagDataset:
        """The bags for which ``keep(bag)`` holds."""
        return replace(self, bags=tuple(b for b in self.bags if keep(b)))

    def part(self, split: Split) -> BagDataset:
        """The bags of one split."""
        return self.where(lambda bag: bag.split == split)

    def patients(self) -> list[str]:
        """Names of the patients, sorted."""
        return sorted({bag.patient for bag in self.bags})

    def with_splits(self) -> BagDataset:
        """The same bags, each in a split: the declared ones where all are declared, else by `split_of`.

        Raises
        ------
        DatasetError
            If some images have a split and others none, or if one patient's images lie in several splits.
        """
        declared = [bag.split is not None for bag in self.bags]
        if any(declared) and not all(declared):
            raise DatasetError(f"Some images of {self.name} have a split and others none: fill the column or drop it.")
        if not any(declared):
            return replace(self, bags=tuple(replace(b, split=split_of(b.patient)) for b in self.bags))
        for patient in self.patients():
            if len({bag.split for bag in self.bags if bag.patient == patient}) > 1:
                raise DatasetError(f"Patient {patient} of {self.name} lies in several splits: put all images in one.")
        return self


def split_of(patient: str) -> Split:
    """The split of a patient: 65% train, 15% val, 20% test by a hash of the name.

    It does not depend on the other patients, so adding some moves nobody, nor on a training's seed, so that trainings
    can be compared.
    """
    digest = hashlib.sha256(f"{SPLIT_SALT}/{patient}".encode()).digest()
    position, edge = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for split in SPLITS:
        edge += SHARES[split]
        if position < edge:
            return split
    return "test"


def load_dataset(path: str | Path, mpp: float | None = None) -> BagDataset:
    """Read a data set: a CSV manifest, or one of the folders that an adapter knows (EBHI-Seg, GlaS).

    Parameters
    ----------
    path : str or Path
        A CSV file with the columns ``image``, ``label`` (0 or 1) and optionally ``mask``, ``patient``, ``split``,
        ``mpp``, paths relative to it; or a folder.
    mpp : float, optional
        µm per pixel of all images, in place of what the data set says.

    Raises
    ------
    DatasetError
        If something is missing or wrong: the message names the first such row.
    """
    path = Path(path)
    if mpp is not None and not 0.05 <= mpp <= 8:
        raise DatasetError(f"{mpp:g} µm per pixel is no resolution of a slide: give one between 0.05 and 8.")
    if path.is_dir():
        adapter = _find_adapter(path)
        name, bags = adapter(path)
    elif path.is_file():
        name, bags = _read_manifest(path, mpp)
    else:
        raise DatasetError(f"There is no data set at {path}: give a CSV manifest or a folder that exists.")
    if mpp is not None:
        bags = [replace(bag, mpp=mpp) for bag in bags]
    if not bags:
        raise DatasetError(f"The data set {path} has no images.")
    _check_files(bags)
    return BagDataset(name, tuple(bags))


def _check_files(bags: Iterable[Bag]) -> None:
    for bag in bags:
        for kind, file in (("image", bag.image), ("mask", bag.mask)):
            if file is not None and not file.is_file():
                raise DatasetError(f"The {kind} {file} does not exist: correct its row or take it out.")


def _read_rows(path: Path, required: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in required if name not in (reader.fieldnames or ())]
            if missing:
                raise DatasetError(f"{path} lacks the column {missing[0]}: its first line must name the columns.")
            return [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as a CSV file with a header: {error}.") from error


def _read_manifest(path: Path, mpp: float | None) -> tuple[str, list[Bag]]:
    rows = _read_rows(path, ("image", "label"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return f"{path.stem}-{digest}", [_manifest_bag(path, i, row, mpp) for i, row in enumerate(rows, start=2)]


def _manifest_bag(path: Path, line: int, row: dict[str, str], mpp: float | None) -> Bag:
    where = f"{path}, line {line}"
    if not row["image"]:
        raise DatasetError(f"{where}: the image is missing.")
    if row["label"] not in ("0", "1"):
        raise DatasetError(f"{where}: the label is {row['label']!r} but must be 0 (no tumour) or 1 (tumour).")
    split = row.get("split", "") or None
    if split not in (*SPLITS, None):
        raise DatasetError(f"{where}: the split is {split!r} but must be train, val or test, or empty.")
    mask = row.get("mask", "")
    return Bag(
        image=path.parent / row["image"],
        label=int(row["label"]),
        patient=row.get("patient", "") or Path(row["image"]).stem,
        mpp=mpp if mpp is not None else _manifest_mpp(where, row.get("mpp", "")),
        mask=path.parent / mask if mask else None,
        split=split,
    )


def _manifest_mpp(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.05 <= value <= 8:
        said = f"is {text!r}" if text else "is missing"
        raise DatasetError(f"{where}: mpp {said}: fill the column with µm per pixel, or give one for all with --mpp.")
    return value


EBHI_MPP = 1.1  # not in the files; from the size of the crypts
EBHI_LABELS = {"adenocarcinoma": 1, "high_grade_in": 1, "normal": 0, "polyp": 0}
GLAS_MPP = 0.62


def _read_ebhi(folder: Path) -> tuple[str, list[Bag]]:
    """EBHI-Seg (Shi et al. 2023): carcinoma or high-grade neoplasia against normal and polyp, the rest left out."""
    bags = []
    for row in _read_rows(folder / "images.csv", ("class", "name", "patient")):
        label = EBHI_LABELS.get(row["class"])
        if label is None:
            continue
        base = folder / row["class"]
        mask = base / "mask" / f"{row['name']}.png" if label else None
        bags.append(Bag(base / "image" / f"{row['name']}.jpg", label, row["patient"], EBHI_MPP, mask))
    return "ebhi-seg", bags


def _read_glas(folder: Path) -> tuple[str, list[Bag]]:
    """GlaS (Sirinukunwattana et al. 2017): the glands of malignant images are tumour, benign images hold none."""
    bags = []
    for row in _read_rows(folder / "images.csv", ("name", "patient", "label")):
        label = int(row["label"] == "malignant")
        mask = folder / "mask" / f"{row['name']}.png" if label else None
        bags.append(Bag(folder / "image" / f"{row['name']}.jpg", label, row["patient"], GLAS_MPP, mask))
    return "glas", bags


def _find_adapter(folder: Path) -> Callable[[Path], tuple[str, list[Bag]]]:
    table = folder / "images.csv"
    if table.is_file():
        columns = set(table.open(encoding="utf-8").readline().strip().split(","))
        if {"class", "name", "patient"} <= columns:
            return _read_ebhi
        if {"name", "patient", "label"} <= columns:
            return _read_glas
    raise DatasetError(
        f"{folder} is neither EBHI-Seg nor GlaS as a folder with images.csv: "
        "write a CSV manifest with the columns image, label and mpp instead."
    )
