"""A lock on a file that dies with its process, and who holds it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from napari_histodistill.study.files import ForbiddenError, StudyError, check_command, study_of, writing
from napari_histodistill.urls import UrlPath, require_disk

if TYPE_CHECKING:
    from types import TracebackType

LOCK_OFFSET = 1 << 30
"""Byte that is locked on Windows, beyond the text, so that others can read who holds the lock."""
LOCK_TRIES = 10
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
"""What the systems say where somebody else holds a lock; everything else means that there are no locks."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as the lock file says.

    Parameters
    ----------
    pid : int
        Process id; 0 where the file does not say.
    host : str
        Name of the computer; empty in lock files of version 0.1.
    since : str
        ISO 8601, UTC.
    """

    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def read(cls, path: Path) -> Holder:
        """What a lock file says; version 0.1 wrote the process id alone."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, int):
                return cls(found, "", "")
            return cls(int(found["pid"]), str(found["host"]), str(found["since"]))
        return cls(0, "", "")

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this computer."""
        return self.host in {"", socket.gethostname()}

    @property
    def runs(self) -> bool:
        """Whether it is known to be running: a process of this computer that is there."""
        if not self.is_here or self.pid < 1 or sys.platform == "win32":  # on Windows, asking would end it
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        where = "" if self.is_here else f" on the computer {self.host}"
        with contextlib.suppress(ValueError):
            when = datetime.fromisoformat(self.since).astimezone()
            return f"process {self.pid}{where} since {when:%Y-%m-%d %H:%M}"
        return f"process {self.pid}{where}"


class FileLock:
    """One writer at a time, held by the operating system: a lock whose process has died is free at once.

    Parameters
    ----------
    path : Path
        The lock file; it says who held it last and stays behind, unlocked.
    what : str
        What is locked, for the message.
    tries : int
        How often to try, 20 ms apart, before saying that another process holds it.
    """

    def __init__(self, path: Path, what: str, tries: int = LOCK_TRIES) -> None:
        self.path, self.what, self._tries = path, what, tries
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        StudyError
            If somebody else holds it (the message names who, and what to do), or the folder cannot be written, or its
            file system has no locks.
        """
        require_disk(self.path)
        with writing(self.path.parent, "see that the folder is there, can be written, and its disk has room"):
            file = self._lock_patiently()
            try:
                file.truncate(0)
                file.write(json.dumps(asdict(Holder())).encode())
                file.flush()
            except BaseException:
                file.close()
                raise
        self._file = file

    def _lock_patiently(self) -> IO[bytes]:
        """The lock file, open and locked; several tries, because `held_by_anyone` of others locks it for a moment."""
        for left in reversed(range(self._tries)):
            file = self.path.open("a+b")
            if _lock(file) and _is_still(file, self.path):
                return file
            file.close()
            if left:
                time.sleep(0.02)
        raise StudyError(f"{self.what} is in use by {Holder.read(self.path)}: {self._advice()}.")

    def _advice(self) -> str:
        holder = Holder.read(self.path)
        if holder.runs:
            return "wait for it, or end it, and try again"
        study = study_of(self.path)
        breaking = f"{check_command(study)} --break-lock" if study else f"delete {self.path}"
        return f"close the study there; if that process or computer is gone, run: {breaking}"

    def release(self) -> None:
        """Give the lock back; without it, do nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def held_by_anyone(self) -> bool:
        """Whether some process, this one included, holds the lock now; a folder need not be writable for this.

        Raises
        ------
        ForbiddenError
            If this user may not read the lock file.
        """
        if self._file is not None:
            return True
        if isinstance(self.path, UrlPath):
            return False
        try:
            with self.path.open("rb") as file:
                return not _lock(file, shared=True)
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise ForbiddenError(self.path) from error

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _is_still(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is the one at its path: somebody may have broken the lock meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[bytes], *, shared: bool = False) -> bool:
    """Lock an open file, False if it is locked; closing it unlocks. Shared locks need no right to write."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(LOCK_OFFSET)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise StudyError(
            f"The file system of {Path(file.name).parent} has no file locks ({error.strerror}): work on a copy of the "
            "study on a local disk."
        ) from error
    return True
