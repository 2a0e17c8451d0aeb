"""Errors of the slide package: what a user can mend, and what only a reader sees."""

import struct
import zlib
from typing import Final

from napari_histodistill.errors import HistodistillError

DAMAGED: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What parsers of other packages raise, as fuzzing found, on a file that is damaged or made to hurt."""


class SlideError(HistodistillError):
    """A file or folder cannot be opened as a slide; the message says why and what to do."""


class MppError(HistodistillError):
    """The pixel size is needed but unknown."""


class AnnotationError(HistodistillError):
    """An annotation file cannot be used; the message says why and what to do."""


class RegionError(Exception):
    """A tile cannot be read. Never reaches the user: the slide counts it and shows background instead."""
