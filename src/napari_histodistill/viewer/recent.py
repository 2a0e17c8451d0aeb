"""The studies that were chosen last, remembered for this user."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import platformdirs

from napari_histodistill.study import StudyError
from napari_histodistill.study.files import read_document, write_document

logger = logging.getLogger(__name__)

FORMAT, VERSION = "histodistill-recent", 1
MOST: Final = 10


def state_folder() -> Path:
    """Folder for what is remembered of a user: ``$HISTODISTILL_STATE``, else the system's; it may not exist yet."""
    return Path(os.environ.get("HISTODISTILL_STATE") or platformdirs.user_state_path("napari-histodistill"))


def recent_studies() -> list[Path]:
    """Folders of studies, the last chosen first; some may be gone."""
    path = state_folder() / "recent-studies.json"
    if not path.exists():
        return []
    try:
        return [Path(folder) for folder in read_document(path, FORMAT, VERSION)["folders"]]
    except (StudyError, KeyError, TypeError) as error:
        logger.warning("the list of recent studies cannot be read and begins anew: %s", error)
        return []


def remember(folder: Path) -> None:
    """Put a study first."""
    _write([folder, *(other for other in recent_studies() if other != folder)][:MOST])


def forget(folder: Path) -> None:
    """Take a study that is gone off the list."""
    _write([other for other in recent_studies() if other != folder])


def _write(folders: list[Path]) -> None:
    """Write the list; a convenience that nobody is to be bothered about."""
    path = state_folder() / "recent-studies.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_document(path, FORMAT, VERSION, {"folders": [str(folder) for folder in folders]})
    except (OSError, StudyError) as error:
        logger.warning("the list of recent studies cannot be written: %s", error)
