"""Tumour masks for H&E whole-slide images from image-level labels, interactive in napari.

Importing this package is cheap: it loads neither torch, napari nor Qt.
"""

__version__ = "0.1.0"
