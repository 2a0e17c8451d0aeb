"""Strokes on a large working grid beside a bare Labels layer of the same size, with mouse events, in one window."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from napari.layers import Labels

from napari_histodistill.slide.grid import WorkingGrid
from napari_histodistill.study import StudySlide
from napari_histodistill.viewer.colours import prediction_colours, pseudo_mask_colours
from napari_histodistill.viewer.editing import EditableMask
from napari_histodistill.viewer.layers import PSEUDO_MASK_VALUES, ROLE_KEY, Role
from napari_histodistill.viewer.painting import Painting
from napari_histodistill.viewer.prediction import PredictionView
from napari_histodistill.viewer.saving import CorrectionsSaver, SavedCorrections
from napari_histodistill.widgets.session import QtRunner
from walkthrough.hand import Hand

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

GRID: Final = (10_000, 12_500)
"""Working grid of a slide of 100,000 x 80,000 px at 0.25 µm/px, at 2 µm/px."""
STROKES, DABS = 6, 6


def compare_painting(
    viewer: Any, folder: Path, *, prediction: bool, both: bool = False, strokes: int = STROKES
) -> dict[str, Any]:
    """Paint in a viewer on a bare layer and on ours, in turn and twice each.

    Parameters
    ----------
    viewer : napari.Viewer
        Empty and shown; left empty.
    folder : Path
        For the corrections.
    prediction : bool
        Whether there is a prediction under our mask, as while a model learns; strokes are then laid over it too.
    both : bool
        Whether it is seen. Tools of the Correct dock hide it unless *Both* was chosen.
    strokes : int
        On each layer and turn.

    Returns
    -------
    dict
        ``ratio_p95``, and 95th percentiles in ms ``bare_p95_ms``, ``ours_p95_ms`` of an event to the screen.
    """
    hand = Hand(viewer)
    computed = np.zeros(GRID, np.uint8)
    computed[2000:8000, 2000:10_000] = 2
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    for turn in range(2):
        for kind in ("bare", "ours"):
            clean_up = None
            if kind == "bare":
                layer = viewer.add_layer(_layer(computed.copy()))
            else:
                layer, clean_up = _ours(
                    viewer, computed, folder / f"{turn}-{prediction}-{both}", hand, prediction=prediction, both=both
                )
            _paint(hand, layer, 1)  # the first stroke pays for what is made once
            seconds[kind] += _paint(hand, layer, strokes)
            if clean_up is not None:
                clean_up()
            viewer.layers.clear()
            hand.pause(0.1)
    bare, ours = (1e3 * float(np.percentile(seconds[kind], 95)) for kind in ("bare", "ours"))
    return {"ratio_p95": ours / bare, "bare_p95_ms": bare, "ours_p95_ms": ours, "events": len(seconds["ours"])}


def _layer(data: NDArray[np.uint8]) -> Labels:
    return Labels(data, colormap=pseudo_mask_colours(), opacity=0.4, scale=(2, 2))


def _ours(viewer: Any, computed: NDArray[np.uint8], folder: Path, hand: Hand, *, prediction: bool, both: bool) -> Any:
    """A mask with its corrections, saved as they are made, and under it a prediction if asked; what ends it all."""
    folder.mkdir(parents=True)
    entry = StudySlide(folder, "none", WorkingGrid(GRID, (80_000, 100_000), (0.25, 0.25)), folder / "none.svs")
    runner = QtRunner()
    mask = EditableMask(computed.copy(), zero_erases=True)
    mask.allowed = lambda window: computed[window] != 0
    saver = CorrectionsSaver(mask, entry, runner, SavedCorrections(mask.hand, [], [], 0))
    shown: PredictionView | None = None
    if prediction:
        view: Any = SimpleNamespace(runner=runner, viewer=viewer, layer=lambda role: _find(viewer, role))
        result: Any = SimpleNamespace(mask=mask)
        shown = PredictionView(view, result)
        shown.data[:] = computed
        under = Labels(shown.data, colormap=prediction_colours(), opacity=0.45, scale=(2, 2), visible=both)
        under.metadata[ROLE_KEY] = Role.PREDICTION
        viewer.add_layer(under)
    layer = viewer.add_layer(_layer(mask.data))
    Painting(layer, mask, PSEUDO_MASK_VALUES)

    def clean_up() -> None:
        hand.wait(lambda: saver.all_saved, 20, "corrections to be saved")
        if shown is not None:
            shown.close()

    return layer, clean_up


def _find(viewer: Any, role: Role) -> Any:
    return next((layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) is role), None)


def _paint(hand: Hand, layer: Labels, strokes: int) -> list[float]:
    layer.brush_size, layer.selected_label, layer.mode = 40, 1, "paint"
    hand.viewer.layers.selection.active = layer
    hand.viewer.reset_view()
    hand.zoom((0.5, 0.5), 12)
    canvas = hand.viewer.window._qt_viewer.canvas._scene_canvas  # noqa: SLF001 - napari has no public name for it

    def draw() -> None:
        canvas.set_current()  # another window may have drawn last
        canvas.on_draw(None)

    rng = np.random.default_rng(0)
    seconds = []
    for _ in range(strokes):
        x, y = rng.uniform(0.25, 0.6, 2)
        places = [(x + 0.02 * step, y + 0.01 * step) for step in range(DABS)]
        seconds += hand.stroke_timed(places, draw)
    return seconds
