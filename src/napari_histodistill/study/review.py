"""Which places of a slide a person has been led to, so that none is shown twice; kept across restarts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

from napari_histodistill.study.files import StudyError, read_document, write_document

if TYPE_CHECKING:
    from pathlib import Path

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
        """After a place was shown."""
        before = self.visited if prediction == self.prediction else ()
        return Seen(prediction, (*before, place), self.skipped)

    def with_skipped(self, place: Point) -> Seen:
        """After a place was skipped."""
        return Seen(self.prediction, self.visited, (*self.skipped, place))


def read_seen(folder: Path) -> Seen:
    """What is kept for the slide with this folder.

    Raises
    ------
    StudyError
        If it is damaged or of a newer version.
    """
    path = folder / "review.json"
    if not path.exists():
        return Seen()
    document = read_document(path, FORMAT, VERSION)
    try:
        visited, skipped = (tuple((float(y), float(x)) for y, x in document[key]) for key in ("visited", "skipped"))
        return Seen(str(document["prediction"]), visited, skipped)
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{path} is damaged ({error}): delete it; only where you have looked is forgotten.") from error


def write_seen(folder: Path, seen: Seen) -> None:
    """Keep it."""
    write_document(folder / "review.json", FORMAT, VERSION, asdict(seen))
