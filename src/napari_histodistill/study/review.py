"""Which places of a slide a person has been led to, so that none is shown twice; kept across restarts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from napari_histodistill.study.record import Record, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_histodistill.slide.grid import WorkingGrid

FORMAT, VERSION = "histodistill-review", 1
Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Seen:
    """Places by their middle, (y, x) in µm from the slide's outer corner.

    Parameters
    ----------
    prediction : str
        Name of the prediction that led to the places in ``visited``; another one opens them again.
    visited : tuple of Point
    skipped : tuple of Point
        Stay closed whatever is predicted.
    """

    prediction: str = ""
    visited: tuple[Point, ...] = ()
    skipped: tuple[Point, ...] = ()

    def closed(self, prediction: str) -> tuple[Point, ...]:
        """Places that are not to be shown for this prediction."""
        return self.skipped + (self.visited if prediction == self.prediction else ())

    def with_visited(self, prediction: str, place: Point) -> Seen:
        """After a place was shown, for the first time or again."""
        before = self.visited if prediction == self.prediction else ()
        return Seen(prediction, before if place in before else (*before, place), self.skipped)

    def with_skipped(self, place: Point) -> Seen:
        """After a place was skipped, for the first time or again."""
        return self if place in self.skipped else Seen(self.prediction, self.visited, (*self.skipped, place))


def read_seen(folder: Path) -> Seen:
    """What is kept for the slide with this folder.

    Raises
    ------
    StudyError
        If it is damaged or of a newer version.
    """
    return REVIEW.read(folder) or Seen()


def change_seen(folder: Path, change: Callable[[Seen], Seen]) -> Seen:
    """Change what is on disk, which another window may have changed too; returns it.

    Raises
    ------
    StudyError
        If it is damaged or cannot be written.
    """
    return REVIEW.change(folder, lambda seen: change(seen or Seen()))


def _unpacked(document: dict[str, Any]) -> Seen:
    visited, skipped = (tuple((float(y), float(x)) for y, x in document[key]) for key in ("visited", "skipped"))
    if not all(math.isfinite(value) for place in (*visited, *skipped) for value in place):
        raise ValueError("a place that is none")
    return Seen(text(document["prediction"]), visited, skipped)


def _fits(seen: Seen, grid: WorkingGrid) -> bool:
    height, width = (size * mpp for size, mpp in zip(grid.slide_shape, grid.mpp, strict=True))
    return all(0 <= y <= height and 0 <= x <= width for y, x in (*seen.visited, *seen.skipped))


REVIEW: Final = Record("review", FORMAT, VERSION, "which places a person has seen", asdict, _unpacked, _fits)
