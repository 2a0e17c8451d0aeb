"""Puts predicted tiles into a run: spills their maps, blends blocks, writes them, records what is final."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.predict.request import TileDone
from napari_histodistill.slide.tissue import TISSUE
from napari_histodistill.study import StudyError, TissueOnGrid
from napari_histodistill.study.files import DamagedError, ForbiddenError, put_in_place, way_out, writing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.predict.tiling import Tiling, Window
    from napari_histodistill.study import Run

    FloatMap = npt.NDArray[np.float32]

LAND_S = 1.0
"""How long tiles wait at most to be written, once one was."""


class TileStore:
    """Maps of tiles on disk, for as long as an unfinished block needs them.

    Memory does not grow with the order in which tiles come, and a resumed run finds what was computed.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with writing(folder):
            folder.mkdir(exist_ok=True)
            for left_over in folder.glob("*.partial"):
                left_over.unlink()

    def __contains__(self, index: int) -> bool:
        return self._path(index).exists()

    def save(self, index: int, tile_map: FloatMap) -> None:
        """Keep a map; it is there wholly or not at all."""
        partial = self.folder / f"{index}.partial"
        with partial.open("wb") as file:
            np.save(file, tile_map)
        put_in_place(partial, self._path(index))

    def load(self, index: int) -> FloatMap | None:
        """A map, or None where there is none."""
        path = self._path(index)
        try:
            return np.load(path) if path.exists() else None
        except PermissionError as error:
            raise ForbiddenError(path) from error
        except (OSError, EOFError, ValueError) as error:
            raise DamagedError(f"{path} is damaged ({error}): {way_out(path)}, then resume.") from error

    def discard(self, index: int) -> None:
        """Forget a map."""
        self._path(index).unlink(missing_ok=True)

    def _path(self, index: int) -> Path:
        return self.folder / f"{index}.npy"


class BlockWriter:
    """Takes the maps of tiles as they come; only one thread may call it.

    Blocks are written together with others of the same `LAND_S`, since their lower levels have chunks in common.

    Parameters
    ----------
    needed : set of int
        Tiles that hold tissue; the others are never computed, and their blocks stay empty.
    """

    def __init__(self, run: Run, tiling: Tiling, tissue: TissueOnGrid, needed: set[int]) -> None:
        self._run, self._tiling, self._tissue = run, tiling, tissue
        self._needed = needed
        self._finished = run.record.finished
        self._store = TileStore(run.tiles)
        self._fresh: set[int] = set()
        self._landed_at = -math.inf

    def missing(self) -> set[int]:
        """Tiles that are still to be computed."""
        wanted: set[int] = set()
        for index in self._needed - self._finished:
            wanted.update(self._surroundings(index))
        return {index for index in wanted if index not in self._store}

    def finish_stored(self) -> list[TileDone]:
        """Finish the blocks whose tiles a killed run had computed but not yet put together."""
        with self._storing():
            landed = self._land(self._needed - self._finished)
            self._discard(self._needed)  # it may have been killed before it did
        return landed

    def take(self, index: int, tile_map: FloatMap, unreadable: Sequence[Window] = ()) -> list[TileDone]:
        """Keep a tile's reduced map; if the last landing was `LAND_S` ago, `land`.

        Parameters
        ----------
        index : int
        tile_map : float32 (h, w)
            On the working grid, see `Tiling.reduce`.
        unreadable : sequence of Window
            What of the tile's block the slide could not read, in working-grid px; it counts as no tissue.

        Raises
        ------
        StudyError
            If the disk is full or the folder cannot be written.
        """
        with self._storing():
            self._note_unreadable(unreadable)
            self._store.save(index, tile_map)
        self._fresh.add(index)
        return self.land() if time.monotonic() - self._landed_at >= LAND_S else []

    def land(self) -> list[TileDone]:
        """Write every block that the tiles taken since the last time complete, and their own in any case.

        Raises
        ------
        StudyError
            As `take`.
        """
        around = {block for index in self._fresh for block in self._surroundings(index)}
        with self._storing():
            landed = self._land(around - self._finished, previews=self._fresh)
        self._fresh, self._landed_at = set(), time.monotonic()
        return landed

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StudyError(
                f"{self._run.folder} cannot be written ({error.strerror}): free disk space, then resume."
            ) from error

    def _land(self, blocks: set[int], previews: Collection[int] = ()) -> list[TileDone]:
        complete = {block for block in blocks if all(index in self._store for index in self._surroundings(block))}
        written = sorted(complete.union(blocks.intersection(previews)))
        for block in written:
            self._write(block)
        for window in self._tiling.merged(written):
            self._run.probability.reduce(*window)
        if complete:
            self._run.finish_blocks(complete)
        self._discard({tile for block in complete for tile in self._surroundings(block)})
        return [TileDone(*self._tiling.block_window(block)) for block in written]

    def _discard(self, tiles: Iterable[int]) -> None:
        """Forget the maps of those tiles that no block needs any more."""
        for index in tiles:
            if self._surroundings(index) <= self._finished:
                self._store.discard(index)

    def _surroundings(self, index: int) -> set[int]:
        return self._needed.intersection(self._tiling.neighbours(index))

    def _write(self, block: int) -> None:
        window = self._tiling.block_window(block)
        probability = np.rint(255 * self._tiling.blend(block, self._store.load)).astype(np.uint8)
        probability[self._tissue[window.slices] != TISSUE] = 0
        self._run.probability.put(window.y, window.x, probability)

    def _note_unreadable(self, windows: Sequence[Window]) -> None:
        """Record what the slide could not read, before its tile is kept: a resumed run does not read it again."""
        known = self._run.record.unreadable
        new = [(w.y, w.x, w.height, w.width) for w in windows if (w.y, w.x, w.height, w.width) not in known]
        if new:
            known.extend(new)
            self._run.save()
