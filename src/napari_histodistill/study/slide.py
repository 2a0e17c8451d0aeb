"""What a study knows of one slide: tissue, runs, predictions of rounds, corrections. `study` has its files."""

from __future__ import annotations

import enum
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import reason
from napari_histodistill.slide.grid import WorkingGrid
from napari_histodistill.slide.metadata import LARGEST_SIDE, is_plausible
from napari_histodistill.study.audit import AUDIT, Audit
from napari_histodistill.study.corrections import Corrections
from napari_histodistill.study.files import (
    DamagedError,
    StudyError,
    read_document,
    refuse_links,
    way_out,
    write_document,
)
from napari_histodistill.study.locks import FileLock
from napari_histodistill.study.pyramid import NO_CORRECTION, Pyramid
from napari_histodistill.study.run import Run, RunState
from napari_histodistill.study.tissue import SavedTissue, TissueOnGrid
from napari_histodistill.urls import UrlError, UrlPath, to_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    import zarr

    UInt8 = npt.NDArray[np.uint8]

SLIDE_FORMAT, TISSUE_FORMAT = "histodistill-slide", "histodistill-tissue"
VERSION = 1
LARGEST_GRID = 1 << 15
"""Px of a working grid's side; `WorkingGrid.for_slide` makes them half as long at most."""
LONG_LOCKS = ("slide.lock", "predictions.lock")
"""Held while a run or a prediction is written."""
BRIEF_LOCKS = ("corrections.lock", "audit.lock", "review.lock")
"""Held for the moment in which something is added or changed."""
TISSUE_ARRAYS = ("tissue.ome.zarr", "tissue-b.ome.zarr")
"""Folders of the tissue's array, in turn: one is written while the other still counts."""


def _is_there(path: Path) -> bool:
    """Whether a file can be seen; where it lies may be closed to this user, or its host not answer."""
    try:
        return path.exists()
    except (OSError, UrlError):
        return False


def tissue_array(folder: Path, document: dict[str, Any]) -> Path:
    """Where the array lies that a ``tissue.json`` in a slide's folder is about.

    Raises
    ------
    DamagedError
        If it names none that this software writes.
    """
    name = str(document.get("array", TISSUE_ARRAYS[0]))
    if name not in TISSUE_ARRAYS:
        raise DamagedError(f"{folder / 'tissue.json'} is damaged (its array is {name!r}): {way_out(folder)}.")
    return folder / name


class SlideLabel(enum.StrEnum):
    """The image-level label of a slide."""

    TUMOUR = "tumour"
    NORMAL = "normal"
    UNKNOWN = "unknown"


