"""Tumour masks for H&E whole-slide images from image-level labels, interactive in napari.

Importing this package is cheap: it loads neither torch, napari nor Qt.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("napari-histodistill")
except PackageNotFoundError:  # run from its sources without having been installed
    __version__ = "0+unknown"
