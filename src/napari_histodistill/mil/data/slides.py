"""Published data sets of whole slides or large images, as they lie on disk: which files, whose, with what truth."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from napari_histodistill.mil.data.bags import DatasetError, Split, split_of, training_split_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SLIDES: Final = frozenset({".tif", ".tiff"})
_PICTURES: Final = frozenset({".jpg", ".jpeg"})
_MASK: Final = "_mask"
_BLOCK: Final = re.compile(r"(?<=\d)[A-Za-z]+$")


@dataclass(frozen=True)
class AnnotatedSlide:
    """A slide of a data set.

    Attributes
    ----------
    path : Path
    patient : str
    split : {"train", "val", "test"}
    truth : Path or None
        Where its tumour is: an ASAP annotation (``.xml``) or a mask picture of the slide's size; None if it has none.
    """

    path: Path
    patient: str
    split: Split
    truth: Path | None

    @property
    def name(self) -> str:
        """The file's name without its ending; unique in a data set."""
        return self.path.stem


def layout_of(folder: Path) -> str | None:
    """Name of the data set whose layout a folder has: "Camelyon16", "DigestPath2019" or None."""
    return next((name for name, (is_it, _) in _LAYOUTS.items() if is_it(folder)), None)


def find_slides(folder: Path) -> tuple[str, tuple[AnnotatedSlide, ...]]:
    """Name of the data set in a folder, and its slides.

    Raises
    ------
    DatasetError
        If the folder has no known layout, or a slide lacks its truth: the message names it.
    """
    name = layout_of(folder)
    if name is None:
        raise DatasetError(
            f"{folder} is neither Camelyon16 (training/tumor, training/normal) nor DigestPath2019 "
            "(tissue-train-pos-v1, tissue-train-neg): give the folder that holds these."
        )
    slides = tuple(_LAYOUTS[name][1](folder))
    if not slides:
        raise DatasetError(f"The folders of {name} in {folder} hold no slides: unpack them there.")
    names = [slide.name for slide in slides]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{folder} holds two slides named {twice}: take one out.")
    return name, slides


def _is_digestpath(folder: Path) -> bool:
    return any(_digestpath_part(folder, kind) is not None for kind in ("pos", "neg"))


def _digestpath(folder: Path) -> Iterator[AnnotatedSlide]:
    """DigestPath2019, tissue segmentation: ``a.jpg`` with ``a_mask.jpg`` beside it, and negative pictures."""
    for kind in ("pos", "neg"):
        part = _digestpath_part(folder, kind)
        for path in _files(part, _PICTURES):
            if path.stem.endswith(_MASK):
                continue
            truth = path.with_name(f"{path.stem}{_MASK}{path.suffix}") if kind == "pos" else None
            if truth is not None and not truth.is_file():
                raise DatasetError(f"The picture {path} lacks its mask {truth.name}: add it or take the picture out.")
            patient = digestpath_patient(path.stem)
            yield AnnotatedSlide(path, patient, split_of(patient), truth)


def _digestpath_part(folder: Path, kind: str) -> Path | None:
    names = (f"tissue-train-{kind}-v1", f"tissue-train-{kind}")
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def digestpath_patient(stem: str) -> str:
    """The case number of a file name: what comes before the first underscore, without the letter of the block.

    Names that do not look so are their own patient. Two patients taken for one only make a split coarser; one patient
    taken for two would leak.

    Examples
    --------
    >>> digestpath_patient("18-06380B_2019-05-07 23_23_07-lv1-43078-17060-4105-4420")
    '18-06380'
    """
    return _BLOCK.sub("", stem.split("_", maxsplit=1)[0]) or stem


def _is_camelyon(folder: Path) -> bool:
    return any((folder / "training" / kind).is_dir() for kind in ("tumor", "normal"))


def _camelyon(folder: Path) -> Iterator[AnnotatedSlide]:
    """Camelyon16: a slide is a patient of its own; 15% of those for training are for validation.

    Whether a test slide holds tumour says ``reference.csv`` where it is there, else whether it has an annotation.
    """
    training, testing = folder / "training", folder / "testing"
    drawn = _annotations(*(training / name for name in ("lesion_annotations", "annotations", "tumor")))
    for path in _files(training / "tumor", _SLIDES):
        yield AnnotatedSlide(path, path.stem, training_split_of(path.stem), _truth(path, drawn))
    for path in _files(training / "normal", _SLIDES):
        yield AnnotatedSlide(path, path.stem, training_split_of(path.stem), None)
    drawn = _annotations(*(testing / name for name in ("lesion_annotations", "annotations", "images")))
    tumour = _reference(testing / "reference.csv")
    for path in _files(testing / "images", _SLIDES):
        if tumour is not None and path.stem not in tumour:
            raise DatasetError(f"{testing / 'reference.csv'} does not say what {path.name} is: add it or take it out.")
        has_tumour = tumour[path.stem] if tumour is not None else path.stem in drawn
        yield AnnotatedSlide(path, path.stem, "test", _truth(path, drawn) if has_tumour else None)


def _annotations(*folders: Path) -> dict[str, Path]:
    return {file.stem: file for folder in folders for file in _files(folder, {".xml"})}


def _truth(slide: Path, drawn: dict[str, Path]) -> Path:
    if slide.stem not in drawn:
        raise DatasetError(
            f"The tumour slide {slide} has no annotation {slide.stem}.xml: add it or take the slide out."
        )
    return drawn[slide.stem]


def _reference(path: Path) -> dict[str, bool] | None:
    """Whether a slide holds tumour, from rows such as ``test_001,Tumor,IDC,Macro``; None without the file."""
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[field.strip() for field in row[:2]] for row in csv.reader(file) if len(row) >= 2]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as a CSV file: {error}.") from error
    kinds = {"tumor": True, "normal": False}
    return {name.removesuffix(".tif"): kinds[kind.lower()] for name, kind in rows if kind.lower() in kinds}


def _files(folder: Path | None, suffixes: frozenset[str] | set[str]) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in suffixes)


_LAYOUTS: Final[dict[str, tuple[Callable[[Path], bool], Callable[[Path], Iterator[AnnotatedSlide]]]]] = {
    "Camelyon16": (_is_camelyon, _camelyon),
    "DigestPath2019": (_is_digestpath, _digestpath),
}
