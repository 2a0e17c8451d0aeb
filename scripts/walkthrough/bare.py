"""The same pan, zoom, paint, layers and docks in napari without the plugin: what that holds is not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_histodistill.slide import open_slide
from walkthrough.hand import Hand

if TYPE_CHECKING:
    from napari.layers import Labels
    from numpy.typing import NDArray

    from walkthrough.story import Plan
    from walkthrough.watchdog import Watchdog

BARE = "bare "
DOCKS = 7
CONTROLS = 80
"""In each dock; ours have 90 on average."""
LAYERS = 9
"""As many as the story ends with: each has controls of napari's own, which a theme restyles."""


def drive_bare(viewer: Any, plan: Plan, watchdog: Watchdog, grid: tuple[int, int]) -> None:
    """Do with a slide's levels and layers of the working grid what the story does; leaves the viewer empty.

    Holds are filed under the names that `story` uses, behind "bare ".
    """
    hand = Hand(viewer)
    with open_slide(plan.slide) as slide:
        scale = [slide.shape[i] / grid[i] for i in (0, 1)]
        docks = []
        with watchdog.doing(f"{BARE}docks"):
            for number in range(DOCKS):
                docks.append(QScrollArea())
                viewer.window.add_dock_widget(docks[-1], name=f"dock {number}", tabify=number > 0)
                hand.pause(0.3)
        with watchdog.doing(f"{BARE}open"):
            viewer.add_image(list(slide.pyramid()), multiscale=True, rgb=True)
            hand.pause(1)
        with watchdog.doing(f"{BARE}layers"):
            _add(hand, scale, np.ones(grid, np.uint8))  # tissue
            layer = _add(hand, scale, np.ones(grid, np.uint8))  # the mask
            levels = [np.zeros([-(-size // 2**level) for size in grid], np.uint8) for level in range(3)]
            viewer.add_image(levels, multiscale=True, scale=scale)
            hand.pause(0.5)
        with watchdog.doing(f"{BARE}look"):
            layer.mode = "pan_zoom"
            hand.zoom(*plan.zoom)
            hand.drag([(0.5, 0.5), (0.52, 0.5), (0.54, 0.52), (0.5, 0.5)])
        layer.mode, layer.brush_size = "paint", 20
        with watchdog.doing(f"{BARE}paint"):
            for _value, places in plan.before + plan.meanwhile:
                hand.drag(places)
        with watchdog.doing(f"{BARE}learn"):
            prediction = _add(hand, scale, np.ones(grid, np.uint8))
            layer.visible = False
            hand.pause(0.2)
        with watchdog.doing(f"{BARE}review"):
            for each in (layer, prediction):
                each.visible = not each.visible
            patch = viewer.add_labels(np.ones((66, 66), np.uint8), scale=scale)
            viewer.camera.zoom *= 2
            hand.pause(0.5)
            for each in (layer, prediction):
                each.visible = not each.visible
            patch.visible, viewer.layers.selection.active = False, layer
            hand.pause(0.5)
        with watchdog.own_work():
            _fill(docks)
            while len(viewer.layers) < LAYERS:
                viewer.add_labels(np.ones((66, 66), np.uint8), scale=scale).visible = False
            hand.pause(1)
        with watchdog.doing(f"{BARE}theme"):
            for theme in ("light", "dark"):
                viewer.theme = theme
                hand.pause(1)
        viewer.layers.clear()
        hand.pause(0.2)


def _fill(docks: list[QScrollArea]) -> None:
    """Put as many ordinary things into docks as ours have: napari gives each of them its style anew with a theme."""
    for dock in docks:
        body = QWidget()
        column = QVBoxLayout(body)
        for number in range(CONTROLS // 2):
            column.addWidget(QLabel(f"label {number}"))
            column.addWidget(QPushButton(f"button {number}"))
        dock.setWidget(body)


def _add(hand: Hand, scale: list[float], mask: NDArray[np.uint8]) -> Labels:
    layer = hand.viewer.add_labels(mask, scale=scale)
    hand.pause(0.5)
    return layer


def beyond_bare(watchdog: Watchdog, *, cpu: bool = False) -> dict[str, float]:
    """For every activity of ours, how much longer (ms) its longest hold is than the longest of bare napari's."""
    longest = longest_holds(watchdog, cpu=cpu)
    ours = [a for a in longest if not a.startswith(BARE) and a not in {"start", "measure"}]
    return {a: max(0.0, longest[a] - longest.get(f"{BARE}{a}", 0.0)) for a in ours}


def longest_holds(watchdog: Watchdog, *, cpu: bool = False) -> dict[str, float]:
    """The longest hold (ms) of every activity, those of bare napari too; by the clock or in processor time."""
    longest: dict[str, float] = {}
    for hold in watchdog.holds:
        ms = 1e3 * (hold.cpu_seconds if cpu else hold.seconds)
        longest[hold.activity] = max(longest.get(hold.activity, 0.0), ms)
    return longest
