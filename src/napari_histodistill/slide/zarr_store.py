"""The zarr v3 face of a slide, for napari and dask: chunks are decoded when they are read, nothing is copied."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import zarr
from zarr.abc.store import ByteRequest, Store

from napari_histodistill.slide.bounded import cut

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from zarr.core.buffer import Buffer, BufferPrototype

    from napari_histodistill.slide.slide import Slide

_CHUNK: Final = 256
_WORKERS: Final = 4


def as_zarr(slide: Slide) -> list[zarr.Array[Any]]:
    """One read-only uint8 (height, width, 3) array per level of the slide, level 0 first."""
    store = SlideStore(slide)
    return [zarr.open_array(store, path=str(index), mode="r", zarr_format=3) for index in range(len(slide.levels))]


class SlideStore(Store):
    """A read-only zarr store over a slide: a group of one array per level.

    Chunks are read on threads of the store's own. zarr's threads must not be used: a source that is itself a zarr
    waits for them, and with all of them waiting for each other nothing would go on.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, slide: Slide) -> None:
        super().__init__(read_only=True)
        self._slide = slide
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="slide-chunks")
        self._documents = {"zarr.json": _encode({"zarr_format": 3, "node_type": "group", "attributes": {}})}
        self._chunks: list[tuple[int, int]] = []
        for index, level in enumerate(slide.levels):
            chunk = _chunk_shape(slide.tile_shape(index))
            self._chunks.append(chunk)
            self._documents[f"{index}/zarr.json"] = _encode(_array_document(level.shape, chunk))

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of a document or a chunk; a chunk is decoded now."""
        if key in self._documents:
            data = self._documents[key]
        else:
            place = self._place(key)
            if place is None:
                return None
            data = await asyncio.get_running_loop().run_in_executor(self._pool, self._read_chunk, *place)
        return prototype.buffer.from_bytes(cut(data, byte_range))

    def _place(self, key: str) -> tuple[int, int, int] | None:
        """(level, row, column) of a chunk key such as "2/c/10/4/0", or None if there is no such chunk."""
        parts = key.split("/")
        if len(parts) != 5 or parts[1] != "c" or not all(part.isdecimal() for part in (parts[0], *parts[2:])):
            return None
        level, row, col = int(parts[0]), int(parts[2]), int(parts[3])
        if level >= len(self._chunks):
            return None
        height, width = self._slide.levels[level].shape
        chunk = self._chunks[level]
        inside = row * chunk[0] < height and col * chunk[1] < width and parts[4] == "0"
        return (level, row, col) if inside else None

    def _read_chunk(self, level: int, row: int, col: int) -> bytes:
        height, width = self._chunks[level]
        return self._slide.read_level(level, row * height, col * width, height, width).tobytes()

    async def exists(self, key: str) -> bool:
        """Whether the key names a document or a chunk inside a level."""
        return key in self._documents or self._place(key) is not None

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several values, or parts of them."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002 - zarr's interface
        """Refuse: a slide is read-only."""
        raise PermissionError("a slide is read-only")

    async def delete(self, key: str) -> None:  # noqa: ARG002 - zarr's interface
        """Refuse: a slide is read-only."""
        raise PermissionError("a slide is read-only")

    async def list(self) -> AsyncIterator[str]:
        """Keys of the documents; chunks are not listed."""
        for key in self._documents:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys of the documents that start with a prefix."""
        for key in self._documents:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names right below a prefix."""
        start = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        for name in dict.fromkeys(key[len(start) :].split("/")[0] for key in self._documents if key.startswith(start)):
            yield name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlideStore) and other._slide is self._slide

    __hash__ = Store.__hash__


def _chunk_shape(tile: tuple[int, int]) -> tuple[int, int]:
    """The source's tile where it suits a view, else 256 px: small chunks make first views fast."""
    return tile if min(tile) >= 128 and max(tile) <= 512 else (_CHUNK, _CHUNK)


def _array_document(shape: tuple[int, int], chunk: tuple[int, int]) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [*shape, 3],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*chunk, 3]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 255,
        "codecs": [{"name": "bytes"}],
        "dimension_names": ["y", "x", "c"],
        "attributes": {},
    }


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()
