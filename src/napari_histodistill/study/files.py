"""Files of a study: versioned JSON documents, atomic writes, and a lock that dies with its process."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from napari_histodistill.errors import HistodistillError
from napari_histodistill.urls import UrlPath, require_disk

if TYPE_CHECKING:
    from types import TracebackType

LOCK_OFFSET = 1 << 30
"""Byte that is locked on Windows, beyond the text, so that others can read who holds the lock."""

LOCK_TRIES = 10


class StudyError(HistodistillError):
    """A study folder that cannot be used as asked."""


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that a crash at any moment leaves either the old or the new file.

    Raises
    ------
    StudyError
        If the disk is full or the folder cannot be written.
    """
    require_disk(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StudyError(
            f"{path} cannot be written ({error.strerror}): free disk space or choose another folder."
        ) from error


def _sync_folder(folder: Path) -> None:
    if sys.platform != "win32":  # Windows has no handle on a folder to sync
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_document(path: Path, kind: str, version: int, content: dict[str, Any]) -> None:
    """Write ``content`` as JSON under a head of ``format`` and ``version``."""
    document = {"format": kind, "version": version, **content}
    write_atomically(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def read_document(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Read what `write_document` wrote.

    Raises
    ------
    StudyError
        If the file is missing, is no such document, or was written by a newer version of this software.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(f"{path} does not exist: choose a folder that holds a study.") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read ({error}): restore it from a copy.") from error
    if not isinstance(document, dict) or document.get("format") != kind:
        raise StudyError(f"{path} is no {kind} file: choose a folder that holds a study.")
    found = document.get("version")
    if not isinstance(found, int) or found < 1:
        raise StudyError(f"{path} has no valid version: restore it from a copy.")
    if found > version:
        raise StudyError(
            f"{path} was written by a newer napari-histodistill (version {found} of its format, this one reads up to "
            f"{version}): update napari-histodistill."
        )
    return document


class FileLock:
    """One writer at a time, held by the operating system: a lock whose process has died is free at once.

    Parameters
    ----------
    path : Path
        The lock file; it holds the process id of the last holder and stays behind, unlocked.
    what : str
        What is locked, for the message.
    tries : int
        How often to try, 20 ms apart, before saying that another process holds it.
    """

    def __init__(self, path: Path, what: str, tries: int = LOCK_TRIES) -> None:
        self.path, self.what, self._tries = path, what, tries
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        """Take the lock; `StudyError` names the process that holds it."""
        require_disk(self.path)
        file = self.path.open("a+b")
        try:
            _lock_patiently(file, self._tries)
        except OSError as error:
            file.close()
            holder = self.path.read_text(errors="replace").strip() or "unknown"
            raise StudyError(
                f"{self.what} is in use by another process (id {holder}): wait for it, or end it, and try again."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back; without it, do nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def held_by_anyone(self) -> bool:
        """Whether some process, this one included, holds the lock now."""
        if self._file is not None:
            return True
        if isinstance(self.path, UrlPath) or not self.path.exists():
            return False
        with self.path.open("r+b") as file:
            try:
                _lock(file)
            except OSError:
                return True
        return False

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _lock_patiently(file: IO[bytes], tries: int) -> None:
    """Lock an open file; several tries, because `FileLock.held_by_anyone` of another process holds it for a moment."""
    for _ in range(tries - 1):
        try:
            return _lock(file)
        except OSError:
            time.sleep(0.02)
    return _lock(file)


def _lock(file: IO[bytes]) -> None:
    """Lock an open file or raise OSError; closing it unlocks."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(LOCK_OFFSET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
