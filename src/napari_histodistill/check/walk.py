"""What a study holds and should not: links, files that may not be read, and what writes left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_histodistill.check.inspection import ASIDE

if TYPE_CHECKING:
    from collections.abc import Iterator

LINK: Final = "is a link, and a study holds none"
FORBIDDEN: Final = "may not be read by you, so nothing is known of it"
YOUNG_S: Final = 300.0
"""So long a file may be on its way to its place: documents take a moment, the largest export some minutes."""


def obstacles(folder: Path) -> Iterator[tuple[Path, str]]:
    """Links and what this user may not read, in a part of a study, with what is wrong with each.

    What people export is theirs, so the folder ``exports`` may hold what it likes.
    """
    if folder.is_symlink():
        yield folder, LINK
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        yield folder, FORBIDDEN
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path)
        if entry.is_symlink() or (entry.is_dir() and entry.name != "exports"):
            yield from obstacles(path)
        elif not entry.is_dir() and not os.access(path, os.R_OK):
            yield path, FORBIDDEN


def leftovers(folder: Path) -> Iterator[Path]:
    """Files and folders of a study that were to be renamed when they were whole."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        named = sorted(here / name for name in (*folders, *files) if _is_partial(name))
        folders[:] = [name for name in folders if not _is_partial(name) and here / name != folder / ASIDE]
        yield from named
    for name in ("-new", "-old"):
        for path in sorted(folder.glob(f"slides/*/*/*/pseudo-mask{name}.ome.zarr")):
            if (path.parent / "pseudo-mask.ome.zarr").exists():
                yield path


def _is_partial(name: str) -> bool:
    return name.endswith(".partial") or name.startswith(".partial-")


def is_young(path: Path) -> bool:
    """Whether a file, or anything in a folder, was written a short while ago, or is gone by now: somebody is at it.

    A time that is yet to come counts as young: clocks of file servers differ.
    """
    try:
        newest = max(one.lstat().st_mtime for one in (path, *path.rglob("*")))
    except FileNotFoundError:
        return True
    return newest > time.time() - YOUNG_S
