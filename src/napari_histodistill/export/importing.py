"""Annotations and masks of other programs into a study: looked at first, applied when that is right.

`preview_import` reads a file and says where it lands; `apply_import` writes what was previewed, as the pseudo-mask
or as corrections.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_histodistill.errors import printable
from napari_histodistill.export.geojson import CLASSES
from napari_histodistill.export.placing import place_mask
from napari_histodistill.export.rasterise import Canvas, ImportFileError
from napari_histodistill.export.read_asap import read_asap_shapes
from napari_histodistill.export.read_geojson import read_geojson
from napari_histodistill.export.read_mask import open_mask
from napari_histodistill.export.source import NAMES, Place
from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.predict.figures import COUNTED, summarise_blocks
from napari_histodistill.slide.annotations import TUMOUR_GROUPS
from napari_histodistill.slide.errors import AnnotationError
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.slide.tissue import TISSUE
from napari_histodistill.study import NO_CORRECTION, StudySlide
from napari_histodistill.study.pyramid import CHUNK, pixels_at_centres

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from napari_histodistill.export.read_geojson import Shape
    from napari_histodistill.jobs import JobControl

    UInt8 = npt.NDArray[np.uint8]

AS: Final = ("pseudo", "corrections")
THUMBNAIL: Final = 512
CLASS_VALUES: Final = {
    **{name.lower(): value for value, (name, _) in CLASSES.items()},
    **dict.fromkeys(TUMOUR_GROUPS, TUMOUR),
    "tumor*": TUMOUR,
    "benign": NORMAL,
    "non-tumor": NORMAL,
    "non-tumour": NORMAL,
    "ignore": IGNORE,
    "artefact": IGNORE,
    "artifact": IGNORE,
    "outside": OUTSIDE,
    "background": OUTSIDE,
}
"""Class names of other programs, in lower case."""
_WORDS: Final = {"outside": OUTSIDE, "tumour": TUMOUR, "tumor": TUMOUR, "normal": NORMAL, "ignore": IGNORE}
_LONGEST_NAME: Final = 100
_EVERY: Final = 256
"""Shapes between two reports of progress."""


@dataclass(frozen=True)
class ImportRequest:
    """What is to come in, for a job.

    Parameters
    ----------
    slide : Path
        The slide's folder in the study.
    file : Path
    kind : {"pseudo", "corrections"}
    mpp : float or None
        Size of a mask's pixels in µm, its corner on the slide's; None goes by the file, or covers the slide.
    classes : dict of str to str
        Further class names and what they mean: "tumour", "normal", "ignore" or "outside".
    """

    slide: Path
    file: Path
    kind: str
    mpp: float | None = None
    classes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportPreview:
    """What would be written where.

    Parameters
    ----------
    request : ImportRequest
    labels : uint8 (h, w)
        On the slide's working grid: values as in `slide.labels`, 255 where nothing changes.
    window : (int, int, int, int) or None
        (y, x, height, width) on that grid around all that the file says; None if that is nothing.
    areas_mm2 : dict of str to float
        By the name of each value that is set.
    thumbnail : uint8 (h, w)
        The labels at most 512 px long.
    notes : list of str
        Sentences for the user: what was left out, how the file was placed.
    """

    request: ImportRequest
    labels: UInt8
    window: tuple[int, int, int, int] | None
    areas_mm2: dict[str, float]
    thumbnail: UInt8
    notes: list[str]

    def summary(self, *, applied: bool) -> dict[str, Any]:
        """For JSON."""
        window = None if self.window is None else dict(zip(("y", "x", "height", "width"), self.window, strict=True))
        areas = {f"{name} mm²": round(area, 6) for name, area in self.areas_mm2.items()}
        file, kind = self.request.file, self.request.kind
        return {
            "file": str(file),
            "as": kind,
            "window": window,
            "areas": areas,
            "notes": self.notes,
            "applied": applied,
        }


def read_classes(parts: Iterable[str]) -> dict[str, str]:
    """What classes mean, each written as NAME=MEANING; parts that are empty say nothing.

    Raises
    ------
    ImportFileError
        If a part has no "=", or a meaning is none.

    Examples
    --------
    >>> read_classes(["Gland = tumour", "Stroma=normal"])
    {'Gland': 'tumour', 'Stroma': 'normal'}
    """
    found: dict[str, str] = {}
    for part in filter(str.strip, parts):
        name, equals, meaning = part.rpartition("=")
        if not equals or not name.strip():
            raise ImportFileError(f"{part.strip()!r} does not say what a class means: write it as Stroma=normal.")
        _meaning(meaning.strip())
        found[name.strip()] = meaning.strip()
    return found


def preview_import(request: ImportRequest, control: JobControl) -> ImportPreview:
    """Read a file onto a slide's working grid; nothing is written.

    Raises
    ------
    ImportFileError
        If the file cannot be read, placed or understood; the sentence says why.
    """
    if request.kind not in AS:
        raise ImportFileError(f"A file comes in as one of {', '.join(AS)}, not as {request.kind!r}.")
    entry = StudySlide.open(request.slide)
    try:
        labels, said, notes = _read(entry, request, control)
    except (ImportFileError, AnnotationError) as error:
        raise ImportFileError(printable(str(error))) from error  # names in it are the file's
    if request.kind == "pseudo":
        _fill_from_tissue(entry, labels, control)
        notes.append("The pseudo-mask that the study holds for this slide is replaced; corrections stay.")
    counts = np.zeros(256, np.int64)
    for y in range(0, len(labels), CHUNK):
        counts += np.bincount(labels[y : y + CHUNK].ravel(), minlength=256)
    pixel_mm2 = entry.grid.pixel_size_um[0] * entry.grid.pixel_size_um[1] / 1e6
    areas = {NAMES[value]: float(counts[value] * pixel_mm2) for value in NAMES if counts[value]}
    areas.pop(NAMES[NO_CORRECTION], None)
    return ImportPreview(request, labels, said, areas, _thumbnail(labels), notes)


def apply_import(preview: ImportPreview, control: JobControl) -> None:
    """Write what was previewed into the study.

    Corrections are laid over those that are there. A pseudo-mask becomes the slide's result: certain where it is
    tumour, with a tissue mask that follows it where the study's differs.
    """
    entry = StudySlide.open(preview.request.slide)
    if preview.request.kind == "corrections":
        _write_corrections(entry, preview, control)
    else:
        _write_pseudo_mask(entry, preview, control)


# Reading


def _read(
    entry: StudySlide, request: ImportRequest, control: JobControl
) -> tuple[UInt8, tuple[int, int, int, int] | None, list[str]]:
    """Labels, 255 where the file says nothing; the window of what it says; notes."""
    if not request.file.exists():
        raise ImportFileError(f"{request.file} does not exist: check the name.")
    name = request.file.name.lower()
    place = Place.of_grid(entry.grid, entry.origin)
    control.progress(0, 0, f"Reading {printable(request.file.name)}")
    if name.endswith((".geojson", ".json")):
        offset = np.array(entry.origin)
        shapes: Iterable[Shape] = read_geojson(request.file)
        labels, notes = _draw(shapes, offset, place, request, control)
    elif name.endswith(".xml"):
        labels, notes = _draw(read_asap_shapes(request.file), np.zeros(2), place, request, control)
    else:
        labels, notes = _sample(entry, request, control)
    return labels, _window(labels), notes


def _draw(
    shapes: Iterable[Shape], offset: npt.NDArray[Any], place: Place, request: ImportRequest, control: JobControl
) -> tuple[UInt8, list[str]]:
    values = CLASS_VALUES | {name.lower(): _meaning(word) for name, word in request.classes.items()}
    canvas = Canvas(place)
    unknown: dict[str, int] = {}
    outside = no_area = 0
    for number, shape in enumerate(shapes):
        if number % _EVERY == 0:
            control.checkpoint()
            control.progress(number, 0, "Drawing outlines")
        value = values.get(shape.name.lower())
        if not shape.rings:
            no_area += 1
        elif value is None:
            if shape.name in unknown or len(unknown) < 100:
                unknown[shape.name] = unknown.get(shape.name, 0) + 1
        elif not canvas.paint([ring + offset for ring in shape.rings], value):
            outside += 1
    notes = []
    if unknown:
        listed = ", ".join(f"{printable(name)} ({count})" for name, count in list(unknown.items())[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        notes.append(
            f"Left out, because their class means nothing here: {listed}{more}. Say what a class means to use it."
        )
    if outside:
        notes.append(f"Polygons off the slide, or too small to hold the centre of a pixel: {outside}.")
    if no_area:
        notes.append(f"Points and lines, which have no area, were left out: {no_area}.")
    return canvas.labels, notes


def _meaning(word: str) -> int:
    if word.lower() not in _WORDS:
        raise ImportFileError(f"A class means tumour, normal, ignore or outside, not {word!r}.")
    return _WORDS[word.lower()]


def _sample(entry: StudySlide, request: ImportRequest, control: JobControl) -> tuple[UInt8, list[str]]:
    with open_mask(request.file) as mask:
        placed = place_mask(mask, entry, request.mpp, printable(request.file.name))
        found, covered = placed.sample(mask, control)
        ours = mask.provenance.get("what")
        notes = [*mask.notes, *placed.notes]
    present = set(np.flatnonzero(_histogram(found, covered)).tolist())
    said = _translation(present, ours, request.kind, printable(request.file.name))
    for rows in _strips(len(found)):
        found[rows] = np.where(covered(rows), said[found[rows]], NO_CORRECTION)
    return found, notes


def _translation(present: set[int], ours: Any, kind: str, name: str) -> UInt8:
    """What each value of a mask file means: uint8 (256,)."""
    said = np.arange(256, dtype=np.uint8)
    if not ours and present <= {0, NO_CORRECTION} and NO_CORRECTION in present:
        said[NO_CORRECTION], said[0] = TUMOUR, NO_CORRECTION  # black and white: white is tumour
        return said
    unknown = sorted(present - set(NAMES))
    if unknown:
        raise ImportFileError(
            f"{name} holds the value {unknown[0]}, but a mask holds 0 outside tissue, 1 tumour, 2 normal tissue, 3 "
            "ignore and 255 nothing: change its values."
        )
    if kind == "corrections":
        zero_is_said = NO_CORRECTION in present or ours == "corrections"
    else:
        zero_is_said = NORMAL in present or bool(ours)
    if not zero_is_said:
        said[0] = NO_CORRECTION
    return said


def _histogram(found: UInt8, covered: Any) -> npt.NDArray[np.int64]:
    counts = np.zeros(256, np.int64)
    for rows in _strips(len(found)):
        counts += np.bincount(found[rows][covered(rows)], minlength=256)
    return counts


def _strips(height: int) -> list[slice]:
    return [slice(y, min(y + CHUNK, height)) for y in range(0, height, CHUNK)]


def _window(labels: UInt8) -> tuple[int, int, int, int] | None:
    said_rows = np.array([bool((row != NO_CORRECTION).any()) for row in labels])
    rows = np.flatnonzero(said_rows)
    if not rows.size:
        return None
    columns = np.zeros(labels.shape[1], bool)
    for strip in _strips(len(labels)):
        columns |= (labels[strip] != NO_CORRECTION).any(axis=0)
    wide = np.flatnonzero(columns)
    return int(rows[0]), int(wide[0]), int(rows[-1] - rows[0]) + 1, int(wide[-1] - wide[0]) + 1


def _fill_from_tissue(entry: StudySlide, labels: UInt8, control: JobControl) -> None:
    """Where a pseudo-mask says nothing: normal where there is tissue, ignore where that is an artefact."""
    if not any(bool((labels[rows] == NO_CORRECTION).any()) for rows in _strips(len(labels))):
        return
    tissue = entry.tissue_on_grid()
    meaning = np.full(256, OUTSIDE, np.uint8)
    meaning[TISSUE], meaning[IGNORE] = NORMAL, IGNORE
    for rows in _strips(len(labels)):
        control.checkpoint()
        strip = labels[rows]
        np.copyto(strip, meaning[tissue[rows, slice(0, labels.shape[1])]], where=strip == NO_CORRECTION)


def _thumbnail(labels: UInt8) -> UInt8:
    shrink = min(1.0, THUMBNAIL / max(labels.shape))
    shape = [max(1, round(side * shrink)) for side in labels.shape]
    rows, columns = (pixels_at_centres(n, m, 0, m) for n, m in zip(labels.shape, shape, strict=True))
    return labels[np.ix_(rows, columns)]


# Writing


def _write_corrections(entry: StudySlide, preview: ImportPreview, control: JobControl) -> None:
    """Lay what a file says over the corrections, as one step that can be undone."""
    if preview.window is None:
        return
    y, x, height, width = preview.window
    control.progress(0, 0, "Writing corrections")
    said = preview.labels[y : y + height, x : x + width].copy()
    before = entry.corrections()
    if before is not None:
        for rows in _strips(height):
            control.checkpoint()
            strip = said[rows]
            np.copyto(strip, before.read(y + rows.start, x, *strip.shape), where=strip == NO_CORRECTION)
    entry.save_corrections_region(y, x, said, tool=import_tool(preview.request.file.name))


def import_tool(name: str) -> str:
    """What the journal calls the import of a file of this name."""
    return f"import of {printable(name)[:_LONGEST_NAME]}"


def _write_pseudo_mask(entry: StudySlide, preview: ImportPreview, control: JobControl) -> None:
    labels, file = preview.labels, preview.request.file
    model = f"imported {printable(file.name)} {hashlib.sha256(labels.tobytes()).hexdigest()[:12]}"
    with entry.lock():
        _follow_with_tissue(entry, labels, file.name)
        run = entry.new_run({"model": model, "slide": entry.fingerprint})
        certain = np.zeros(256, np.uint8)
        certain[TUMOUR] = 255
        with run.in_progress(), run.replace_pseudo_mask() as target:
            for rows in _strips(len(labels)):
                control.checkpoint()
                control.progress(rows.start, len(labels), "Writing the mask")
                target.write(rows.start, 0, labels[rows])
                run.probability.write(rows.start, 0, certain[labels[rows]])
        counted = entry.all_corrections().journal_bytes
        blocks = (
            (entry.corrected(rows.start, 0, labels[rows]), certain[labels[rows]]) for rows in _strips(len(labels))
        )
        figures = asdict(summarise_blocks(blocks, entry.grid.pixel_size_um))
        settings = {**asdict(MaskSettings(0.5)), "unreadable": 0}
        entry.complete_run(run, {"model": model, **figures, **settings, COUNTED: counted})


def _follow_with_tissue(entry: StudySlide, labels: UInt8, name: str) -> None:
    """See that the study's tissue is that of the mask, since a mask is computed anew from tissue and probability."""
    wanted = np.full(256, TISSUE, np.uint8)
    wanted[OUTSIDE], wanted[IGNORE] = 0, IGNORE
    if entry.tissue() is not None:
        tissue = entry.tissue_on_grid()
        everything = slice(0, labels.shape[1])
        if all(np.array_equal(tissue[rows, everything], wanted[labels[rows]]) for rows in _strips(len(labels))):
            return
    entry.save_tissue(wanted[labels], settings={"imported": name}, edited=True)
