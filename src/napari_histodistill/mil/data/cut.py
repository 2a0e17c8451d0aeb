"""Cutting annotated slides into images with image-level labels: PNG files, masks and a manifest for `load_dataset`.

A cut is positive where tumour covers at least a share of its tissue, and negative where it holds no tumour at all; what
lies between is left out, because neither label would be true enough. Slides are read in windows, one after the other,
and a finished one is recorded, so that a cutting that was stopped goes on behind it.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from PIL import Image

from napari_histodistill.mil.data.bags import DatasetError
from napari_histodistill.mil.data.manifest import COLUMNS, write_rows
from napari_histodistill.mil.data.slides import find_slides
from napari_histodistill.mil.data.truth import open_truth
from napari_histodistill.slide import WorkingGrid, find_tissue, open_slide
from napari_histodistill.slide.tissue import NOTHING_FOUND, TISSUE
from napari_histodistill.study.files import read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.mil.data.slides import AnnotatedSlide
    from napari_histodistill.mil.data.truth import Truth
    from napari_histodistill.slide import Slide, Tissue

FORMAT, VERSION = "histodistill-cut", 1
MANIFEST: Final = "manifest.csv"
_COMPRESSION: Final = 1
"""Of PNG files: zlib's fastest; its default takes longer to write a cut than to read it from a slide."""
_OUTCOMES: Final = ("positive", "negative", "little_tumour", "little_tissue", "unreadable", "not_drawn", "not_wanted")


@dataclass(frozen=True)
class CutRequest:
    """What to cut, and how.

    Attributes
    ----------
    data : Path
        Folder of a data set, see `find_slides`.
    out : Path
        Folder for images, masks and ``manifest.csv``.
    mpp : float
        µm per pixel of the cuts; not finer than the slides.
    size : int
        Side of a cut in px. Cuts lie side by side from the upper left corner; what remains at the other edges is lost.
    source_mpp : float, optional
        µm per pixel of the slides, where the files do not say or are wrong.
    min_tissue : float
        Least share, 0 to 1, of a cut that must be tissue.
    min_tumour : float
        Least share, 0 to 1, of a positive cut's tissue that is tumour; at 0 any tumour makes a cut positive.
    negatives : {"all", "normal"}
        Take negative cuts from all slides, or only from those without tumour, where not all tumour is outlined.
    per_slide : int, optional
        At most so many positive and so many negative cuts of a slide, drawn at random under ``seed``.
    seed : int
    resume : bool
        Go on with a cutting that was stopped.
    """

    data: Path
    out: Path
    mpp: float
    size: int = 256
    source_mpp: float | None = None
    min_tissue: float = 0.5
    min_tumour: float = 0.05
    negatives: Literal["all", "normal"] = "all"
    per_slide: int | None = None
    seed: int = 0
    resume: bool = False

    def settings(self) -> dict[str, Any]:
        """What decides the cuts, as JSON values."""
        return {key: value for key, value in asdict(self).items() if key not in {"data", "out", "resume"}}


@dataclass(frozen=True)
class CutResult:
    """Where the manifest is, and how many slides and cuts there are.

    Attributes
    ----------
    manifest : Path
    slides : int
    without_tissue : tuple of str
        Slides in which no tissue was found; nothing was cut from them.
    cuts : dict
        Number of cuts: "positive" and "negative" were written; "little_tumour" (some, but not enough), "little_tissue",
        "unreadable", "not_drawn" (beyond ``per_slide``) and "not_wanted" (negatives of tumour slides) were not.
    """

    manifest: Path
    slides: int
    without_tissue: tuple[str, ...]
    cuts: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {
            "manifest": str(self.manifest),
            "slides": self.slides,
            "without_tissue": list(self.without_tissue),
            **self.cuts,
        }


def cut_dataset(request: CutRequest, control: JobControl) -> CutResult:
    """Cut all slides of a data set.

    Raises
    ------
    DatasetError
        If the folder is no known data set, the slides do not fit the request, ``out`` holds other cuts, or nothing is
        left to write.
    SlideError, AnnotationError
        If a slide or its annotation cannot be read.
    """
    name, slides = find_slides(request.data)
    try:
        return _cut_slides(slides, name, request, control)
    except OSError as error:
        raise DatasetError(
            f"{error.filename or request.out} cannot be written ({error.strerror}): free disk space or choose another "
            "folder, and go on with --resume."
        ) from error


def _cut_slides(slides: Sequence[AnnotatedSlide], name: str, request: CutRequest, control: JobControl) -> CutResult:
    _claim(request, name)
    records = []
    for number, entry in enumerate(slides):
        control.progress(number, len(slides), f"Cutting {entry.name}")
        control.checkpoint()
        path = request.out / "slides" / f"{entry.name}.json"
        if not path.is_file():
            rows, counts = _cut_slide(entry, request, control)
            write_document(path, FORMAT, VERSION, {"rows": rows, "counts": counts})
        records.append(read_document(path, FORMAT, VERSION))
    control.progress(len(slides), len(slides), "Cutting")
    rows = [row for record in records for row in record["rows"]]
    if not rows:
        raise DatasetError(f"Nothing was cut from {request.data}: lower the least share of tissue or the size.")
    write_rows(request.out / MANIFEST, COLUMNS, rows)
    counts = {outcome: sum(record["counts"].get(outcome, 0) for record in records) for outcome in _OUTCOMES}
    bare = tuple(entry.name for entry, record in zip(slides, records, strict=True) if record["counts"].get("bare"))
    return CutResult(request.out / MANIFEST, len(slides), bare, counts)


