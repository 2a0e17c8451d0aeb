"""Names of exported files, which appear whole or not at all."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Final

from napari_histodistill.export.source import ExportError

LONGEST: Final = 100
"""Characters of a name; with an ending it must stay below the 255 bytes of most file systems."""
_UNSAFE: Final = frozenset("<>:\"/\\|?*'`")
_RESERVED: Final = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))]
)


def safe_name(name: str) -> str:
    r"""A slide's name as a file name that every system takes and every terminal shows as it is.

    Control and format characters (right-to-left marks among them), quotes and what Windows forbids become ``_``.

    Examples
    --------
    >>> safe_name('a"b\n\u202ec'), safe_name("CON"), safe_name("..")
    ('a_b__c', '_CON', '_')
    """
    kept = "".join("_" if c in _UNSAFE or unicodedata.category(c)[0] == "C" else c for c in name)
    kept = kept[:LONGEST].encode()[: 2 * LONGEST].decode(errors="ignore").strip(" .")
    return f"_{kept}" if not kept or kept.split(".")[0].lower() in _RESERVED else kept


def write_whole(target: Path, write: Callable[[Path], None]) -> Path:
    """Write beside the final place, then move there; remove what a failure leaves.

    Parameters
    ----------
    target : Path
        File or folder, replaced if it exists.
    write : callable
        Given the path to write to.

    Raises
    ------
    ExportError
        If the folder cannot be written.
    """
    partial = target.with_name(f".partial-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(partial)
            _remove(target)
            partial.replace(target)
        finally:
            _remove(partial)
    except OSError as error:
        raise ExportError(f"{target} cannot be written ({error.strerror}): choose another folder.") from error
    return target


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
