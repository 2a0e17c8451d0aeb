"""The audit of a slide: patches of tissue that were drawn at random, what a person says of them, and where they lie.

They are kept apart from corrections, which teach: the squares around drawn patches are kept from training.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_histodistill.slide.labels import IGNORE
from napari_histodistill.study.files import StudyError
from napari_histodistill.study.record import Record, text, whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slide.grid import WorkingGrid

    UInt8 = npt.NDArray[np.uint8]

FORMAT, VERSION = "histodistill-audit", 1
SQUARE_UM: Final = 400.0
"""Side of the squares by which tissue is held out of training: neighbouring pixels must not fall on both sides."""
PATCHES_A_SIDE: Final = 3
"""A square is this many patches across, so that a patch lies in one square: 133 µm each."""
LARGEST_PATCH: Final = 1 << 11
"""Px of a side; it has a 40th of it at 3 µm."""


def now() -> str:
    """The time in UTC, as it is kept."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, eq=False)
class AuditPatch:
    """A patch that was drawn.

    Parameters
    ----------
    y, x, height, width : int
        In working-grid px.
    stratum : int
        1 if there was predicted tumour in it when it was drawn, else 0.
    square_tissue : int
        Pixels of tissue in its square.
    labels : uint8 (height, width), optional
        What a person says: 0 outside tissue, 1 tumour, 2 normal, 3 cannot be told; None until somebody does.
    how, time : str
        How it was labelled ("as shown", "all tumour", "all normal"), and when (UTC).
    """

    y: int
    x: int
    height: int
    width: int
    stratum: int
    square_tissue: int
    labels: UInt8 | None = None
    how: str = ""
    time: str = ""

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where it lies on the working grid."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


