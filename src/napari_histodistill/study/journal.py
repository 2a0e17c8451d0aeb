"""The journal of corrections: every stroke that a person made, in order, in a file that is only ever appended to.

A record is length-prefixed and has a checksum, so a crash while one is written loses that one alone, and a damaged one
does not take its successors along. Each holds absolute values from before and after, so applying records a second time
changes nothing. ``docs/study-format.md`` describes the bytes.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
import zlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from napari_histodistill.study.files import ForbiddenError, NewerError, StudyError, way_out, write_atomically
from napari_histodistill.urls import UrlPath

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

    UInt8 = npt.NDArray[np.uint8]

TILE: Final = 256
"""Largest side of a patch in px; the side of a chunk of the corrections' array."""
VERSION: Final = 1
_HEAD: Final = struct.Struct("<8sI8sI")
_MAGIC: Final = b"HDSTROKE"
_RECORD: Final = struct.Struct("<4sII")
_MARK: Final = b"\x89HDS"
_TEXTS: Final = ("identity", "kind", "time", "tool", "context", "refers")
_META: Final = struct.Struct("<I")

Kind: TypeAlias = Literal["base", "set", "undo", "redo"]


@dataclass(frozen=True)
class Patch:
    """What a stroke changed in a window of at most `TILE` px a side.

    Parameters
    ----------
    y, x, height, width : int
        The window, in working-grid px.
    packed : bytes
        zlib over one bit per pixel (1: changed), then the values before, then those after, of the changed pixels in
        raster order; 255 stands for no correction.
    """

    y: int
    x: int
    height: int
    width: int
    packed: bytes

    @classmethod
    def between(cls, y: int, x: int, before: UInt8, after: UInt8) -> Patch | None:
        """The patch that turns ``before`` into ``after``, uint8 (h, w) with 255 for none; None if they are equal."""
        changed = before != after
        if not changed.any():
            return None
        raw = np.packbits(changed).tobytes() + before[changed].tobytes() + after[changed].tobytes()
        return cls(y, x, changed.shape[0], changed.shape[1], zlib.compress(raw, 1))

    def unpack(self) -> tuple[npt.NDArray[np.bool_], UInt8, UInt8]:
        """Changed pixels as bool (h, w), and their values before and after in raster order.

        Raises
        ------
        ValueError
            If the bytes do not fit the window.
        """
        pixels = self.height * self.width
        bits = -(-pixels // 8)
        try:
            raw = zlib.decompressobj().decompress(self.packed, bits + 2 * pixels)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        changed = np.unpackbits(np.frombuffer(raw, np.uint8, min(bits, len(raw))), count=pixels).astype(bool)
        values = np.frombuffer(raw, np.uint8, offset=min(bits, len(raw)))
        if len(values) != 2 * int(np.count_nonzero(changed)):
            raise ValueError("a patch does not fit its window")
        before, after = np.split(values, 2)
        return changed.reshape(self.height, self.width), before, after


@dataclass(frozen=True)
class Entry:
    """One step of a person's work: a stroke, or the undoing or redoing of one.

    Parameters
    ----------
    tool : str
        What it was made with, in words that a user reads ("brush", "eraser", "import of a.geojson").
    patches : tuple of Patch
    value : int or None
        What was set: 0 to 3, 255 where corrections were taken away, None where it is not one value.
    kind : {"base", "set", "undo", "redo"}
        "base" holds what an older version left behind, and cannot be undone. An "undo" has the patches of the entry
        that it takes back, to be read from after to before.
    refers : str
        Identity of the entry that is undone or redone.
    context : str
        What was on screen: run or round.
    time : str
        ISO 8601, UTC.
    identity : str
        Random; names the entry.
    sequence : int
        Its number in the journal, from 1; 0 until it is written.
    """

    tool: str
    patches: tuple[Patch, ...]
    value: int | None = None
    kind: Kind = "set"
    refers: str = ""
    context: str = ""
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    identity: str = field(default_factory=lambda: secrets.token_hex(8))
    sequence: int = 0

    def in_order(self) -> tuple[Patch, ...]:
        """The patches in the order in which they are to be applied."""
        return self.patches[::-1] if self.kind == "undo" else self.patches

    def values(self, patch: Patch) -> tuple[npt.NDArray[np.bool_], UInt8]:
        """Pixels that one of the patches changes, bool (h, w), and their new values in raster order."""
        changed, before, after = patch.unpack()
        return changed, before if self.kind == "undo" else after

    def reversal(self, kind: Literal["undo", "redo"]) -> Entry:
        """A new entry that takes this one back, or makes it again."""
        return Entry(self.tool, self.patches, self.value, kind, self.identity, self.context)

    def encode(self) -> bytes:
        """The body of a record."""
        meta = {
            "sequence": self.sequence,
            "identity": self.identity,
            "kind": self.kind,
            "time": self.time,
            "tool": self.tool,
            "value": self.value,
            "context": self.context,
            "refers": self.refers,
            "patches": [[p.y, p.x, p.height, p.width, len(p.packed)] for p in self.patches],
        }
        text = json.dumps(meta, ensure_ascii=False).encode(
            errors="backslashreplace"
        )  # names of files that are no UTF-8
        return b"".join([_META.pack(len(text)), text, *(patch.packed for patch in self.patches)])

    @classmethod
    def decode(cls, body: bytes, shape: tuple[int, int]) -> Entry:
        """Read `encode`'s bytes.

        Raises
        ------
        ValueError
            If they are none, or a patch lies outside a grid of ``shape``.
        """
        try:
            (length,) = _META.unpack_from(body)
            at = _META.size + length
            meta = json.loads(body[_META.size : at])
            patches = []
            for y, x, height, width, size in meta.pop("patches"):
                inside = y >= 0 and x >= 0 and 0 < height <= shape[0] - y and 0 < width <= shape[1] - x
                if not inside or max(height, width) > TILE:
                    raise ValueError("a patch lies outside the grid")
                patches.append(Patch(y, x, height, width, body[at : at + size]))
                at += size
            entry = cls(patches=tuple(patches), **meta)
            if not isinstance(entry.sequence, int) or not all(isinstance(meta[name], str) for name in _TEXTS):
                raise ValueError("an entry of another kind")
            return entry
        except (KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
            raise ValueError(str(error)) from error


@dataclass
class Scan:
    """What `Journal.scan` found.

    Parameters
    ----------
    entries : list of Entry
        In order.
    end : int
        Where the next record belongs, in bytes.
    damaged : int
        Stretches that cannot be read.
    torn : int
        Bytes behind ``end``: a record whose writing was cut short.
    """

    entries: list[Entry]
    end: int
    damaged: int = 0
    torn: int = 0


class Journal:
    """The journal's file. Whoever appends must hold the slide's lock on corrections.

    Parameters
    ----------
    path : Path
    shape : tuple of int
        Of the working grid; nothing outside it is read.
    """

    start: Final = _HEAD.size

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path, self.shape = path, shape

    def create(self, entries: Iterable[Entry] = ()) -> None:
        """Begin the file, with entries in it from the start: there whole or not at all after a crash."""
        write_atomically(self.path, _head(VERSION) + b"".join(_record(entry) for entry in entries))

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return self.path.exists()

    def identity(self) -> str:
        """What names this file, to tell it from one that took its place; empty if its head is damaged.

        Raises
        ------
        StudyError
            If a newer version wrote it.
        """
        head = self._read(0, _HEAD.size)
        if len(head) < _HEAD.size:
            return ""
        magic, version, identity, checksum = _HEAD.unpack(head)
        if magic != _MAGIC or zlib.crc32(head[:-4]) != checksum:
            return ""
        if version > VERSION:
            raise NewerError(
                f"{self.path} was written by a newer napari-histodistill (version {version} of its format, this one "
                f"reads up to {VERSION}): update napari-histodistill."
            )
        return bytes(identity).hex()

    def scan(self, start: int = _HEAD.size) -> Scan:
        """Read every whole record from byte ``start`` on; what cannot be read is passed over and counted."""
        self.identity()  # refuses what a newer version wrote
        data = self._read(start)
        found, at, gap = Scan([], start), 0, -1
        while at < len(data):
            entry, size = self._entry_at(data, at)
            if entry is not None:
                found.damaged += gap >= 0
                gap = -1
                found.entries.append(entry)
                at += size
            else:
                gap = at if gap < 0 else gap
                at = data.find(_MARK, at + 1)
                if at < 0:
                    break
        if gap >= 0 and _is_torn(data, gap):
            found.torn = len(data) - gap
        elif gap >= 0:
            found.damaged += 1
        found.end = start + len(data) - found.torn
        return found

    def _entry_at(self, data: bytes, at: int) -> tuple[Entry | None, int]:
        """The entry whose record begins at a byte, and the record's size; None if there is no whole one."""
        if len(data) - at < _RECORD.size:
            return None, 0
        mark, length, checksum = _RECORD.unpack_from(data, at)
        body = data[at + _RECORD.size : at + _RECORD.size + length]
        if mark != _MARK or len(body) != length or zlib.crc32(body) != checksum:
            return None, 0
        try:
            return Entry.decode(body, self.shape), _RECORD.size + length
        except ValueError:
            return None, 0

    def append(self, entries: Iterable[Entry], end: int) -> int:
        """Write records behind byte ``end``, cutting off a torn one, and have them on disk; returns the new end.

        Raises
        ------
        StudyError
            If the disk is full or the folder cannot be written; the file then ends where it did.
        """
        data = b"".join(_record(entry) for entry in entries)
        try:
            with self.path.open("r+b", buffering=0) as file:
                file.truncate(end)
                file.seek(end)
                try:
                    write_all(file.fileno(), data)
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise StudyError(
                f"{self.path} cannot be written ({error.strerror}): your last corrections are not saved yet. Free disk "
                "space or make the folder writable; they are written as soon as that is possible."
            ) from error
        return end + len(data)

    def _read(self, start: int, size: int = -1) -> bytes:
        try:
            if isinstance(self.path, UrlPath):
                return self.path.read_part(start, size)
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read(size)
        except PermissionError as error:
            raise ForbiddenError(self.path) from error
        except OSError as error:
            raise StudyError(f"{self.path} cannot be read ({error.strerror}): {way_out(self.path)}.") from error


def write_all(handle: int, data: bytes) -> None:
    """Write all of ``data`` to a file descriptor, unbuffered."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def timeline(entries: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    """What can be undone and what can be redone after ``entries``; the next one is last in each list."""
    undo: list[Entry] = []
    redo: list[Entry] = []
    for entry in entries:
        if entry.kind == "set":
            undo.append(entry)
            redo.clear()
        if entry.kind not in {"undo", "redo"}:
            continue
        source, target = (undo, redo) if entry.kind == "undo" else (redo, undo)
        moved = next((other for other in reversed(source) if other.identity == entry.refers), None)
        if moved is not None:
            source.remove(moved)
            target.append(moved)
    return undo, redo


def numbered(entries: Iterable[Entry], last: int) -> list[Entry]:
    """The entries with the sequence numbers that follow ``last``."""
    return [replace(entry, sequence=number) for number, entry in enumerate(entries, start=last + 1)]


def _head(version: int) -> bytes:
    head = _HEAD.pack(_MAGIC, version, secrets.token_bytes(8), 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))


def _record(entry: Entry) -> bytes:
    body = entry.encode()
    return _RECORD.pack(_MARK, len(body), zlib.crc32(body)) + body


def _is_torn(data: bytes, at: int) -> bool:
    """Whether the bytes from ``at`` on are the beginning of a record and not all of it."""
    rest = data[at : at + _RECORD.size]
    if len(rest) < _RECORD.size:
        return _MARK.startswith(rest[: len(_MARK)])
    mark, length, _ = _RECORD.unpack(rest)
    return bool(mark == _MARK and at + _RECORD.size + length > len(data))


def describe(entry: Entry, names: dict[int, str]) -> str:
    """An entry in words: tool, what it set, time of day here, "brush, tumour, 14:02"."""
    value = "" if entry.value is None else names.get(entry.value, "")
    when = datetime.fromisoformat(entry.time).astimezone()
    clock: Any = when.strftime("%H:%M") if when.date() == datetime.now(UTC).astimezone().date() else when.date()
    return ", ".join(str(part) for part in (entry.tool, value, clock) if part)
