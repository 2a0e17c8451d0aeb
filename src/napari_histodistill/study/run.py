"""One prediction of one slide on disk: what made it, which blocks are done, and its arrays."""

from __future__ import annotations

import enum
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import reason
from napari_histodistill.study.files import (
    DamagedError,
    StudyError,
    copy_of,
    put_in_place,
    read_document,
    refuse_links,
    way_out,
    write_document,
    writing,
)
from napari_histodistill.study.pyramid import Pyramid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from napari_histodistill.slide.grid import WorkingGrid

FORMAT, VERSION = "histodistill-run", 1


class RunState(enum.StrEnum):
    """What a run's record says; a RUNNING one that no process works on has crashed."""

    RUNNING = "running"
    PARTIAL = "partial"
    COMPLETE = "complete"


@dataclass
class RunRecord:
    """The content of ``run.json``.

    Parameters
    ----------
    settings : dict
        JSON values that decide the result: a run resumes only with the same ones.
    state : RunState
    finished : set of int
        Indices of the blocks whose final pixels are on disk.
    unreadable : list of (y, x, height, width)
        Windows, in working-grid px, that the slide could not read.
    summary : dict or None
        The figures of the result, once complete.
    """

    settings: dict[str, Any]
    state: RunState = RunState.RUNNING
    finished: set[int] = field(default_factory=set)
    unreadable: list[tuple[int, int, int, int]] = field(default_factory=list)
    summary: dict[str, Any] | None = None


class Run:
    """A run's folder: ``run.json``, ``probability.ome.zarr``, ``pseudo-mask.ome.zarr`` and spilled tiles.

    Attributes
    ----------
    record : RunRecord
    probability : Pyramid
        uint8, 255 x probability, rounded; 0 where nothing was predicted.
    """

    def __init__(self, folder: Path, grid: WorkingGrid, record: RunRecord, probability: Pyramid) -> None:
        self.folder, self.grid, self.record, self.probability = folder, grid, record, probability

    @classmethod
    def create(cls, folder: Path, grid: WorkingGrid, settings: dict[str, Any]) -> Run:
        """Start an empty run; the record is written last, so a folder without one is no run, and makes room."""
        with writing(folder):
            folder.parent.mkdir(exist_ok=True)  # and not what is above: that may be away for the moment
            if folder.exists() and not (folder / "run.json").exists():
                shutil.rmtree(folder)
            folder.mkdir()
        probability = Pyramid.create(folder / "probability.ome.zarr", grid, "image", name="tumour probability")
        run = cls(folder, grid, RunRecord(settings), probability)
        run.save()
        return run

    @classmethod
    def open(cls, folder: Path, grid: WorkingGrid, *, writable: bool = False) -> Run:
        """Open a run, to read it or to go on with it."""
        document = read_document(folder / "run.json", FORMAT, VERSION)
        refuse_links(folder)
        try:
            record = RunRecord(
                settings=dict(document["settings"]),
                state=RunState(document["state"]),
                finished={int(index) for index in document["finished"]},
                unreadable=[(int(y), int(x), int(h), int(w)) for y, x, h, w in document["unreadable"]],
                summary=None if document["summary"] is None else dict(document["summary"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DamagedError(f"{folder / 'run.json'} is damaged ({reason(error)}): {way_out(folder)}.") from error
        return cls(folder, grid, record, Pyramid(folder / "probability.ome.zarr", "r+" if writable else "r"))

    @property
    def model_name(self) -> str:
        """Name of the model that made it, or what was imported; empty if the record does not say."""
        return str(self.record.settings.get("model", "")).rpartition(" ")[0]

    def save(self) -> None:
        """Write the record; twice where it is of an empty run or a complete one, which is not so often."""
        content = asdict(self.record) | {"finished": sorted(self.record.finished)}
        copy = not self.record.finished or self.record.state is RunState.COMPLETE
        write_document(self.folder / "run.json", FORMAT, VERSION, content, copy=copy)

    @contextmanager
    def in_progress(self) -> Iterator[None]:
        """Work on the run: it is partial if that ends with an exception, and running if the process is killed."""
        self.record.state = RunState.RUNNING
        self.save()
        try:
            yield
        except BaseException:
            self.record.state = RunState.PARTIAL
            self.save()
            raise

    def finish_blocks(self, indices: Iterable[int]) -> None:
        """Record that the final pixels of blocks are on disk."""
        self.record.finished.update(indices)
        self.save()

    def require_same(self, settings: dict[str, Any]) -> None:
        """Refuse to go on with a run that other settings began.

        Raises
        ------
        StudyError
            Naming the first setting that differs.
        """
        for name in sorted(self.record.settings.keys() | settings.keys()):
            before, now = self.record.settings.get(name), settings.get(name)
            if before != now:
                raise StudyError(
                    f"The earlier run cannot be resumed: its {name} was {before}, now it is {now}; use the same, or "
                    "start anew without resuming."
                )

    @property
    def tiles(self) -> Path:
        """Folder of tiles that were computed and that unfinished blocks still need."""
        return self.folder / "tiles"

    @property
    def pseudo_mask(self) -> Pyramid | None:
        """What the model says, as labels, once it has been written."""
        for folder in (self._mask_folder(), self._mask_folder("old")):  # the second after a crash between two renames
            if (folder / "zarr.json").exists():
                return Pyramid(folder)
        return None

    @contextmanager
    def replace_pseudo_mask(self) -> Iterator[Pyramid]:
        """An empty pseudo-mask to write into; it takes the place of the one before if the block ends without error."""
        final, new, old = self._mask_folder(), self._mask_folder("new"), self._mask_folder("old")
        target = Pyramid.create(new, self.grid, "labels", name="pseudo-mask")
        try:
            yield target
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)  # what is left goes with the next try
            raise
        with writing(final):
            if final.exists():
                shutil.rmtree(old, ignore_errors=True)
                put_in_place(final, old)
            put_in_place(new, final)
        shutil.rmtree(old, ignore_errors=True)

    def _mask_folder(self, what: str = "") -> Path:
        return self.folder / f"pseudo-mask{what and f'-{what}'}.ome.zarr"

    def delete(self) -> None:
        """Remove the run from disk, its record first, so that a crash leaves no half of a run.

        The record's copy goes before it: a check would put that in the place of a record that is missing.
        """
        record = self.folder / "run.json"
        for path in (copy_of(record), record):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder)
