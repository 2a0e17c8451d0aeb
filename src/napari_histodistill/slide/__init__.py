"""A slide as a lazy pyramid: sources, levels, metadata checks, tissue and artefacts, grids."""

from napari_histodistill.slide.errors import MppError, SlideError
from napari_histodistill.slide.grid import WorkingGrid
from napari_histodistill.slide.levels import Level
from napari_histodistill.slide.metadata import SlideMetadata
from napari_histodistill.slide.opening import open_slide
from napari_histodistill.slide.slide import Slide
from napari_histodistill.slide.tissue import Tissue, TissueSettings, find_tissue

__all__ = [
    "Level",
    "MppError",
    "Slide",
    "SlideError",
    "SlideMetadata",
    "Tissue",
    "TissueSettings",
    "WorkingGrid",
    "find_tissue",
    "open_slide",
]
