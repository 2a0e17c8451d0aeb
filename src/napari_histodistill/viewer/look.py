"""Which of prediction and tumour mask is on screen: one at a time, since one over the other makes a third colour."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from napari_histodistill.viewer.layers import Role

if TYPE_CHECKING:
    from napari_histodistill.viewer.slide_view import OpenSlideView


class Look(enum.Enum):
    """What is filled; the value is what the user reads."""

    PREDICTION = "Prediction"
    MASK = "Tumour mask, which you correct"
    BOTH = "Both"


def look_of(view: OpenSlideView) -> Look | None:
    """What is on screen of a slide, None if neither is."""
    prediction, mask = (
        layer is not None and view.shows(layer) for layer in map(view.layer, (Role.PREDICTION, Role.PSEUDO_MASK))
    )
    if prediction and mask:
        return Look.BOTH
    return Look.PREDICTION if prediction else Look.MASK if mask else None


def look_at(view: OpenSlideView, look: Look) -> None:
    """Show one and hide the other, or show both."""
    for role, other in ((Role.PREDICTION, Look.MASK), (Role.PSEUDO_MASK, Look.PREDICTION)):
        layer = view.layer(role)
        if layer is not None:
            view.set_shown(layer, on=look is not other)
