"""Painting beside a bare Labels layer of the same size, event by event up to the screen, in one window.

``make bench`` prints the figures; nothing is asserted of times.
"""

from __future__ import annotations

import pytest

from walkthrough.painting import GRID, compare_painting


@pytest.mark.viewer
@pytest.mark.parametrize("name", ["", "_with_prediction", "_over_prediction"])
def test_a_stroke_beside_a_bare_layer(window, tmp_path, bench, name):
    """Alone, with a prediction that is hidden while one paints, and with both on screen (then GL draws two layers)."""
    prediction, both = bool(name), name == "_over_prediction"
    figures = compare_painting(window.viewer, tmp_path / "studies", prediction=prediction, both=both)
    print(f"\npainting on {GRID[1]} x {GRID[0]} px {name}: {figures}")
    bench.add(f"paint_rate_vs_bare_p95{name}", [1 / figures["ratio_p95"]], target=None if both else 1 / 1.5)
    assert figures["events"] > 0