def _claim(request: CutRequest, name: str) -> None:
    """Make the folder of the cuts, or see that it holds cuts of the same data and settings."""
    settings = {"data": name, **request.settings()}
    record = request.out / "cut.json"
    if record.is_file():
        if not request.resume:
            raise DatasetError(
                f"{request.out} holds cuts already: go on with them (--resume) or choose another folder."
            )
        if read_document(record, FORMAT, VERSION)["settings"] != settings:
            raise DatasetError(f"{request.out} holds cuts made with other settings: choose another folder.")
    for folder in ("slides", "images", "masks"):
        (request.out / folder).mkdir(parents=True, exist_ok=True)
    write_document(record, FORMAT, VERSION, {"settings": settings})


def _cut_slide(
    entry: AnnotatedSlide, request: CutRequest, control: JobControl
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Write the cuts of one slide; their rows of the manifest, and how many cuts had which outcome."""
    with open_slide(entry.path, mpp=request.source_mpp) as slide:
        grid = _grid(slide, request)
        tissue = find_tissue(slide, control=control)
        if NOTHING_FOUND in tissue.warnings:
            return [], {"bare": 1}
        with open_truth(entry.truth, slide, grid) as truth:
            found = _sort_places(grid, tissue, truth, request, control)
            if entry.truth is not None and request.negatives == "normal":
                found["not_wanted"] = found.pop("negative", [])
            counts = Counter({outcome: len(places) for outcome, places in found.items()})
            writer = _Writer(entry, slide, grid, request)
            rows = []
            for outcome in ("positive", "negative"):
                places = _draw(found.get(outcome, []), request, f"{entry.name}/{outcome}")
                counts["not_drawn"] += counts[outcome] - len(places)
                written = []
                for y, x in places:
                    control.checkpoint()
                    mask = truth.window(y, x, request.size, request.size) if outcome == "positive" else None
                    written += writer.write(y, x, mask)
                counts["unreadable"] += len(places) - len(written)
                counts[outcome] = len(written)
                rows += written
    return rows, dict(counts)


def _grid(slide: Slide, request: CutRequest) -> WorkingGrid:
    """The slide at the cuts' resolution."""
    if slide.mpp is None:
        raise DatasetError(f"The pixel size of {slide.path} is unknown: give it in µm per pixel (--source-mpp).")
    if request.mpp < 0.99 * max(slide.mpp):
        raise DatasetError(
            f"{slide.path} has {max(slide.mpp):.4g} µm per pixel and cannot be cut at {request.mpp:g}: "
            "choose a coarser resolution."
        )
    return WorkingGrid.for_slide(slide, request.mpp, max(slide.shape))


def _sort_places(
    grid: WorkingGrid, tissue: Tissue, truth: Truth, request: CutRequest, control: JobControl
) -> dict[str, list[tuple[int, int]]]:
    """Upper left corners of all cuts, in px of the grid, by outcome."""
    size = request.size
    found: dict[str, list[tuple[int, int]]] = {}
    for y in range(0, grid.shape[0] - size + 1, size):
        control.checkpoint()
        for x in range(0, grid.shape[1] - size + 1, size):
            solid = tissue.on_grid(grid, y, x, size, size) == TISSUE
            area = np.count_nonzero(solid)
            if area == 0 or area < request.min_tissue * size**2:
                outcome = "little_tissue"
            else:
                tumour = truth.window(y, x, size, size)
                outcome = _outcome(tumour.any(), np.count_nonzero(tumour & solid) / area, request.min_tumour)
            found.setdefault(outcome, []).append((y, x))
    return found


def _outcome(has_tumour: np.bool_, share: float, least: float) -> str:
    if not has_tumour:
        return "negative"
    return "positive" if share >= least else "little_tumour"


def _draw(places: list[tuple[int, int]], request: CutRequest, name: str) -> list[tuple[int, int]]:
    """At most ``per_slide`` places in their order; what is drawn of one slide does not depend on the others."""
    if request.per_slide is None or len(places) <= request.per_slide:
        return places
    generator = np.random.default_rng([request.seed, zlib.crc32(name.encode())])
    return [places[i] for i in sorted(generator.choice(len(places), request.per_slide, replace=False))]


class _Writer:
    """Writes cuts of one slide as files, and says what the manifest says of them."""

    def __init__(self, entry: AnnotatedSlide, slide: Slide, grid: WorkingGrid, request: CutRequest) -> None:
        self._entry, self._slide, self._grid = entry, slide, grid
        self._out, self._size = request.out, request.size
        for kind in ("images", "masks"):
            (self._out / kind / entry.name).mkdir(exist_ok=True)

    def write(self, y: int, x: int, mask: Any) -> list[dict[str, Any]]:
        """Write a cut, positive with a mask (bool) or negative without; no row where the slide cannot be read."""
        pixels = self._slide.read_resampled(self._grid.shape, y, x, self._size, self._size)
        if not self._slide.readable_mask(self._grid.shape, y, x, self._size, self._size).all():
            return []
        name = f"{self._entry.name}/y{y:06d}-x{x:06d}.png"
        Image.fromarray(pixels).save(self._out / "images" / name, compress_level=_COMPRESSION)
        if mask is not None:
            Image.fromarray(mask.astype(np.uint8) * 255).save(self._out / "masks" / name)
        return [
            {
                "image": f"images/{name}",
                "label": int(mask is not None),
                "mask": f"masks/{name}" if mask is not None else "",
                "patient": self._entry.patient,
                "split": self._entry.split,
                "mpp": f"{math.sqrt(math.prod(self._grid.pixel_size_um)):.6g}",
            }
        ]
