"""Data sets of bags: images with an image-level label, from a CSV manifest or a known folder, or cut from slides.

Nothing here imports torch. Masks are for evaluation (and for the full-mask ceiling); training reads labels only.
"""

from napari_histodistill.mil.data.bags import (
    SPLITS,
    Bag,
    BagDataset,
    DatasetError,
    Split,
    read_mask,
    split_of,
    training_split_of,
)
from napari_histodistill.mil.data.cut import CutRequest, CutResult, cut_dataset
from napari_histodistill.mil.data.load import load_dataset

__all__ = [
    "SPLITS",
    "Bag",
    "BagDataset",
    "CutRequest",
    "CutResult",
    "DatasetError",
    "Split",
    "cut_dataset",
    "load_dataset",
    "read_mask",
    "split_of",
    "training_split_of",
]