@dataclass(frozen=True, eq=False)
class Audit:
    """A random sample of a slide's tissue.

    Parameters
    ----------
    seed : int
    square : int
        Side of the squares that are kept from training, in working-grid px; they begin at the grid's corner.
    stratified_by : str
        Name of the prediction whose tumour made the strata; "" for the slide's own result.
    sizes : (int, int)
        Pixels of tissue in patches without and with predicted tumour.
    patches : tuple of AuditPatch
        Each once.
    order : tuple of int
        Positions in ``patches`` in the order of the draws; with replacement, so a position may come again.
    drawn : int
        So many draws count; the others are there for those who want more.
    earlier : tuple of str
        Predictions that were there when the patches were drawn: their models may have learnt from them.
    created : str
        UTC.
    """

    seed: int
    square: int
    stratified_by: str
    sizes: tuple[int, int]
    patches: tuple[AuditPatch, ...]
    order: tuple[int, ...]
    drawn: int
    earlier: tuple[str, ...] = ()
    created: str = field(default_factory=now)

    @property
    def active(self) -> list[int]:
        """Positions of the patches that count, each once, in the order of the draws."""
        return list(dict.fromkeys(self.order[: self.drawn]))

    @property
    def labelled(self) -> list[int]:
        """Those that a person labelled."""
        return [index for index in self.active if self.patches[index].labels is not None]

    @property
    def squares(self) -> dict[tuple[int, int], int]:
        """Row and column of the squares that are kept from training, and their pixels of tissue."""
        chosen = [self.patches[index] for index in self.active]
        return {(patch.y // self.square, patch.x // self.square): patch.square_tissue for patch in chosen}

    @property
    def held_share(self) -> float:
        """Share of the tissue that is kept from training."""
        return sum(self.squares.values()) / max(1, sum(self.sizes))

    def touches(self, y: int, x: int, height: int, width: int) -> bool:
        """Whether a window, in working-grid px, shares pixels with a square that is kept from training."""
        rows = range(y // self.square, -(-(y + height) // self.square))
        columns = range(x // self.square, -(-(x + width) // self.square))
        return any(row in rows and column in columns for row, column in self.squares)

    def with_label(self, index: int, labels: UInt8, how: str) -> Audit:
        """With what a person says of a patch; see `AuditPatch`."""
        patch = self.patches[index]
        if labels.shape != (patch.height, patch.width) or labels.max(initial=0) > 3:
            raise ValueError("labels of a patch hold 0 to 3 and have its size")
        changed = replace(patch, labels=labels.astype(np.uint8), how=how, time=now())
        return replace(self, patches=(*self.patches[:index], changed, *self.patches[index + 1 :]))

    def with_more(self, draws: int, earlier: tuple[str, ...]) -> Audit:
        """With more draws that count."""
        return replace(self, drawn=min(len(self.order), self.drawn + draws), earlier=earlier)


def square_side(pixel_size_um: tuple[float, float]) -> int:
    """Side, in px, of the squares by which tissue is held out."""
    return max(1, round(SQUARE_UM / float(np.mean(pixel_size_um))))


def write_audit(folder: Path, audit: Audit) -> None:
    """Keep a new audit in place of whatever there was."""
    AUDIT.write(folder, audit)


def change_audit(folder: Path, change: Callable[[Audit], Audit]) -> Audit:
    """Change what is on disk, which another window may have changed too; returns it.

    Raises
    ------
    StudyError
        If there is no audit any more, or it cannot be written.
    """

    def changed(audit: Audit | None) -> Audit:
        if audit is None:
            raise StudyError(f"The audit in {folder} is no longer there: draw patches anew.")
        return change(audit)

    return AUDIT.change(folder, changed)


def _packed(audit: Audit) -> dict[str, Any]:
    return {**asdict(replace(audit, patches=())), "patches": [_packed_patch(patch) for patch in audit.patches]}


def _unpacked(document: dict[str, Any]) -> Audit:
    patches = tuple(_unpacked_patch(entry) for entry in document["patches"])
    without, with_tumour = (whole(size) for size in document["sizes"])
    audit = Audit(
        whole(document["seed"]),
        whole(document["square"], least=1),
        text(document["stratified_by"]),
        (without, with_tumour),
        patches,
        tuple(whole(index) for index in document["order"]),
        whole(document["drawn"]),
        tuple(text(name) for name in document["earlier"]),
        text(document["created"]),
    )
    if max(audit.order, default=-1) >= len(patches) or audit.drawn > len(audit.order):
        raise ValueError("a draw of no patch")
    return audit


def _packed_patch(patch: AuditPatch) -> dict[str, Any]:
    labels = None if patch.labels is None else base64.b64encode(zlib.compress(patch.labels.tobytes())).decode()
    return {**asdict(replace(patch, labels=None)), "labels": labels}


def _unpacked_patch(entry: dict[str, Any]) -> AuditPatch:
    patch = AuditPatch(**{**entry, "labels": None})
    for number in (patch.y, patch.x, patch.height, patch.width, patch.stratum, patch.square_tissue):
        whole(number)
    text(patch.how)
    text(patch.time)
    if patch.stratum > 1:
        raise ValueError("a patch of no stratum")
    if not 0 < min(patch.height, patch.width) <= max(patch.height, patch.width) <= LARGEST_PATCH:
        raise ValueError("a patch of absurd size")
    if entry["labels"] is None:
        return patch
    pixels = patch.height * patch.width
    flat = np.frombuffer(zlib.decompressobj().decompress(base64.b64decode(entry["labels"]), pixels + 1), np.uint8)
    if flat.size != pixels or flat.max(initial=0) > IGNORE:
        raise ValueError("labels that do not fit their patch")
    return replace(patch, labels=flat.reshape(patch.height, patch.width))


def _fits(audit: Audit, grid: WorkingGrid) -> bool:
    height, width = grid.shape
    return all(patch.y + patch.height <= height and patch.x + patch.width <= width for patch in audit.patches)


AUDIT: Final = Record(
    "audit",
    FORMAT,
    VERSION,
    "the audit: patches that were drawn, and what a person said of them",
    _packed,
    _unpacked,
    _fits,
)
