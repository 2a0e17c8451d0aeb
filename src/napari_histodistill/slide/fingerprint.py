"""A name for what a slide file holds, cheap to compute however large the file is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from napari_histodistill.slide.errors import RegionError, SlideError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.slide.sources import Source

_EDGE: Final = 2**16
_SAMPLE: Final = 2**12
_SAMPLES: Final = 16
_FILES: Final = 64


def fingerprint(path: Path) -> str:
    """32 hexadecimal digits from the size of a file, its first and last 64 KiB and 16 samples between them.

    Copying or moving a slide keeps its fingerprint. Of a folder (OME-Zarr) up to 64 files of its top and of its last
    level are taken in, with their names.
    """
    digest = hashlib.sha256()
    for file in _folder_files(path) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        _add_file(digest, file)
    return digest.hexdigest()[:32]


def fingerprint_of_pixels(source: Source) -> str:
    """The same length from the shapes of all levels and some pixels of the last, where there are no files to look at.

    Raises
    ------
    SlideError
        If they cannot be read.
    """
    digest = hashlib.sha256(repr((source.metadata.raw_mpp, [level.shape for level in source.levels])).encode())
    last = source.levels[-1]
    tiles = [
        (row, col)
        for row in range(-(-last.shape[0] // last.tile[0]))
        for col in range(-(-last.shape[1] // last.tile[1]))
    ]
    try:
        for row, col in tiles[:: -(-len(tiles) // _SAMPLES)]:
            digest.update(source.read_tile(len(source.levels) - 1, row, col).tobytes())
    except RegionError as error:
        raise SlideError(f"The slide cannot be read ({error}): check the address and the network.") from error
    return digest.hexdigest()[:32]


def _add_file(digest: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_EDGE))
        for index in range(1, _SAMPLES + 1):
            file.seek(size * index // (_SAMPLES + 1))
            digest.update(file.read(_SAMPLE))
        file.seek(max(0, size - _EDGE))
        digest.update(file.read())


def _folder_files(folder: Path) -> list[Path]:
    top = sorted(entry for entry in folder.iterdir() if entry.is_file())
    arrays = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and entry.name not in {"labels", "OME"}]
    last = sorted(file for file in arrays[-1].rglob("*") if file.is_file()) if arrays else []
    return (top + last)[:_FILES]
