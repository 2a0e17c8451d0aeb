"""What can leave: a mask with its place on the slide, its probability, and what made it, whatever it comes from.

Writers know nothing but a `Source`. The pseudo-mask and the corrections of a study are two; what a round predicts, or a
layer in napari, is one more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_histodistill.errors import HistodistillError
from napari_histodistill.export.provenance import Provenance
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study import NO_CORRECTION

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import zarr

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.nets.masking import MaskSettings
    from napari_histodistill.slide.grid import WorkingGrid
    from napari_histodistill.study import Run, StudySlide

    UInt8 = npt.NDArray[np.uint8]
    Points = npt.NDArray[np.float64]
    Strips = Callable[[int], Iterator[tuple[int, UInt8]]]

ROWS: Final = 512
"""Rows that are read at a time."""

WHAT: Final = ("pseudo", "corrections", "prediction")
LABELS: Final = {"pseudo": "pseudo-mask", "corrections": "corrections", "prediction": "prediction"}
"""Name of each in files."""

NAMES: Final = {
    OUTSIDE: "outside tissue",
    TUMOUR: "tumour",
    NORMAL: "normal tissue",
    IGNORE: "ignore",
    NO_CORRECTION: "nothing set",
}
COLOURS: Final = {
    OUTSIDE: (255, 255, 255),
    TUMOUR: (220, 20, 40),
    NORMAL: (230, 190, 210),
    IGNORE: (250, 200, 0),
    NO_CORRECTION: (255, 255, 255),
}
"""Colour (r, g, b) of each value in pictures of a mask."""


class ExportError(HistodistillError):
    """Something cannot be exported as asked."""


@dataclass(frozen=True)
class Place:
    """Where a grid of pixels lies on a slide; the outer edges of a grid over the whole slide coincide with it.

    Parameters
    ----------
    shape : (int, int)
        (height, width) of the grid.
    pixel_um : (float, float)
        Size of its pixels as (y, x) in µm.
    mpp : (float, float)
        Size of a level-0 pixel as (y, x) in µm.
    corner_um : (float, float)
        Outer corner of its first pixel from the slide's.
    origin : (int, int)
        Level-0 (y, x) of the scanned area, where QuPath's coordinates begin.
    """

    shape: tuple[int, int]
    pixel_um: tuple[float, float]
    mpp: tuple[float, float]
    corner_um: tuple[float, float] = (0.0, 0.0)
    origin: tuple[int, int] = (0, 0)

    @classmethod
    def of_grid(cls, grid: WorkingGrid, origin: tuple[int, int] = (0, 0)) -> Place:
        """The place of a working grid."""
        return cls(grid.shape, grid.pixel_size_um, grid.mpp, origin=origin)

    def with_pixels(self, um: float) -> Place:
        """The same area on a grid of about ``um`` µm per pixel."""
        height, width = (max(1, round(n * p / um)) for n, p in zip(self.shape, self.pixel_um, strict=True))
        pixel = (self.shape[0] * self.pixel_um[0] / height, self.shape[1] * self.pixel_um[1] / width)
        return replace(self, shape=(height, width), pixel_um=pixel)

    def to_level0(self, points: Points) -> Points:
        """Positions (n, 2) of (y, x) on the grid, 0 being its outer edge, in level-0 px."""
        return np.asarray((np.array(self.corner_um) + points * self.pixel_um) / self.mpp)

    @property
    def translate_um(self) -> tuple[float, float]:
        """Centre of its first pixel from the centre of the slide's first, as napari and OME-Zarr want it."""
        y, x = (c + (p - m) / 2 for c, p, m in zip(self.corner_um, self.pixel_um, self.mpp, strict=True))
        return y, x


@dataclass(frozen=True)
class Source:
    """One mask that can leave.

    Parameters
    ----------
    what : str
        One of `WHAT`.
    place : Place
    strips : callable
        ``strips(rows)`` yields (y, uint8 (h, width)) from the top, ``rows`` at a time: values as in `slide.labels`, 255
        where a person set nothing.
    provenance : Provenance
    probability : array or None
        uint8 on the same grid, 255 x probability; numpy or zarr, read in strips.
    slide_path : callable or None
        Gives the slide's file, or raises the sentence that says where it should be; only the overlay asks.
    check : callable
        Called when all was read; raises if the mask has changed since this was made.
    """

    what: str
    place: Place
    strips: Strips
    provenance: Provenance
    probability: zarr.Array[Any] | UInt8 | None = None
    slide_path: Callable[[], Path] | None = None
    check: Callable[[], None] = lambda: None

    @property
    def label(self) -> str:
        """Name of the mask in files."""
        return LABELS[self.what]

    def with_probability(self, rows: int = ROWS) -> Iterator[tuple[int, UInt8, UInt8 | None]]:
        """Strips of (y, mask, probability)."""
        for y, mask in self.strips(rows):
            yield y, mask, None if self.probability is None else np.asarray(self.probability[y : y + len(mask)])

    def watched(self, control: JobControl, message: str) -> Source:
        """The same, whose strips report progress and stop when the job is cancelled."""
        height = self.place.shape[0]

        def strips(rows: int) -> Iterator[tuple[int, UInt8]]:
            for y, strip in self.strips(rows):
                control.checkpoint()
                control.progress(y, height, message)
                yield y, strip

        return replace(self, strips=strips)

    def cropped(self, y: int, x: int, height: int, width: int) -> Source:
        """A window of it, in px of its grid; without probability and overlay."""
        corner = tuple(c + at * p for c, at, p in zip(self.place.corner_um, (y, x), self.place.pixel_um, strict=True))

        def strips(rows: int) -> Iterator[tuple[int, UInt8]]:
            for top, strip in self.strips(rows):
                part = strip[max(0, y - top) : max(0, y + height - top), x : x + width]
                if len(part):
                    yield max(top, y) - y, part

        place = replace(self.place, shape=(height, width), corner_um=(corner[0], corner[1]))
        return replace(self, place=place, strips=strips, probability=None, slide_path=None)

    def noting(self, **options: Any) -> Source:
        """The same, with what a writer was told in its provenance."""
        options = {**self.provenance.options, **options}
        return replace(self, provenance=replace(self.provenance, options=options))