@dataclass
class StudySlide:
    """What a study knows of one slide. Arrays are views of the disk: read them again to see news.

    Parameters
    ----------
    folder : Path
    fingerprint : str
        Identifies the slide's content.
    grid : WorkingGrid
        The grid of probability, pseudo-mask and corrections.
    known_path : Path
        Where the slide file was seen last.
    origin : (int, int)
        Level-0 position (y, x) of the scanned area, where QuPath's coordinates begin.
    label : SlideLabel
        Whether the slide holds tumour, as far as a person said.
    """

    folder: Path
    fingerprint: str
    grid: WorkingGrid
    known_path: Path
    origin: tuple[int, int] = (0, 0)
    label: SlideLabel = SlideLabel.UNKNOWN

    @classmethod
    def open(cls, folder: Path) -> StudySlide:
        """Read ``slide.json``."""
        document = read_document(folder / "slide.json", SLIDE_FORMAT, VERSION)
        refuse_links(folder)
        try:
            pairs = [(a, b) for a, b in (document[key] for key in ("grid_shape", "slide_shape", "mpp"))]
            grid = WorkingGrid(*pairs)
            _check_grid(grid)
            relative = to_path(os.path.normpath(folder / document["path_from_study"]))
            absolute = to_path(document["path"])
            elsewhere = isinstance(absolute, UrlPath) or _is_there(absolute)
            known_path = absolute if elsewhere and not _is_there(relative) else relative
            y, x = (_whole(value, LARGEST_SIDE) for value in document["origin"])
            label = SlideLabel(document.get("label", SlideLabel.UNKNOWN))
            return cls(folder, str(document["fingerprint"]), grid, known_path, (y, x), label)
        except (KeyError, TypeError, ValueError, OSError, OverflowError) as error:
            raise DamagedError(f"{folder / 'slide.json'} is damaged ({reason(error)}): {way_out(folder)}.") from error

    def save(self) -> None:
        """Write ``slide.json``; the path is kept both ways, so study and slides move together or apart."""
        relative = str(self.known_path)
        if not isinstance(self.known_path, UrlPath):
            with suppress(ValueError):  # another drive on Windows
                relative = Path(os.path.relpath(self.known_path, self.folder)).as_posix()
        content = {
            "path": str(self.known_path),
            "path_from_study": relative,
            "fingerprint": self.fingerprint,
            "slide_shape": self.grid.slide_shape,
            "grid_shape": self.grid.shape,
            "mpp": self.grid.mpp,
            "origin": self.origin,
            "label": self.label,
        }
        write_document(self.folder / "slide.json", SLIDE_FORMAT, VERSION, content, copy=True)

    @property
    def mpp(self) -> tuple[float, float]:
        """Size of a level-0 pixel as (y, x) in µm."""
        return self.grid.mpp

    @property
    def is_there(self) -> bool:
        """Whether the slide file can be seen where it was last."""
        return _is_there(self.known_path)

    @property
    def slide_path(self) -> Path:
        """The slide file; `StudyError` if it is no longer there."""
        if not isinstance(self.known_path, UrlPath) and not self.is_there:
            raise StudyError(
                f"{self.known_path} is no longer there: move the slide back, or open it from its new place with this "
                "study (it is known by its content)."
            )
        return self.known_path

    def lock(self) -> FileLock:
        """The lock that whoever writes a run of this slide, or its tissue, must hold."""
        return FileLock(self.folder / LONG_LOCKS[0], self.known_path.name)

    def predictions_lock(self) -> FileLock:
        """The lock that whoever writes a prediction of a round must hold."""
        return FileLock(self.folder / LONG_LOCKS[1], f"The prediction of {self.known_path.name}")

    def audit(self) -> Audit | None:
        """The random sample of tissue by which predictions are judged, if one was drawn; never to be learnt from."""
        return AUDIT.read(self.folder, self.grid)

    # Tissue

    def save_tissue(self, mask: UInt8, *, settings: dict[str, Any], edited: bool = False) -> None:
        """Keep a tissue mask.

        Parameters
        ----------
        mask : uint8 (h, w)
            0 background, 1 tissue, 3 artefact, on a grid of its own that covers the slide edge to edge.
        settings : dict
            What it was found with, as JSON values.
        edited : bool
            Whether a person changed it: such a mask is used whatever the settings.
        """
        height, width = mask.shape
        grid = WorkingGrid((height, width), self.grid.slide_shape, self.grid.mpp)
        before = self._tissue_array()
        name = next(name for name in TISSUE_ARRAYS if before is None or name != before.name)
        Pyramid.create(self.folder / name, grid, "labels", name="tissue", multiscale=False).write(0, 0, mask)
        content = {"settings": settings, "edited": edited, "array": name}
        write_document(self.folder / "tissue.json", TISSUE_FORMAT, VERSION, content, copy=True)
        if before is not None:  # until now a crash left the mask from before
            shutil.rmtree(before, ignore_errors=True)

    def _tissue_array(self) -> Path | None:
        """Where the array of the kept tissue lies, by a record that can be read."""
        if not (self.folder / "tissue.json").exists():
            return None
        try:
            document = read_document(self.folder / "tissue.json", TISSUE_FORMAT, VERSION)
        except DamagedError:
            return None
        return tissue_array(self.folder, document)

    def tissue(self) -> SavedTissue | None:
        """The tissue mask that is kept, if any."""
        path = self.folder / "tissue.json"
        if not path.exists():
            return None
        document = read_document(path, TISSUE_FORMAT, VERSION)
        pyramid = Pyramid(tissue_array(self.folder, document))
        return SavedTissue(pyramid.read(0, 0, *pyramid.shape), document["settings"], document["edited"])

    def tissue_on_grid(self, run: Run | None = None) -> TissueOnGrid:
        """The kept tissue on the working grid, without what ``run`` could not read."""
        saved = self.tissue()
        if saved is None:
            raise StudyError(f"No tissue has been found on {self.known_path.name} yet: find tissue first.")
        return TissueOnGrid(saved.mask, self.grid.shape, [] if run is None else run.record.unreadable)

    # Runs

    def runs(self) -> list[Path]:
        """Folders of the runs on disk, oldest first."""
        return sorted(path.parent for path in (self.folder / "runs").glob("*/run.json"))

    @property
    def run(self) -> Run | None:
        """The run to show: the newest that is complete or being written, else the newest partial one."""
        opened = [Run.open(folder, self.grid) for folder in reversed(self.runs())]
        written_now = opened[:1] if self.lock().held_by_anyone() else []
        complete = [run for run in opened if run.record.state is RunState.COMPLETE]
        return next(iter([*written_now, *complete, *opened]), None)

    def new_run(self, settings: dict[str, Any]) -> Run:
        """Start a run; earlier partial ones are deleted, complete ones kept until this one is complete."""
        for folder in self.runs():
            run = Run.open(folder, self.grid)
            if run.record.state is not RunState.COMPLETE:
                run.delete()
        taken = [int(path.name) for path in (self.folder / "runs").glob("[0-9]*") if path.name.isdecimal()]
        return Run.create(self.folder / "runs" / f"{max(taken, default=0) + 1:04d}", self.grid, settings)

    def resumable_run(self) -> Run | None:
        """The newest run, to go on with."""
        folders = self.runs()
        return Run.open(folders[-1], self.grid, writable=True) if folders else None

    def complete_run(self, run: Run, summary: dict[str, Any]) -> None:
        """Declare a run or prediction complete; a run takes the place of those before it, which are deleted."""
        run.record.summary = summary
        run.record.state = RunState.COMPLETE
        run.save()
        if run.folder.parent.name == "runs":
            for folder in self.runs():
                if folder != run.folder:
                    Run.open(folder, self.grid).delete()

    # Predictions of rounds

    def predictions(self) -> list[str]:
        """Names of the predictions on disk, oldest first."""
        return sorted(path.parent.name for path in (self.folder / "predictions").glob("*/run.json"))

    def prediction(self, name: str, *, writable: bool = False) -> Run | None:
        """The prediction of that name, if there is one."""
        folder = self.folder / "predictions" / name
        return Run.open(folder, self.grid, writable=writable) if (folder / "run.json").exists() else None

    def new_prediction(self, name: str, settings: dict[str, Any]) -> Run:
        """Start a prediction in place of whatever has that name."""
        earlier = self.prediction(name)
        if earlier is not None:
            earlier.delete()
        return Run.create(self.folder / "predictions" / name, self.grid, settings)

    def adopt_prediction(self, name: str) -> Run:
        """Make what a prediction says the slide's pseudo-mask; corrections stay what they are.

        The prediction itself stays too, and what the first teacher said becomes a prediction, of round 0. A crash in
        between leaves the run that was shown before.

        Raises
        ------
        StudyError
            If there is no complete prediction of that name.
        """
        prediction = self.prediction(name)
        if prediction is None or prediction.record.state is not RunState.COMPLETE:
            raise StudyError(f"{self.known_path.name} has no finished prediction {name}: choose another round.")
        self._keep_first(f"{name.rpartition('-')[0]}-0000")
        run = self.new_run({**prediction.record.settings, "adopted": name})
        for part in ("probability.ome.zarr", "pseudo-mask.ome.zarr"):
            shutil.copytree(prediction.folder / part, run.folder / part, dirs_exist_ok=True)
        run.record.finished = set(prediction.record.finished)
        run.record.unreadable = list(prediction.record.unreadable)
        self.complete_run(run, dict(prediction.record.summary or {}))
        return run

    def _keep_first(self, name: str) -> None:
        """Copy a result that is a teacher's own to the predictions; its record last, as it makes a folder a run."""
        run = self.run
        if run is None or run.record.state is not RunState.COMPLETE or "adopted" in run.record.settings:
            return
        folder, earlier = self.folder / "predictions" / name, self.prediction(name)
        if earlier is not None:
            earlier.delete()
        elif folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("run.json*"))
        shutil.copy2(run.folder / "run.json", folder)

    def probability(self) -> zarr.Array[Any] | None:
        """Tumour probability x 255 of `run` on the working grid, uint8."""
        run = self.run
        return None if run is None else run.probability.levels[0]

    def pseudo_mask(self) -> zarr.Array[Any] | None:
        """What the model of `run` says: uint8 0 outside tissue, 1 tumour, 2 normal tissue, 3 ignore."""
        run = self.run
        pyramid = None if run is None else run.pseudo_mask
        return None if pyramid is None else pyramid.levels[0]

    # Corrections

    def corrections(self) -> Corrections | None:
        """What a person set, uint8 on the working grid, 255 where nothing; None before the first."""
        corrections = self.all_corrections()
        return corrections if corrections.exist else None

    def all_corrections(self) -> Corrections:
        """The same, to be written to."""
        return Corrections(self.folder, self.grid, self.known_path.name)

    def save_corrections_region(
        self, y: int, x: int, set_by_hand: UInt8, *, tool: str = "script", context: str = ""
    ) -> None:
        """Replace a window of the corrections, however large, as one step that can be undone.

        Parameters
        ----------
        y, x : int
            Where the window begins, in working-grid px; it must lie inside the grid.
        set_by_hand : uint8 (h, w)
            What a person set, 255 where nothing.
        tool : str
            What it was made with ("import of regions.geojson"), for the record and for "Undo".
        context : str
            What it was made on, such as a run or a round.
        """
        self.all_corrections().set_window(y, x, set_by_hand, tool=tool, context=context)

    def corrected(self, y: int, x: int, model_says: UInt8) -> UInt8:
        """A window of a pseudo-mask with the corrections laid over it."""
        corrections = self.corrections()
        if corrections is None:
            return model_says
        set_by_hand = corrections.read(y, x, *model_says.shape)
        return np.where(set_by_hand == NO_CORRECTION, model_says, set_by_hand)

    def mask_blocks(self, run: Run, rows: int = 512) -> Iterator[tuple[int, UInt8]]:
        """A run's mask with corrections laid over it, in strips of ``rows`` rows from the top: (y, uint8 (h, w))."""
        pyramid = run.pseudo_mask
        if pyramid is None:
            raise StudyError(f"{self.known_path.name} has no pseudo-mask yet: run the teacher first.")
        height, width = pyramid.shape
        for y in range(0, height, rows):
            yield y, self.corrected(y, 0, pyramid.read(y, 0, min(rows, height - y), width))


def _whole(value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > most:
        raise ValueError(f"{value!r} is no number of pixels")
    return value


def _check_grid(grid: WorkingGrid) -> None:
    """Refuse sizes that no slide has: arrays of the grid's shape are made."""
    for value in grid.slide_shape:
        _whole(value, LARGEST_SIDE)
    for value in grid.shape:
        _whole(value, LARGEST_GRID)
    if not is_plausible(grid.mpp):
        raise ValueError(f"{grid.mpp} is no size of a pixel")
