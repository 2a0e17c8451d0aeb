"""OME-Zarr folders from anywhere, read in bounded memory: no chunk may expand beyond what its array says.

A few kilobytes of zstd can ask for gigabytes, and codecs allocate what a chunk asks for. So every chunk is looked at
before it is decoded: its file must be a plain one of a plausible size, and the size that its compression announces (or,
where that announces none, what it comes to when expanded up to the limit) must be that of the array's chunk. Codecs
that could run code, or whose results cannot be foreseen, are refused.
"""

from __future__ import annotations

import math
import stat
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, WrapperStore

from napari_histodistill.slide.bounded import ChunkError, fetch
from napari_histodistill.slide.metadata import LARGEST_SIDE
from napari_histodistill.urls import UrlPath, told, zarr_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Literal

    from zarr.core.buffer import Buffer, BufferPrototype

LARGEST_CHUNK: Final = 1 << 28
"""Bytes of a decoded chunk."""
LARGEST_METADATA: Final = 1 << 23
"""Bytes of a JSON document."""
MOST_CHUNKS: Final = 1 << 26
_METADATA: Final = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_HARMLESS: Final = frozenset({"bytes", "crc32c", "transpose", "delta", "shuffle"})
"""Codecs whose result is as large as what they are given."""
_ONE_GZIP_BYTE: Final = 1032
"""Bytes that deflate makes of one at most."""
_INDEX_ENTRY: Final = 16
_NO_CHUNK: Final = 2**64 - 1


@dataclass(frozen=True)
class _Limit:
    """What chunks of one array may come to.

    Parameters
    ----------
    chunk : int
        Bytes of a decoded chunk.
    stored : int
        Bytes of a file that holds one, or a shard of them.
    codec : str
        Name of the compression; empty for none.
    chunks_per_shard : int
        0 without shards.
    index_at_end : bool
    """

    chunk: int
    stored: int
    codec: str
    chunks_per_shard: int = 0
    index_at_end: bool = True

    @property
    def index_size(self) -> int:
        return _INDEX_ENTRY * self.chunks_per_shard + 4

    def check(self, data: memoryview, byte_range: ByteRequest | None) -> None:
        if not self.chunks_per_shard:
            self._check_chunk(data)
        elif byte_range is None:
            index = data[-self.index_size :] if self.index_at_end else data[: self.index_size]
            for offset, size in struct.iter_unpack("<QQ", index[: _INDEX_ENTRY * self.chunks_per_shard]):
                if offset != _NO_CHUNK:
                    self._check_chunk(data[offset : offset + size])
        elif len(data) != self.index_size or not self._is_index(byte_range):
            self._check_chunk(data)

    def _is_index(self, byte_range: ByteRequest) -> bool:
        if self.index_at_end:
            return isinstance(byte_range, SuffixByteRequest)
        return isinstance(byte_range, RangeByteRequest) and byte_range.start == 0

    def _check_chunk(self, data: memoryview) -> None:
        try:
            size = _SIZES[self.codec](data, self.chunk) if self.codec else 0
        except (IndexError, struct.error) as error:
            raise ChunkError("a chunk ends within its head") from error
        if size > self.chunk:
            raise ChunkError("a chunk expands to more than its size")


class GuardedStore(WrapperStore[Store]):
    """A folder, or one at a URL, as a zarr store that gives away nothing but plain files of plausible sizes.

    Parameters
    ----------
    folder : Path
    read_only : bool
    links : bool
        Whether files may be symbolic links, as some data managers keep them.
    """

    def __init__(self, folder: Path, *, read_only: bool = True, links: bool = True) -> None:
        super().__init__(zarr_store(folder) if isinstance(folder, UrlPath) else LocalStore(folder, read_only=read_only))
        self._folder, self._links = folder, links
        self._limits: dict[str, _Limit] = {}

    def array(self, group: zarr.Group, path: object, largest_chunk: int = LARGEST_CHUNK) -> zarr.Array[Any]:
        """An array of a group of this store, whose chunks are checked from now on.

        Raises
        ------
        ChunkError
            If the path is none, or the array has absurd sizes, or codecs that are not known to be harmless.
        """
        _check_path(str(path))
        found = group[str(path)]
        if not isinstance(found, zarr.Array):
            raise ChunkError(f"{path} is no array")
        self._limits[found.path] = _limit_of(found, largest_chunk)
        return found

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a document or a chunk, once they were found plausible."""
        limit = next((found for path, found in self._limits.items() if not path or key.startswith(f"{path}/")), None)
        is_metadata = key.endswith(_METADATA)
        largest = LARGEST_METADATA if is_metadata else LARGEST_CHUNK * 2 if limit is None else limit.stored
        self._check_file(key, largest)
        if isinstance(byte_range, RangeByteRequest) and byte_range.end - byte_range.start > largest:
            raise ChunkError(f"{key} lists a chunk that is larger than it can be")
        prototype = prototype or default_buffer_prototype()
        if isinstance(self._folder, UrlPath):
            with told(self._folder, passing=ChunkError):
                found = await fetch(self._store, key, prototype, byte_range, largest)
        else:
            found = await self._store.get(key, prototype, byte_range)
        if found is not None and len(found) > largest:
            raise ChunkError(f"{key} is absurdly large")
        if found is not None and limit is not None and not is_metadata:
            limit.check(memoryview(found.as_numpy_array().data), byte_range)
        return found

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several values, or parts of them."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value; not through a link where those are refused."""
        self._check_file(key, None)
        await self._store.set(key, value)

    def _check_file(self, key: str, largest: int | None) -> None:
        _check_path(key)
        if isinstance(self._folder, UrlPath):
            return  # no more than can be is asked for, and what comes is looked at when it has come
        path = self._folder / key
        if not self._links and any(part.is_symlink() for part in (path, *path.parents[: key.count("/")])):
            raise ChunkError(f"{key} is a link")
        try:
            about = path.stat()
        except OSError:
            return  # it is not there, and the store says so
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            raise ChunkError(f"{key} is no plain file")
        if largest is not None and about.st_size > largest and stat.S_ISREG(about.st_mode):
            raise ChunkError(f"{key} is absurdly large")


