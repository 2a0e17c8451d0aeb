"""Iterative fusion-knowledge distillation: targets, losses, rounds, selection.

Recipes are read without torch; the rest is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_histodistill.distill.job import Begun, Landed, LeftOut, Preview, StudyRequest, StudyResult, distill_study
from napari_histodistill.distill.recipe import RECIPES, DistillRecipe, Targets, find_recipe

if TYPE_CHECKING:
    from napari_histodistill.distill.distillation import DistillRequest, DistillResult, distill

__all__ = [
    "RECIPES",
    "Begun",
    "DistillRecipe",
    "DistillRequest",
    "DistillResult",
    "Landed",
    "LeftOut",
    "Preview",
    "StudyRequest",
    "StudyResult",
    "Targets",
    "distill",
    "distill_study",
    "find_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in ("DistillRequest", "DistillResult", "distill"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from napari_histodistill.distill import distillation

    return getattr(distillation, name)
