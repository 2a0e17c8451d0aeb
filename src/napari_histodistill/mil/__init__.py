"""Teachers trained from image-level labels: data sets, bag losses, training, evaluation.

Data sets and the names of methods are read without torch; the rest is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_histodistill.mil.data import Bag, BagDataset, DatasetError, load_dataset
from napari_histodistill.mil.families import TEACHERS, Family, methods

if TYPE_CHECKING:
    from napari_histodistill.mil.evaluate import Evaluation, evaluate_model
    from napari_histodistill.mil.train import TEACHER_RECIPES, Recipe, TrainRequest, TrainResult, train_teacher

__all__ = [
    "TEACHERS",
    "TEACHER_RECIPES",
    "Bag",
    "BagDataset",
    "DatasetError",
    "Evaluation",
    "Family",
    "Recipe",
    "TrainRequest",
    "TrainResult",
    "evaluate_model",
    "load_dataset",
    "methods",
    "train_teacher",
]


def __getattr__(name: str) -> Any:
    if name in ("Evaluation", "evaluate_model"):
        from napari_histodistill.mil import evaluate

        return getattr(evaluate, name)
    if name in __all__:
        from napari_histodistill.mil import train

        return getattr(train, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
