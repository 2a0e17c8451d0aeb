"""A document about a slide that several windows may change: read whole, and changed under a lock of its own.

A crash leaves the old one or the new one, and of two who change it at the same time neither loses anything.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from napari_histodistill.errors import reason
from napari_histodistill.study.files import DamagedError, StudyError, read_document, way_out, write_document
from napari_histodistill.study.locks import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_histodistill.slide.grid import WorkingGrid

T = TypeVar("T")

LOCK_TRIES: Final = 100
_NO_CONTENT: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, zlib.error)
"""What unpacking raises on a document that says something else than it should."""


@dataclass(frozen=True)
class Record(Generic[T]):
    """One kind of such documents.

    Parameters
    ----------
    name : str
        Of the file and its lock, without ending.
    kind, version
        Of the document.
    holds : str
        What is lost with it.
    pack : callable
        ``pack(value)``: the document's entries as JSON values.
    unpack : callable
        The value again; raises ValueError and the like if the entries say something impossible.
    fits : callable
        ``fits(value, grid)``: whether it lies on a slide with this working grid.
    """

    name: str
    kind: str
    version: int
    holds: str
    pack: Callable[[T], dict[str, Any]]
    unpack: Callable[[dict[str, Any]], T]
    fits: Callable[[T, WorkingGrid], bool]

    def path(self, folder: Path) -> Path:
        """The file in a slide's folder."""
        return folder / f"{self.name}.json"

    def read(self, folder: Path, grid: WorkingGrid | None = None) -> T | None:
        """What is kept of the slide with this folder, None if there is nothing.

        Parameters
        ----------
        folder : Path
        grid : WorkingGrid, optional
            Of the slide; what does not lie on it counts as damage.

        Raises
        ------
        StudyError
            If it is damaged or of a newer version.
        """
        path = self.path(folder)
        if not path.exists():
            return None
        document = read_document(path, self.kind, self.version)
        problem = self.problem(document, grid)
        if problem:
            raise DamagedError(f"{path} is damaged ({problem}): {way_out(path)}.")
        return self.unpack(document)

    def problem(self, document: dict[str, Any], grid: WorkingGrid | None = None) -> str:
        """What a document says that cannot be; empty if nothing."""
        try:
            value = self.unpack(document)
        except _NO_CONTENT as error:
            return reason(error)
        return "" if grid is None or self.fits(value, grid) else "something in it lies outside the slide"

    def write(self, folder: Path, value: T) -> None:
        """Keep a value in place of whatever there was."""
        with self._lock(folder):
            self._write(folder, value)

    def change(self, folder: Path, change: Callable[[T | None], T]) -> T:
        """Change what is on disk, which another window may have changed too; returns what is there now.

        Raises
        ------
        StudyError
            If it is damaged, cannot be written, or ``change`` refuses what there is.
        """
        with self._lock(folder):
            changed = change(self.read(folder))
            self._write(folder, changed)
        return changed

    def _lock(self, folder: Path) -> FileLock:
        if not folder.is_dir():
            raise StudyError(f"{folder} is no longer there: see that the study is where it was.")
        return FileLock(folder / f"{self.name}.lock", f"{self.name}.json of {folder.name}", tries=LOCK_TRIES)

    def _write(self, folder: Path, value: T) -> None:
        write_document(self.path(folder), self.kind, self.version, self.pack(value), copy=True)


def whole(value: object, least: int = 0) -> int:
    """A value that must be a whole number.

    Raises
    ------
    ValueError
        If it is none, or smaller than ``least``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{reason(repr(value))} in the place of a number")
    return value


def text(value: object) -> str:
    """A value that must be text.

    Raises
    ------
    ValueError
    """
    if not isinstance(value, str):
        raise ValueError(f"{reason(repr(value))} in the place of a text")
    return value
