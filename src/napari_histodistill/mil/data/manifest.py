"""The CSV manifest: ``image,label,mask,patient,split,mpp``, one image a row, paths relative to the file."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_histodistill.mil.data.bags import SPLITS, Bag, DatasetError
from napari_histodistill.study.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

COLUMNS: Final = ("image", "label", "mask", "patient", "split", "mpp")
LARGEST_FILE: Final = 1 << 27
"""Bytes of a CSV file; a million rows."""
MPP_RANGE: Final = (0.05, 8.0)
"""µm per pixel that an image of a slide can have."""


def read_rows(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file as text without spaces around it; DatasetError where a required column is missing."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DatasetError(f"{path} has more than {LARGEST_FILE >> 20} MB: split it.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in required if name not in (reader.fieldnames or ())]
            if missing:
                raise DatasetError(f"{path} lacks the column {missing[0]}: its first line must name the columns.")
            return [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as a CSV file with a header: {error}.") from error


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV file with a header; a crash leaves either the old or the new file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def read_manifest(path: Path, mpp: float | None) -> tuple[str, list[Bag]]:
    """Name and bags of a manifest; the name changes with its content. ``mpp`` is taken where the file has none."""
    rows = read_rows(path, ("image", "label"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return f"{path.stem}-{digest}", [_bag(path, i, row, mpp) for i, row in enumerate(rows, start=2)]


def _bag(path: Path, line: int, row: dict[str, str], mpp: float | None) -> Bag:
    where = f"{path}, line {line}"
    if not row["image"]:
        raise DatasetError(f"{where}: the image is missing.")
    if row["label"] not in ("0", "1"):
        raise DatasetError(f"{where}: the label is {row['label']!r} but must be 0 (no tumour) or 1 (tumour).")
    split = row.get("split", "") or None
    if split not in (*SPLITS, None):
        raise DatasetError(f"{where}: the split is {split!r} but must be train, val or test, or empty.")
    mask = row.get("mask", "")
    return Bag(
        image=path.parent / row["image"],
        label=int(row["label"]),
        patient=row.get("patient", "") or Path(row["image"]).stem,
        mpp=mpp if mpp is not None else _mpp(where, row.get("mpp", "")),
        mask=path.parent / mask if mask else None,
        split=split,
    )


def _mpp(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not MPP_RANGE[0] <= value <= MPP_RANGE[1]:
        said = f"is {text!r}" if text else "is missing"
        raise DatasetError(f"{where}: mpp {said}: fill the column with µm per pixel, or give one for all with --mpp.")
    return value