def open_guarded(
    folder: Path, mode: Literal["r", "r+"] = "r", *, links: bool = True
) -> tuple[zarr.Group, GuardedStore]:
    """A zarr group over a `GuardedStore`; open its arrays with `GuardedStore.array`."""
    store = GuardedStore(folder, read_only=mode == "r", links=links)
    return zarr.open_group(store, mode=mode), store


def _check_path(path: str) -> None:
    if path.startswith("/") or ".." in path.split("/") or "\\" in path or "\0" in path:
        raise ChunkError("it refers to files outside itself")


def _limit_of(array: zarr.Array[Any], largest_chunk: int) -> _Limit:
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise ChunkError(f"its samples are of type {array.dtype}")
    if not 1 <= array.ndim <= 8 or max(array.shape) > LARGEST_SIDE or min(array.shape) < 1 or min(array.chunks) < 1:
        raise ChunkError(f"it has the absurd shape {' x '.join(str(side) for side in array.shape[:8])}")
    if math.prod(-(-side // chunk) for side, chunk in zip(array.shape, array.chunks, strict=True)) > MOST_CHUNKS:
        raise ChunkError("it is cut into absurdly many chunks")
    outer = getattr(array, "shards", None) or array.chunks
    chunk, stored = (math.prod(sides) * array.dtype.itemsize for sides in (array.chunks, outer))
    if max(chunk, stored) > largest_chunk:
        raise ChunkError("its chunks are too large to be read one by one")
    per_shard, at_end = 0, True
    if getattr(array, "shards", None):
        per_shard = math.prod(o // c for o, c in zip(outer, array.chunks, strict=True))
        at_end = _index_is_at_end(array)
    stored += stored // 8 + (1 << 16) + _INDEX_ENTRY * per_shard
    return _Limit(chunk, stored, _compression(array), per_shard, at_end)


def _index_is_at_end(array: zarr.Array[Any]) -> bool:
    """Where a sharded array keeps its index; refuses shards in shards, and an index that is compressed."""
    (codec,) = array.metadata.codecs  # type: ignore[union-attr]
    document: Any = codec.to_dict()["configuration"]
    names = [_name(one) for one in document["index_codecs"]]
    if names != ["bytes", "crc32c"] or any(_name(one) == "sharding_indexed" for one in document["codecs"]):
        raise ChunkError("its shards are built in a way that is not read here")
    return bool(document["index_location"] == "end")


def _compression(array: zarr.Array[Any]) -> str:
    """Name of the array's compression; empty for none."""
    names = [_name(codec) for codec in (*array.filters, *array.compressors)]
    found = [name for name in names if name not in _HARMLESS]
    unknown = [name for name in found if name not in _SIZES]
    if unknown or len(found) > 1:
        raise ChunkError(f"it is stored with the codecs {', '.join(unknown or found)}, which are not read here")
    return found[0] if found else ""


def _name(codec: Any) -> str:
    """Name of a codec of zarr v3 or v2, or of its document."""
    if hasattr(codec, "codec_id"):
        return str(codec.codec_id)
    document = codec if isinstance(codec, dict) else codec.to_dict()
    return str(document["name"]).removeprefix("numcodecs.")


# What a chunk says that it expands to, in bytes; up to a limit.


def _blosc_size(data: memoryview, _limit: int) -> int:
    size, block = struct.unpack_from("<II", data, 4)
    return int(max(size, block))


def _zstd_size(data: memoryview, limit: int) -> int:
    if bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        raise ChunkError("a chunk is no zstd")
    flags = data[4]
    width, single = flags >> 6, flags >> 5 & 1
    at = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    if width == 0 and not single:
        return _expanded_zstd(data, limit)
    length = (1, 2, 4, 8)[width]
    return int.from_bytes(data[at : at + length], "little") + (256 if width == 1 else 0)


def _expanded_zstd(data: memoryview, limit: int) -> int:
    """Expand what does not say its size, into no more than the limit."""
    import imagecodecs

    try:
        return len(imagecodecs.zstd_decode(bytes(data), out=limit))
    except (RuntimeError, ValueError) as error:
        raise ChunkError("a chunk expands to more than its size, or is damaged") from error


def _deflate_size(data: memoryview, limit: int) -> int:
    if len(data) * _ONE_GZIP_BYTE <= max(limit, 1 << 24):
        return 0
    expander = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        size = len(expander.decompress(data, limit + 1))
    except zlib.error as error:
        raise ChunkError(f"a chunk is damaged ({error})") from error
    if expander.unused_data[:2] == b"\x1f\x8b":
        raise ChunkError("a chunk holds several files of gzip")
    return size


def _lz4_size(data: memoryview, _limit: int) -> int:
    return int.from_bytes(data[:4], "little")


_SIZES: Final[dict[str, Callable[[memoryview, int], int]]] = {
    "blosc": _blosc_size,
    "zstd": _zstd_size,
    "gzip": _deflate_size,
    "zlib": _deflate_size,
    "lz4": _lz4_size,
}
