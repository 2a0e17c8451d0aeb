"""Show part of a Labels layer anew without sending the whole mask to the graphics card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histodistill.viewer.editing import Window, clip_window

if TYPE_CHECKING:
    from napari.layers import Labels


def show_window(layer: Labels, window: Window) -> None:
    """Draw ``window`` of a single-scale uint8 Labels layer anew, after its numpy data changed there.

    napari's own brush works the same way. Outlines (``contour``) depend on neighbours and are drawn whole; a layer
    that is hidden is drawn when it is shown.
    """
    if not layer.visible:
        return
    if layer.contour > 0:
        layer.refresh(extent=False)
        return
    rows, columns = clip_window(window, layer.data.shape)
    if rows.start < rows.stop and columns.start < columns.stop:
        layer.events.labels_update(data=layer.data[rows, columns], offset=[rows.start, columns.start])


def show_thumbnail(layer: Labels) -> None:
    """Bring the thumbnail in the layer list up to date."""
    if layer.visible:
        layer.refresh(data_displayed=False, highlight=False, extent=False)
