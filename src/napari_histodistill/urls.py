"""Folders at URLs (``s3://``, ``https://``, ...), read through fsspec and never written.

A `UrlPath` has the reading half of a `pathlib.Path`, so that code that reads a folder need not know where it is.
Settings and credentials are those of fsspec and of the object store: ``AWS_ENDPOINT_URL``, ``AWS_PROFILE``,
``FSSPEC_S3_ANON`` and the like.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from napari_histodistill.errors import HistodistillError

if TYPE_CHECKING:
    from collections.abc import Iterator

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")
"""A scheme has two letters or more, so that no drive of Windows is one; `Path` makes one slash of two."""
TIMEOUT_S = 20.0


class UrlError(HistodistillError):
    """A URL that cannot be read, or that was to be written to; the message says why and what to do."""


def to_path(path: Path | str) -> Path:
    """A path; a `UrlPath` for text, or a `Path` made of text, that is a URL.

    Examples
    --------
    >>> str(to_path("s3://bucket/slide.zarr")), str(to_path(Path("s3://bucket/slide.zarr")))
    ('s3://bucket/slide.zarr', 's3://bucket/slide.zarr')
    >>> isinstance(to_path("slide.svs"), UrlPath)
    False
    """
    if isinstance(path, UrlPath):
        return path
    text = str(path)
    if not _URL.match(text):
        return Path(path)
    if text.startswith("file:"):
        return Path("/", _URL.sub("", text, count=1))
    return UrlPath(text)


class UrlPath(type(Path())):  # type: ignore[misc]  # the class of this system's paths
    """A folder or file at a URL. Paths within a host or bucket are normalised as those of files are."""

    def __str__(self) -> str:
        return _URL.sub(r"\1://", super().__str__().replace("\\", "/"), count=1)

    def absolute(self) -> Self:
        """The same."""
        return self

    def exists(self, **_: Any) -> bool:
        """Whether something is there."""
        with told(self):
            return bool(_filesystem(self).exists(str(self)))

    def is_file(self) -> bool:
        """Whether a file is there."""
        with told(self):
            return bool(_filesystem(self).isfile(str(self)))

    def is_dir(self) -> bool:
        """Whether a folder is there."""
        with told(self):
            return bool(_filesystem(self).isdir(str(self)))

    def stat(self, **_: Any) -> os.stat_result:
        """Its size; nothing else is known."""
        with told(self):
            size = int(_filesystem(self).size(str(self)) or 0)
        return os.stat_result((0o100444, 0, 0, 1, 0, 0, size, 0, 0, 0))

    def glob(self, pattern: str, **_: Any) -> Iterator[Self]:
        """What matches below; where a host cannot list, nothing."""
        scheme = str(self).split("://", maxsplit=1)[0]
        with told(self):
            found = _filesystem(self).glob(f"{self}/{pattern}")
        for name in found:
            yield type(self)(name if _URL.match(name) else f"{scheme}://{name}")

    def iterdir(self) -> Iterator[Self]:
        """What lies in it."""
        return self.glob("*")

    def read_bytes(self) -> bytes:
        """The whole file."""
        with told(self):
            return bytes(_filesystem(self).cat_file(str(self)))

    def read_part(self, start: int, size: int = -1) -> bytes:
        """``size`` bytes from ``start`` on, or all of them; from a host that knows no ranges the whole is fetched."""
        with told(self):
            files, whole = _filesystem(self), int(_filesystem(self).size(str(self)) or 0)
            end = whole if size < 0 else min(whole, start + size)
            if not whole:
                return self.read_bytes()[start:][: size if size >= 0 else None]
            if start >= end:
                return b""
            data = bytes(files.cat_file(str(self), start=start, end=end))
        return data if len(data) <= end - start else data[start:end]

    def read_text(self, encoding: str | None = None, errors: str | None = None, **_: Any) -> str:
        """The whole file as text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(self, mode: str = "r", *_: Any, **__: Any) -> IO[Any]:
        """The file, in memory."""
        if set(mode) - set("rb"):
            raise read_only(self)
        return io.BytesIO(self.read_bytes()) if "b" in mode else io.StringIO(self.read_text())

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise read_only(self)

    mkdir = unlink = rename = replace = rmdir = touch = write_bytes = write_text = _refuse


def read_only(path: Path) -> UrlError:
    """What to say where a URL was to be written to."""
    return UrlError(f"{path} is read-only here, as everything at a URL is: copy the folder to a disk and work on that.")


def require_disk(path: Path) -> None:
    """Refuse to write at a URL.

    Raises
    ------
    UrlError
    """
    if isinstance(path, UrlPath):
        raise read_only(path)


def zarr_store(path: Path) -> Any:
    """What zarr is to open for a folder: the path itself, or a store at its URL."""
    if not isinstance(path, UrlPath):
        return path
    from zarr.storage import FsspecStore

    with told(path):
        return FsspecStore.from_url(str(path), storage_options=_options(path), read_only=True)


@contextmanager
def told(url: Path, passing: type[Exception] = HistodistillError) -> Iterator[None]:
    """Make a sentence of whatever a store at a URL raises.

    Parameters
    ----------
    url : Path
    passing : type
        Of errors that are left as they are.

    Raises
    ------
    FileNotFoundError
        As it is.
    UrlError
    """
    try:
        yield
    except (FileNotFoundError, HistodistillError, passing):
        raise
    except ImportError as error:
        raise UrlError(
            f"{url} needs a package that is not installed ({error}): pip install 'napari-histodistill[cloud]'."
        ) from error
    except PermissionError as error:
        raise UrlError(f"{url} may not be read with these credentials: check them, or the name.") from error
    except Exception as error:
        # The libraries of object stores raise errors of their own that share no base class.
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UrlError(f"{url} cannot be read ({why}): check the address, the network and the credentials.") from error


def _filesystem(url: Path) -> Any:
    import fsspec

    return fsspec.url_to_fs(str(url), **_options(url))[0]


def _options(url: Path) -> dict[str, Any]:
    """Timeouts, since nothing may hang; the rest is left to the user's own settings."""
    scheme = str(url).split("://", maxsplit=1)[0]
    if scheme in {"s3", "s3a"}:
        timeouts = {"connect_timeout": TIMEOUT_S, "read_timeout": TIMEOUT_S, "retries": {"max_attempts": 2}}
        return {"config_kwargs": timeouts}
    if scheme in {"http", "https"}:
        from aiohttp import ClientTimeout

        return {
            "client_kwargs": {"timeout": ClientTimeout(connect=TIMEOUT_S, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)}
        }
    return {}
