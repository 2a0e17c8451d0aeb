"""What a check finds and, where it is to repair, does about it; nothing is ever deleted, only moved aside."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import HistodistillError
from napari_histodistill.study.files import (
    DamagedError,
    StudyError,
    copy_of,
    read_one_document,
    way_out,
    write_atomically,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ASIDE = "damaged"
"""Folder in a study for what was moved aside."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Parameters
    ----------
    path : str
        In the study.
    problem, remedy : str
        What is wrong, and what a repair does about it.
    lost : str
        What cannot be brought back; empty if nothing is lost.
    harmless : bool
        Whether it is what an interruption leaves behind, and no damage.
    unchecked : bool
        Whether it keeps something from being checked, so that nobody knows whether that is damaged.
    repaired : bool
    """

    path: str
    problem: str
    remedy: str
    lost: str = ""
    harmless: bool = False
    unchecked: bool = False
    repaired: bool = False

    def __str__(self) -> str:
        lost = f" Lost: {self.lost}." if self.lost else ""
        return f"{self.path}: {self.problem}; {'done: ' if self.repaired else ''}{self.remedy}.{lost}"


@dataclass
class Report:
    """What a check found.

    Parameters
    ----------
    study : str
    findings : list of Finding
    held : list of str
        Who is writing to the study, a sentence each.
    files : int
        Files that were read.
    aside : str
        Folder that damaged things were moved into; empty if none were.
    """

    study: str
    findings: list[Finding] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    files: int = 0
    aside: str = ""

    @property
    def damaged(self) -> list[Finding]:
        """What is damage, and not a mere leftover."""
        return [finding for finding in self.findings if not finding.harmless and not finding.unchecked]

    @property
    def unchecked(self) -> list[Finding]:
        """What kept something from being checked."""
        return [finding for finding in self.findings if finding.unchecked]

    @property
    def sound(self) -> bool:
        """Whether the study has now all that it should have, as far as is known."""
        return not self.unchecked and self.whole

    @property
    def whole(self) -> bool:
        """The same of everything that was checked."""
        return all(finding.repaired and not finding.lost for finding in self.damaged)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        counts = {"damaged": len(self.damaged), "unchecked": len(self.unchecked)}
        return {"sound": self.sound, **counts, **asdict(self)}


class Inspection:
    """A check that is under way.

    Parameters
    ----------
    folder : Path
        Of the study.
    repair : bool
        Whether what is found is mended at once, before the check goes on.
    """

    def __init__(self, folder: Path, *, repair: bool) -> None:
        self.folder, self.repair = folder, repair
        self.report = Report(str(folder))
        self._aside = folder / ASIDE / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")

    def found(
        self,
        path: Path,
        problem: str,
        remedy: str,
        mend: Callable[[], None] | None = None,
        *,
        lost: str = "",
        harmless: bool = False,
    ) -> bool:
        """Note a problem and mend it if that is asked for; whether it was mended."""
        mended = False
        if self.repair and mend is not None:
            try:
                mend()
                mended = True
            except HistodistillError as error:
                remedy = f"{remedy} (which failed: {error})"
        where = path.relative_to(self.folder).as_posix()
        self.report.findings.append(Finding(where, problem, remedy, lost, harmless, repaired=mended))
        return mended

    def unchecked(self, path: Path, problem: str) -> None:
        """Note what keeps something from being checked."""
        where = path.relative_to(self.folder).as_posix()
        remedy = "what it belongs to was not checked: put that right and check again"
        self.report.findings.append(Finding(where, problem, remedy, unchecked=True))

    def set_aside(self, *paths: Path) -> None:
        """Move files or folders, those that there are, out of the way."""
        for path in paths:
            if path.exists():
                target = self._room_for(path)
                with writing(target):
                    shutil.move(path, target)

    def keep_copy(self, path: Path) -> None:
        """Copy a file to where damaged things go, before it is mended in place."""
        target = self._room_for(path)
        with writing(target):
            shutil.copy2(path, target)

    def _room_for(self, path: Path) -> Path:
        target = self._aside / path.relative_to(self.folder)
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        self.report.aside = str(self._aside)
        return target

    def document(
        self, path: Path, kind: str, version: int, *, copied: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> tuple[dict[str, Any] | None, str]:
        """A document or its copy, each mended from the other; None, and what is wrong, if neither can be read.

        Parameters
        ----------
        path, kind, version
        copied : callable
            Whether, of a document that says this, a copy that says something else is out of date.

        Raises
        ------
        NewerError
            If a newer version wrote it.
        """
        copy = copy_of(path)
        main, problem = self.read_one(path, kind, version)
        spare, spare_problem = self.read_one(copy, kind, version)
        if main is not None:
            if spare is None and copy.exists():
                self.found(copy, spare_problem, "write it anew", lambda: self._replace(copy, path))
            elif spare is not None and spare != main and copied(main):
                problem = "is older than what it is a copy of"  # a kill, or a full disk, came between the two
                self.found(copy, problem, "write it anew", lambda: self._replace(copy, path), harmless=True)
            return main, ""
        if spare is not None:
            self.put_copy_back(path, problem)
            return spare, ""
        return None, problem

    def awaits_its_copy(self, path: Path, document: dict[str, Any] | None) -> bool:
        """Whether a document is missing and only its copy was read: what it belongs to cannot be opened until a repair.

        It is told that the rest of its folder was not checked.
        """
        waits = document is not None and not path.exists()
        if waits:
            self.unchecked(path.parent, f"cannot be opened without {path.name}")
        return waits

    def read_one(self, path: Path, kind: str, version: int) -> tuple[dict[str, Any] | None, str]:
        """A document by itself; None, and what is wrong, if it cannot be read."""
        self.report.files += 1
        try:
            return read_one_document(path, kind, version), ""
        except DamagedError as error:
            return None, str(error).removeprefix(f"{path} ").removesuffix(f": {way_out(path)}.")
        except StudyError as error:
            if path.exists() or error.__cause__ is None:
                raise
            return None, "is missing"

    def put_copy_back(self, path: Path, problem: str) -> None:
        """Note a problem of a document whose copy is sound, and mend it."""
        self.found(path, problem, "put its copy in its place", lambda: self._replace(path, copy_of(path)))

    def _replace(self, path: Path, by: Path) -> None:
        self.set_aside(path)
        write_atomically(path, by.read_bytes())
