"""Painting beside a bare Labels layer of the same size, event by event up to the screen, in one window.

``make bench`` prints the figures; nothing is asserted of times.
"""

from __future__ import annotations

import pytest

from walkthrough.painting import GRID, compare_painting


@pytest.mark.viewer
@pytest.mark.parametrize("prediction", [False, True])
def test_a_stroke_beside_a_bare_layer(window, tmp_path, bench, prediction):
    figures = compare_painting(window.viewer, tmp_path / "studies", prediction=prediction)
    print(f"\npainting on {GRID[1]} x {GRID[0]} px{', over a prediction' if prediction else ''}: {figures}")
    bench.add(f"paint_rate_vs_bare_p95{'_over_prediction' if prediction else ''}", [1 / figures["ratio_p95"]])
    assert figures["events"] > 0
