"""Values of masks on the working grid, shared by tissue, prediction, study, export and viewer."""

from typing import Final

OUTSIDE: Final = 0
"""Outside tissue; the eraser paints it too."""
TUMOUR: Final = 1
NORMAL: Final = 2
IGNORE: Final = 3
"""Artefact (pen, out of focus) or set aside by a person: no part of training, area or score."""
