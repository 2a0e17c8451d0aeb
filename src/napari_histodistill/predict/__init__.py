"""Tiled prediction onto the working grid, and masks and figures from its result. Importing it does not load torch."""

from napari_histodistill.predict.cohort import CohortRequest, CohortResult, SlideFailure, predict_cohort
from napari_histodistill.predict.figures import Figures, summarise
from napari_histodistill.predict.mask import mask_blocks, mask_from_probability, mask_region
from napari_histodistill.predict.predict import TooCoarseError, predict_slide, write_pseudo_mask
from napari_histodistill.predict.request import Notice, PredictRequest, PredictSummary, TileDone

__all__ = [
    "CohortRequest",
    "CohortResult",
    "Figures",
    "Notice",
    "PredictRequest",
    "PredictSummary",
    "SlideFailure",
    "TileDone",
    "TooCoarseError",
    "mask_blocks",
    "mask_from_probability",
    "mask_region",
    "predict_cohort",
    "predict_slide",
    "summarise",
    "write_pseudo_mask",
]
