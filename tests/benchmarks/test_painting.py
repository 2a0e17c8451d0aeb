"""Painting beside a bare Labels layer of the same size, dab by dab and stroke by stroke, in one window after the other.

``make bench`` prints the figures; nothing is asserted of times.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from napari.layers import Labels

from napari_histodistill.slide.grid import WorkingGrid
from napari_histodistill.study import StudySlide
from napari_histodistill.viewer.colours import pseudo_mask_colours
from napari_histodistill.viewer.editing import EditableMask
from napari_histodistill.viewer.layers import PSEUDO_MASK_VALUES
from napari_histodistill.viewer.painting import Painting
from napari_histodistill.viewer.saving import CorrectionsSaver, SavedCorrections
from napari_histodistill.widgets.session import QtRunner

SHAPE = (10_000, 12_500)
DABS, STROKES = 100, 20


def layer_of(data: np.ndarray) -> Labels:
    layer = Labels(data, colormap=pseudo_mask_colours(), opacity=0.4, scale=(8, 8))
    layer.brush_size, layer.selected_label, layer.mode = 40, 1, "paint"
    return layer


def paint(window, layer, commit) -> dict[str, np.ndarray]:
    """Seconds of each dab up to the canvas, and of each end of a stroke."""
    canvas = window.viewer.window._qt_viewer.canvas
    window.look((40_000.0, 50_000.0), 0.05)
    rng = np.random.default_rng(0)
    dabs, ends = [], []
    for _ in range(STROKES):
        y, x = rng.integers(3000, 7000), rng.integers(3000, 9000)
        with layer.block_history():
            last = (y, x)
            for step in range(DABS // STROKES):
                place = (y + 12 * step, x + 25 * step)
                start = time.perf_counter()
                layer._draw(1, last, place)
                canvas._scene_canvas.on_draw(None)
                dabs.append(time.perf_counter() - start)
                last = place
            start = time.perf_counter()
            commit()
            ends.append(time.perf_counter() - start)
        window.settle(0.05)
    return {"dab": np.array(dabs), "end": np.array(ends)}


@pytest.mark.viewer
def test_a_stroke_beside_a_bare_layer(window, tmp_path):
    computed = np.zeros(SHAPE, np.uint8)
    computed[2000:8000, 2000:10_000] = 2
    grid = WorkingGrid(SHAPE, (80_000, 100_000), (0.25, 0.25))
    figures = {}
    for name in ("bare", "ours", "bare again", "ours again"):
        if name.startswith("bare"):
            layer = window.viewer.add_layer(layer_of(computed.copy()))
            commit = lambda: None  # noqa: E731
        else:
            folder = tmp_path / name
            folder.mkdir()
            entry = StudySlide(folder, "none", grid, folder / "none.svs")
            mask = EditableMask(computed.copy(), zero_erases=True)
            mask.allowed = lambda window: computed[window] != 0
            saver = CorrectionsSaver(mask, entry, QtRunner(), SavedCorrections(mask.hand, [], [], 0))
            layer = window.viewer.add_layer(layer_of(mask.data))
            Painting(layer, mask, PSEUDO_MASK_VALUES)
            commit = mask.commit
        figures[name] = paint(window, layer, commit)
        if name.startswith("ours"):
            window.wait(lambda saver=saver: saver.all_saved, seconds=10)
        window.viewer.layers.clear()
    for kind in ("dab", "end"):
        for name, times in figures.items():
            p50, p95 = 1e3 * np.percentile(times[kind], [50, 95])
            print(f"\n{kind} {name}: median {p50:.2f} ms, 95th percentile {p95:.2f} ms", end="")
    p95 = {
        k: np.percentile(np.concatenate([figures[k]["dab"], figures[f"{k} again"]["dab"]]), 95)
        for k in ("bare", "ours")
    }
    print(f"\npaint_ratio_p95 {p95['ours'] / p95['bare']:.2f} on {SHAPE[1]} x {SHAPE[0]} px, {2 * DABS} dabs each")
    assert len(figures["ours"]["dab"]) == DABS
