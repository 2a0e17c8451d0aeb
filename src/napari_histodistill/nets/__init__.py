"""Encoders, side outputs, fusion, model files and the bundled teacher.

Cards are read without torch; everything else is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_histodistill.nets.card import Architecture, ModelCard, ModelError, Training, bundled_models, read_card

if TYPE_CHECKING:
    from napari_histodistill.nets.model import Model, load_model, pick_device, save_model

__all__ = [
    "Architecture",
    "Model",
    "ModelCard",
    "ModelError",
    "Training",
    "bundled_models",
    "load_model",
    "pick_device",
    "read_card",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from napari_histodistill.nets import model

    return getattr(model, name)
