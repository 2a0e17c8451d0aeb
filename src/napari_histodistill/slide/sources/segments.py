"""What a compressed tile of a TIFF announces: a tile that says it is larger than the page's tiles is not decoded.

Deflate, LZW, zstd, LZMA and PackBits are expanded into a buffer of the page's tile and need no such look. Pictures in
a picture (JPEG, JPEG 2000, WebP, PNG) bring their own size, and their decoders allocate it.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Final

from napari_histodistill.slide.errors import RegionError

if TYPE_CHECKING:
    from collections.abc import Callable

JPEG: Final = frozenset({7, 34892, 33007})
_JPEG_2000: Final = frozenset({33003, 33004, 33005, 34712})
_WEBP, _PNG = 50001, 34933
LZW: Final = 5
_BOUNDED: Final = frozenset({1, 5, 8, 32773, 32946, 34925, 34926, 50000})
READABLE: Final = _BOUNDED | JPEG | _JPEG_2000 | {_WEBP, _PNG}
"""Compressions that are decoded in bounded memory."""
LOSSY: Final = JPEG | _JPEG_2000 | {_WEBP}
_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SLACK: Final = 64
"""Px by which a tile may be larger than its page says: some writers round up to blocks of their codec."""


def check_segment(compression: int, data: bytes, shape: tuple[int, int]) -> None:
    """Refuse a tile or strip that announces more than ``shape``, (height, width) in px.

    Raises
    ------
    RegionError
        It does, or its head cannot be read.
    """
    read = _READERS.get(compression)
    if read is None:
        return
    try:
        height, width = read(data)
    except (struct.error, IndexError, OSError, ValueError, SyntaxError) as error:
        raise RegionError(f"the head of a tile is damaged ({error})") from error
    if height > shape[0] + _SLACK or width > shape[1] + _SLACK:
        raise RegionError(f"a tile says that it has {width} x {height} px")


def sound_lzw(data: bytes, size: int) -> bytes:
    """LZW that expands to the same ``size`` bytes, and is sound.

    The LZW decoder of imagecodecs (2026.3.6) writes where it must not when it is given damaged data, which ends the
    process. libtiff's, which Pillow has, does not: it decodes, and the result is compressed anew.

    Raises
    ------
    RegionError
        The data is damaged.
    """
    import imagecodecs
    from PIL import Image

    tags = ((256, size), (257, 1), (258, 8), (259, LZW), (262, 1), (273, 8 + 2 + 12 * 9 + 4), (277, 1), (278, 1))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*tags, (279, len(data))))
    file = struct.pack("<2sHIH", b"II", 42, 8, 9) + entries + struct.pack("<I", 0) + data
    try:
        with Image.open(io.BytesIO(file), formats=["TIFF"]) as picture:
            raw = picture.tobytes()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RegionError(f"a tile is damaged ({error})") from error
    return bytes(imagecodecs.lzw_encode(raw))


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Of the largest frame."""
    at, height, width = 2, 0, 0
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ValueError("no JPEG marker where one must be")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in {0x01, *range(0xD0, 0xD9)}:
            at += 2
            continue
        if marker in {0xD9, 0xDA}:
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _SOF:
            found = struct.unpack_from(">HH", data, at + 5)
            height, width = max(height, found[0]), max(width, found[1])
        at += 2 + length
    if not height or not width:
        raise ValueError("a JPEG without a size")
    return height, width


def _jpeg_2000_size(data: bytes) -> tuple[int, int]:
    at = data.index(b"\xff\x4f\xff\x51")
    width, height, left, top = struct.unpack_from(">IIII", data, at + 8)
    return height - top, width - left


def _picture_size(format_: str) -> Callable[[bytes], tuple[int, int]]:
    def read(data: bytes) -> tuple[int, int]:
        from PIL import Image

        with Image.open(io.BytesIO(data), formats=[format_]) as picture:
            return picture.height, picture.width

    return read


_READERS: Final[dict[int, Callable[[bytes], tuple[int, int]]]] = {
    **dict.fromkeys(JPEG, _jpeg_size),
    **dict.fromkeys(_JPEG_2000, _jpeg_2000_size),
    _WEBP: _picture_size("WEBP"),
    _PNG: _picture_size("PNG"),
}
