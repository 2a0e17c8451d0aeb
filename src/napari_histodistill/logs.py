"""The log: a file for reports of errors that holds no patient's data, unless somebody asks for everything.

A record loses what could name a patient: paths, names of files, and the names that `hide` was told. Only records of
level DEBUG keep them; what a user is told about a file is such a record.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

import platformdirs

from napari_histodistill.errors import HistodistillError

LEVELS: Final = ("debug", "info", "warning", "error")
LARGEST_FILE: Final = 1 << 20
BACKUPS: Final = 3
SHORTEST_NAME: Final = 3
"""Letters from which on a name is hidden wherever it occurs: shorter ones are parts of other words."""

_PACKAGE: Final = "napari_histodistill"
_FORMAT: Final = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_DEBUG_RECORD: Final = re.compile(r"^[\d-]+ [\d:,]+ DEBUG .*\n(?:(?![\d-]+ [\d:,]+ [A-Z]+ ).*\n)*", re.MULTILINE)
_OWN_CODE: Final = re.compile(r"""(["'])[^"'\n]*[/\\](?:site-packages|src|python3\.\d+)[/\\]([\w./\\-]+\.py)\1""")
_QUOTED_PATH: Final = re.compile(r"""(["'])(?:[A-Za-z]:)?[^"'\n<>]*[/\\][^"'\n]*\1""")
_PATH: Final = re.compile(r"""(?<![\w<.])(?:[A-Za-z]:[/\\]|~?/|\\\\)[^\s"'<>:,;)]+""")
_SLIDE_FILE: Final = re.compile(
    r"""[^\s"'/\\]+\.(?:svs|svslide|ndpi|vms|vmu|scn|mrxs|bif|czi|dcm|tiff?|png|jpe?g|zarr|geojson|xml|csv)\b""",
    re.IGNORECASE,
)
_hidden: set[str] = set()


class LogError(HistodistillError):
    """A level that there is not."""


def log_file() -> Path:
    """The log's path, in ``$HISTODISTILL_LOG`` (a folder), else in the user's folder for logs; it may not exist yet."""
    folder = os.environ.get("HISTODISTILL_LOG") or platformdirs.user_log_dir("napari-histodistill", appauthor=False)
    return Path(folder) / "histodistill.log"


def hide(path: Path | str) -> None:
    """Keep the name of a file, with and without its ending, out of the log and of reports."""
    _hidden.update(name for name in (Path(path).name, Path(path).stem) if len(name) >= SHORTEST_NAME)


def without_names(text: str) -> str:
    r"""A text with paths and names of files taken out; those of Python's own modules keep their end.

    Examples
    --------
    >>> without_names("cannot read '/data/Jane Doe/slide 7.svs'")
    'cannot read <path>'
    >>> without_names("B07-1234.svs is damaged, so is C:\\scans\\x")
    '<file> is damaged, so is <path>'
    >>> without_names('File "/home/jane/env/lib/python3.11/site-packages/zarr/core.py", line 3')
    'File [zarr/core.py], line 3'
    """
    text = _OWN_CODE.sub(lambda match: f"[{match[2]}]", text)
    text = _QUOTED_PATH.sub("<path>", text)
    for name in sorted(_hidden, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "<name>", text)
    return _SLIDE_FILE.sub("<file>", _PATH.sub("<path>", text))


class _Discreet(logging.Formatter):
    """Formats records without names, but for those of level DEBUG."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with its traceback."""
        text = super().format(record)
        return text if record.levelno <= logging.DEBUG else without_names(text)


def start_log(level: str | None = None, *, verbose: bool = False) -> None:
    """Begin to log into `log_file`; calling it again changes the level.

    Parameters
    ----------
    level : str, optional
        One of `LEVELS`; ``$HISTODISTILL_LOG_LEVEL``, else "info", if not given. At "debug" names and paths are logged.
    verbose : bool
        Log to stderr too.

    Raises
    ------
    LogError
        If there is no such level.
    """
    level = (level or os.environ.get("HISTODISTILL_LOG_LEVEL") or "info").lower()
    if level not in LEVELS:
        raise LogError(f"There is no log level {level!r}: choose from {', '.join(LEVELS)}.")
    logger = logging.getLogger(_PACKAGE)
    for handler in [handler for handler in logger.handlers if isinstance(handler.formatter, _Discreet)]:
        logger.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [logging.StreamHandler()] if verbose else []
    path = log_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_file_handler(path))
    except OSError as error:
        sys.stderr.write(f"There is no log file: {path} cannot be written ({error.strerror}).\n")
    logger.setLevel(level.upper())
    logger.propagate = logging.getLogger().isEnabledFor(logging.INFO)  # napari -v shows it, napari alone does not
    for handler in handlers:
        handler.setFormatter(_Discreet(_FORMAT))
        logger.addHandler(handler)


def _file_handler(path: Path) -> RotatingFileHandler:
    handler = RotatingFileHandler(path, maxBytes=LARGEST_FILE, backupCount=BACKUPS, encoding="utf-8")
    handler.rotator = _rotate
    return handler


def _rotate(source: str, destination: str) -> None:
    """Rename a full file; where another process has it open (Windows) go on in the same."""
    with suppress(PermissionError, FileNotFoundError):
        Path(source).replace(destination)


def tail(lines: int = 60) -> str:
    """The log's last lines without names and without what was logged at DEBUG; an empty text if there is no log."""
    try:
        text = log_file().read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return without_names("\n".join(_DEBUG_RECORD.sub("", text).splitlines()[-lines:]))
