"""Files of a study: versioned JSON documents with checksums and copies, and atomic writes."""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import shlex
import subprocess
import sys
import time
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from napari_histodistill.errors import HistodistillError, reason
from napari_histodistill.urls import UrlPath, require_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

CHECKSUM = "crc32"
"""Entry of a document: CRC-32 of the others. Documents of version 0.1 have none and are read as well."""
LARGEST_DOCUMENT = 1 << 26
"""Bytes of a JSON document; the record of a run of a hundred thousand blocks has less than one of its MB."""

REPLACE_TRIES = 50
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
"""What file systems say that cannot sync a folder, as some on networks; the file itself is synced."""


class StudyError(HistodistillError):
    """A study folder that cannot be used as asked."""


class DamagedError(StudyError):
    """A file of a study that is not as this software wrote it."""


class NewerError(StudyError):
    """A file of a study that a newer version wrote."""


class ForbiddenError(StudyError):
    """A file of a study that this user may not read: nothing is known of it, so it is not called damaged."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} may not be read by you: ask whoever owns it to give you the right to read it.")


@contextmanager
def writing(path: Path, advice: str = "free disk space or choose another folder") -> Iterator[None]:
    """Turn an OSError of what writes to ``path`` into a `StudyError` that says so and gives advice."""
    try:
        yield
    except OSError as error:
        raise StudyError(f"{path} cannot be written ({error.strerror or error}): {advice}.") from error


def study_of(path: Path) -> Path | None:
    """The study's folder on a disk that a file lies in, if it lies in one."""
    if isinstance(path, UrlPath):
        return None
    return next((folder for folder in path.absolute().parents if (folder / "study.json").exists()), None)


def way_out(path: Path) -> str:
    """What to do about a damaged file, for the end of a sentence."""
    study = study_of(path)
    if study is None:
        return "restore it from a copy"
    return f"run: {check_command(study)} --repair"


def check_command(study: Path) -> str:
    """The command that checks a study, as this system's shell takes it."""
    quoted = subprocess.list2cmdline([str(study)]) if sys.platform == "win32" else shlex.quote(str(study))
    return f"histodistill check {quoted}"


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that a crash at any moment leaves either the old or the new file.

    Raises
    ------
    StudyError
        If the disk is full or the folder cannot be written.
    """
    require_disk(path)
    with writing(path):
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            with partial.open("xb") as file:  # and not by `tempfile`, whose files nobody else may read
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            put_in_place(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def put_in_place(new: Path, path: Path) -> None:
    """Let a file that is whole take the place of another, or a folder a place that is free.

    Windows refuses that while somebody reads what is moved or replaced, which takes a moment: so it is tried for a
    second there.
    """
    for _ in range(REPLACE_TRIES if sys.platform == "win32" else 0):
        try:
            new.replace(path)
        except PermissionError:
            time.sleep(0.02)
        else:
            return
    new.replace(path)


def _sync_folder(folder: Path) -> None:
    if sys.platform != "win32":  # Windows has no handle on a folder to sync
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        finally:
            os.close(handle)


def copy_of(path: Path) -> Path:
    """Where the copy of a document lies that is read when the document is damaged."""
    return path.with_name(f"{path.name}.copy")


def write_document(path: Path, kind: str, version: int, content: dict[str, Any], *, copy: bool = False) -> None:
    """Write ``content`` as JSON under a head of ``format``, ``version`` and a checksum; with ``copy``, twice."""
    document = {"format": kind, "version": version, **content}
    document = {**document, CHECKSUM: _checksum(document)}
    data = (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
    write_atomically(path, data)
    if copy:
        write_atomically(copy_of(path), data)


def _checksum(document: dict[str, Any]) -> int:
    plain = json.loads(json.dumps(document, allow_nan=False))  # lists where there were tuples, keys as text
    return zlib.crc32(json.dumps(plain, sort_keys=True).encode())


def read_document(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Read what `write_document` wrote; of a damaged document its copy, where there is a sound one.

    Raises
    ------
    DamagedError
        If the file is no such document, or not as it was written.
    NewerError
        If a newer version of this software wrote it.
    ForbiddenError
        If this user may not read it.
    StudyError
        If it is missing.
    """
    try:
        return read_one_document(path, kind, version)
    except DamagedError as error:
        if not copy_of(path).exists():
            raise
        try:
            document = read_one_document(copy_of(path), kind, version)
        except DamagedError:
            raise error from None
        logger.warning("%s Its copy was read instead.", error)
        return document


def read_one_document(path: Path, kind: str, version: int) -> dict[str, Any]:
    """The same without looking for a copy."""
    try:
        if path.stat().st_size > LARGEST_DOCUMENT:
            raise DamagedError(f"{path} is absurdly large: {way_out(path)}.")
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise StudyError(f"{path} does not exist: choose a folder that holds a study.") from error
    except PermissionError as error:
        raise ForbiddenError(path) from error
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise DamagedError(f"{path} cannot be read ({reason(error)}): {way_out(path)}.") from error
    if not isinstance(document, dict) or document.get("format") != kind:
        raise DamagedError(f"{path} is no {kind} file: {way_out(path)}.")
    found = document.get("version")
    if isinstance(found, int) and found > version and _is_as_written(document):
        raise NewerError(
            f"{path} was written by a newer napari-histodistill (version {found} of its format, this one reads up to "
            f"{version}): update napari-histodistill."
        )
    if not isinstance(found, int) or not 1 <= found <= version:
        raise DamagedError(f"{path} has no valid version: {way_out(path)}.")
    if not _is_as_written(document):
        raise DamagedError(f"{path} is not as it was written (its checksum differs): {way_out(path)}.")
    return document


def _is_as_written(document: dict[str, Any]) -> bool:
    content = {name: value for name, value in document.items() if name != CHECKSUM}
    return CHECKSUM not in document or document[CHECKSUM] == _checksum(content)


def refuse_links(folder: Path) -> None:
    """Refuse a folder of a study that is a link or holds one: what is written to a study stays in it.

    At a URL, where nothing is written and every look costs a request, nothing is looked for.

    Raises
    ------
    StudyError
        Naming the link.
    """
    if not isinstance(folder, UrlPath):
        for path in (folder, *folder.iterdir()):
            refuse_link(path)


def refuse_link(path: Path) -> None:
    """Refuse a file or folder on a disk that is a link; see `refuse_links`."""
    if path.is_symlink():
        raise StudyError(f"{path} is a link, and a study holds none: put what it points to in its place.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
