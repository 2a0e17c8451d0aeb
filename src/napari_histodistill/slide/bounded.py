"""Values of a zarr store at a URL, of which never more than is plausible is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype


class ChunkError(ValueError):
    """A chunk, or an array, that would take more memory than a slide needs, or that hides what it holds."""


_GONE = 404
_PARTIAL = 206
_NOTHING_THERE = 416
"""What a server says where a range begins behind the end."""


async def fetch(
    store: Any, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None, largest: int
) -> Buffer | None:
    """A value, or a part of it; of one that is too large at most ``largest + 1`` bytes.

    Object stores are asked for no more than that. A web server may not know ranges: what it sends is refused by the
    length that it announces, and where it announces none or packs it, by what comes.

    Parameters
    ----------
    store : zarr.storage.FsspecStore
    key, prototype, byte_range
        As of ``store.get``.
    largest : int
        Bytes.

    Raises
    ------
    ChunkError
        If a web server announces more.
    """
    if "http" not in store.fs.protocol:
        found: Buffer | None = await store.get(key, prototype, _bounded(byte_range, largest))
        return found
    data = await _from_web(store, key, byte_range, largest)
    return None if data is None else prototype.buffer.from_bytes(data)


def _bounded(byte_range: ByteRequest | None, largest: int) -> ByteRequest:
    """A range that ends somewhere."""
    if byte_range is None:
        return RangeByteRequest(0, largest + 1)
    if isinstance(byte_range, OffsetByteRequest):
        return RangeByteRequest(byte_range.offset, byte_range.offset + largest + 1)
    if isinstance(byte_range, SuffixByteRequest):
        return SuffixByteRequest(min(byte_range.suffix, largest + 1))
    return byte_range


async def _from_web(store: Any, key: str, byte_range: ByteRequest | None, largest: int) -> bytes | None:
    files, url = store.fs, f"{store.path.rstrip('/')}/{key}"
    options = dict(files.kwargs)
    if byte_range is not None:
        options["headers"] = {**options.get("headers", {}), "Range": _header(byte_range)}
    session = await files.set_session()
    async with session.get(files.encode_url(url), **options) as response:
        if response.status == _GONE:
            return None
        if response.status == _NOTHING_THERE:
            return b""
        response.raise_for_status()
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > largest:
            raise ChunkError(f"{key} is absurdly large")
        data = bytearray()
        while len(data) <= largest and (part := await response.content.read(largest + 1 - len(data))):
            data += part
        whole = byte_range is None or response.status == _PARTIAL
        return bytes(data) if whole or len(data) > largest else cut(bytes(data), byte_range)


def _header(byte_range: ByteRequest) -> str:
    if isinstance(byte_range, RangeByteRequest):
        return f"bytes={byte_range.start}-{byte_range.end - 1}"
    if isinstance(byte_range, OffsetByteRequest):
        return f"bytes={byte_range.offset}-"
    return f"bytes=-{byte_range.suffix}"


def cut(data: bytes, byte_range: ByteRequest | None) -> bytes:
    """A range of a value that is there as a whole."""
    if isinstance(byte_range, RangeByteRequest):
        return data[byte_range.start : byte_range.end]
    if isinstance(byte_range, OffsetByteRequest):
        return data[byte_range.offset :]
    if isinstance(byte_range, SuffixByteRequest):
        return data[-byte_range.suffix :]
    return data