def source_of(entry: StudySlide, what: str = "pseudo", round_number: int | None = None) -> Source:
    """What a study holds of a slide, ready to leave.

    Parameters
    ----------
    entry : StudySlide
    what : {"pseudo", "corrections", "prediction"}
        The pseudo-mask with the corrections laid over it, the corrections alone, or what a round predicts.
    round_number : int, optional
        Which round's prediction.

    Raises
    ------
    ExportError
        If the study does not hold it; the sentence says what to do.
    """
    if what not in WHAT:
        raise ExportError(f"There is no {what!r} to export: choose from {', '.join(WHAT)}.")
    if what == "prediction":
        return _prediction(entry, round_number)
    if round_number is not None:
        raise ExportError(f"A round says which prediction is meant: leave it out to export {what!r}.")
    if what == "corrections":
        return _corrections(entry)
    if entry.run is None:
        raise ExportError(f"{entry.known_path.name} has no result to export yet: run the teacher first.")
    return _mask_of(entry, entry.run, what)


def _prediction(entry: StudySlide, round_number: int | None) -> Source:
    """What a round of the newest distillation predicts; by default the last that has a prediction."""
    names = entry.predictions()
    newest = [name for name in names if name.split("-")[0] == names[-1].split("-")[0]]
    wanted = newest[-1:] if round_number is None else [n for n in newest if int(n.split("-")[1]) == round_number]
    run = entry.prediction(wanted[0]) if wanted else None
    if run is None:
        there = " and ".join(round_name(int(name.split("-")[1])) for name in newest)
        raise ExportError(
            f"The study holds no prediction of {round_name(round_number)} for this slide: choose from {there}."
            if newest and round_number is not None
            else "The study holds no round of distillation, so there is no prediction yet: export the pseudo-mask "
            "('pseudo'), or distil first."
        )
    source = _mask_of(entry, run, "prediction")
    return replace(source, provenance=replace(source.provenance, round=int(wanted[0].split("-")[1])))


def round_name(round_number: int) -> str:
    """A round as people call it; what the first teacher said is kept under the number 0."""
    return f"round {round_number}" if round_number else "the first teacher"


def _mask_of(entry: StudySlide, run: Run, what: str) -> Source:
    """The mask of a run or prediction, corrections laid over it."""
    pyramid = run.pseudo_mask
    if pyramid is None:
        raise ExportError(f"{entry.known_path.name} has no result to export yet: run the teacher first.")
    place = Place.of_grid(entry.grid, entry.origin)
    document = pyramid.folder / "zarr.json"
    before = document.stat()

    def strips(rows: int) -> Iterator[tuple[int, UInt8]]:
        return entry.mask_blocks(run, rows)

    def check() -> None:
        try:
            now = document.stat()
        except FileNotFoundError as error:
            raise ExportError(f"{document.parent} is no longer there: export it again.") from error
        if (now.st_ino, now.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
            raise ExportError("The mask was changed while it was exported: export it again.")

    provenance = replace(provenance_of(entry, run), what=what)
    return Source(what, place, strips, provenance, run.probability.levels[0], lambda: entry.slide_path, check)


def _corrections(entry: StudySlide) -> Source:
    stored = entry.corrections()
    if stored is None:
        raise ExportError(f"{entry.known_path.name} has no corrections to export: nobody set any.")
    height, width = entry.grid.shape

    def strips(rows: int) -> Iterator[tuple[int, UInt8]]:
        for y in range(0, height, rows):
            yield y, stored.read(y, 0, min(rows, height - y), width)

    place = Place.of_grid(entry.grid, entry.origin)
    return Source("corrections", place, strips, _provenance(entry, "corrections"), None, lambda: entry.slide_path)


def provenance_of(entry: StudySlide, run: Run, settings: MaskSettings | None = None) -> Provenance:
    """What made a run's pseudo-mask, with the settings it was written with unless others are given."""
    summary = run.record.summary or {}
    made_with = summary if settings is None else asdict(settings)
    return replace(
        _provenance(entry, "pseudo"),
        model=run.record.settings.get("model"),
        threshold=made_with.get("threshold"),
        smoothing_um=made_with.get("smoothing_um"),
        support=made_with.get("support"),
        options={"unreadable": summary.get("unreadable", 0)},
    )


def _provenance(entry: StudySlide, what: str) -> Provenance:
    name, grid = entry.known_path.name, entry.grid
    return Provenance(what, name, entry.fingerprint, grid.slide_shape, entry.mpp, entry.origin)
