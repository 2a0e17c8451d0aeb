"""Bags: images with an image-level label, their splits by patient, and how their pixels and masks are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from napari_histodistill.errors import HistodistillError
from napari_histodistill.nets.stain import fit_stain, normalise_stain
from napari_histodistill.slide.errors import DAMAGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_histodistill.slide.errors import DAMAGED
from napari_histodistill.nets.stain import StainStatistics

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_SALT = (
    4  # of 0 to 7 the one whose EBHI-Seg split has the best sizes: 123, 31 and 42 patients; set before any training
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
        An image of the tumour pixels, see `read_mask`. Images with label 0 need none: nothing in them is tumour.
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
        except (*DAMAGED, Image.DecompressionBombError) as error:
            raise DatasetError(f"The image {self.image} cannot be read: check the file or take it out.") from error
        if mpp is not None and abs(mpp / self.mpp - 1) > 0.01:
            size = tuple(max(1, round(side * self.mpp / mpp)) for side in picture.size)
            picture = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
        image = np.asarray(picture)
        own = fit_stain([image]) if reference else None
        return normalise_stain(image, own, reference) if reference and own else image

    def read_truth(self) -> NDArray[np.bool_]:
        """Tumour pixels (h, w) at the mask's own resolution; of a negative image without a mask, at the image's.

        Raises
        ------
        DatasetError
            If a file cannot be read, or the mask of a positive image is empty: red on black is, for instance.
        """
        if self.mask is None or self.label == 0:
            path = self.mask or self.image
            try:
                with Image.open(path) as file:
                    return np.zeros((file.height, file.width), bool)
            except (*DAMAGED, Image.DecompressionBombError) as error:
                raise DatasetError(f"The image {path} cannot be read: check the file or take it out.") from error
        truth = read_mask(self.mask)
        if not truth.any():
            raise DatasetError(
                f"The mask {self.mask} shows no tumour, though its image is said to hold some: correct either. Tumour "
                "is what is not 0; in a JPEG or a colour image, what is at least half bright."
            )
        return truth


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Tumour pixels (h, w) of a mask file: what is not zero; in a JPEG or a colour image, what is at least half bright.

    Compression leaves values near zero around outlines, so a JPEG's zero is not to be trusted.
    """
    try:
        with Image.open(path) as file:
            if file.format == "JPEG" or len(file.getbands()) > 1:
                return np.asarray(file.convert("L")) >= 128
            return np.asarray(file) > 0
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise DatasetError(f"The mask {path} cannot be read: check the file or take it out.") from error


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


def training_split_of(patient: str) -> Split:
    """The split of a patient whom the data set gives for training: "val" where `split_of` says so, else "train"."""
    return "val" if split_of(patient) == "val" else "train"
