"""Draws what a `Shaping` would change on a layer of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.viewer.editing import ONE, union, window_of
from napari_histodistill.viewer.layers import add_layer, preview_layer

if TYPE_CHECKING:
    from napari_histodistill.viewer.shaping import Proposal
    from napari_histodistill.viewer.slides import OpenSlideView


def show_proposal(view: OpenSlideView, proposal: Proposal) -> None:
    """Add a layer over the smallest window around all changes: what each pixel would be set to, plus one."""
    windows = [window_of(patch.y, patch.x, patch.height, patch.width) for patch in proposal.patches]
    rows, columns = windows[0]
    for window in windows[1:]:
        rows, columns = union((rows, columns), window)
    shown = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    for patch, window in zip(proposal.patches, windows, strict=True):
        changed, _, after = patch.unpack()
        part = shown[
            window[0].start - rows.start : window[0].stop - rows.start,
            window[1].start - columns.start : window[1].stop - columns.start,
        ]
        part[changed] = np.maximum(after + ONE, ONE)  # a correction that goes is drawn as well
    shape = proposal.request.data.shape
    corner = (rows.start, columns.start)
    layer = add_layer(view.viewer, preview_layer(view.slide, view.frame, shown, (shape[0], shape[1]), corner))
    layer.editable = False
