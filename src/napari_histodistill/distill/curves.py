"""The curves of a distillation as a picture: loss terms of every epoch, and the selection score."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_histodistill.study.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_histodistill.distill.rounds import Round


def write_curves(path: Path, rounds: Sequence[Round], first_score: float | None, evidence: str) -> None:
    """Write a PNG with the loss terms above and the score on ``evidence`` below, one point an epoch.

    Rounds are parted by lines and named by their outcome; ``first_score`` is the first teacher's.
    """
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(2, 1, sharex=True)
    epochs = [epoch for r in rounds for epoch in r.epochs]
    x = range(1, len(epochs) + 1)
    for name in sorted({name for epoch in epochs for name in epoch["terms"]}):
        losses.plot(x, [epoch["terms"].get(name, float("nan")) for epoch in epochs], marker=".", label=name)
    losses.set_ylabel("loss, mean over an epoch")
    losses.legend()
    known = [float("nan") if epoch["score"] is None else epoch["score"] for epoch in epochs]
    scores.plot(x, known, marker=".", color="black", label="student")
    if first_score is not None:
        scores.axhline(first_score, color="grey", linestyle="--", label="first teacher")
    scores.set_ylabel(f"score: {evidence}")
    scores.set_xlabel("epoch")
    scores.legend()
    end = 0.5
    for r in rounds:
        scores.annotate(
            f"round {r.number}: {r.outcome}", (end, 1), xycoords=("data", "axes fraction"), va="top", size="small"
        )
        end += len(r.epochs)
        for axes in (losses, scores):
            axes.axvline(end, color="lightgrey", zorder=0)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    write_atomically(path, picture.getvalue())
