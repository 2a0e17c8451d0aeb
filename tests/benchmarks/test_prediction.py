"""What tiling costs, that reading and writing hide behind computing, and that memory does not grow with the slide.

``make bench`` prints the figures; the bounds are ratios of measurements side by side in one run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from sparse_slide import sparse_slide

from napari_histodistill.jobs import InlineControl
from napari_histodistill.nets import load_model
from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.predict import PredictRequest, engine, mask_from_probability, predict_slide
from napari_histodistill.predict.engine import torch_threads

PREDICT = """
import resource, sys
from pathlib import Path
from napari_histodistill.jobs import InlineControl
from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.predict import PredictRequest, predict_slide
predict_slide(PredictRequest(Path(sys.argv[1]), Path(sys.argv[2]), threads=1), InlineControl())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak / (2**20 if sys.platform == "darwin" else 2**10))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="measures with the resource module")
def test_peak_memory_does_not_grow_with_the_slide(build, tmp_path, bench):
    peaks = {}
    for height, width in [(20_480, 20_480), (80_000, 100_000)]:
        path = sparse_slide(build, height, width)
        command = [sys.executable, "-c", PREDICT, path, tmp_path / f"study-{width}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[height * width] = float(output)
        print(f"\n{width} x {height} px: peak {peaks[height * width]:.0f} MB resident")
    small, large = peaks.values()
    bench.add("peak_rss_mb_100k", [large], target=1500, unit="MB")
    assert large < 1.35 * small
    assert large < 1500


class Gate:
    """A model that, after every `EVERY` tiles, measures the bare network on random tensors of the shapes it had.

    Readers wait meanwhile, so that nothing is read in time that does not count.
    """

    EVERY = 6

    def __init__(self, model, monkeypatch) -> None:
        self.card, self.device, self._model = model.card, model.device, model
        self._open, self._shapes, self._tiles = threading.Event(), [], 0
        self.bare, self.whole, self._since = [], [], time.perf_counter()
        self._open.set()
        read, forward = engine._read, model._inference.forward

        def read_when_open(*arguments):
            self._open.wait()
            return read(*arguments)

        def note_shape(x):
            self._shapes.append(tuple(x.shape))
            return forward(x)

        self._forward = forward
        monkeypatch.setattr(engine, "_read", read_when_open)
        monkeypatch.setattr(model._inference, "forward", note_shape)

    def predict(self, images):
        if self._tiles == self.EVERY:
            self.measure()
        self._tiles += 1
        return self._model.predict(images)

    def measure(self) -> None:
        start = time.perf_counter()
        self.whole.append(start - self._since)
        self._open.clear()
        with torch.inference_mode():
            inputs = [torch.rand(s).contiguous(memory_format=torch.channels_last) for s in set(self._shapes)]
            by_shape = {tuple(x.shape): x for x in inputs}
            start = time.perf_counter()
            for shape in self._shapes:
                self._forward(by_shape[shape])
            self.bare.append(time.perf_counter() - start)
        self._shapes, self._tiles = [], 0
        self._open.set()
        self._since = time.perf_counter()


def run_beside_bare(path, study, monkeypatch):
    """A whole run, and the bare network in turn: seconds of it and of the network, piece by piece, and the summary."""
    with monkeypatch.context() as patch:
        gate = Gate(load_model("bundled", "cpu"), patch)
        summary = predict_slide(PredictRequest(path, study, threads=1), InlineControl(), gate)
        gate.measure()
    return gate.whole, gate.bare, summary


@pytest.mark.parametrize(("side", "edge", "name"), [(12_800, 16_384, "_10mm2"), (39_936, 45_056, "")])
def test_a_run_beside_the_bare_network(build, tmp_path, bench, monkeypatch, side, edge, name):
    """Everything counts: opening, tissue, stain, reading, blending, writing, the mask. 10 and 100 mm² of tissue."""
    path = sparse_slide(build, edge, side=side)
    whole, bare, summary = run_beside_bare(path, tmp_path / "study", monkeypatch)
    print(f"\n{summary.tissue_mm2:.0f} mm², {summary.tiles} tiles in {sum(whole):.0f} s, bare {sum(bare):.0f} s")
    # What is done once a slide (tissue, stain, the mask) is spread over the pieces.
    once = sum(whole) / sum(bare) / statistics.median(w / b for w, b in zip(whole, bare, strict=True))
    bench.add(f"predict_efficiency_cpu{name}", [b / w / once for w, b in zip(whole, bare, strict=True)], target=0.9)
    cost = sum(whole) / sum(bare) * summary.tiles / summary.tissue_mm2
    bench.add(f"predict_cost_per_mm2{name}", [cost], unit="bare tiles")
    assert sum(bare) / sum(whole) > 0.4


def test_folding_the_normalisations(bench):
    model, seconds = load_model("bundled", "cpu"), {"plain": [], "folded": []}
    images = torch.rand(1, 3, 1024, 1024).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch_threads(1):
        for _ in range(8):
            for name, network in (("plain", model.network), ("folded", model._inference)):
                start = time.perf_counter()
                network(images)
                seconds[name].append(time.perf_counter() - start)
    pairs = list(zip(seconds["plain"], seconds["folded"], strict=True))[1:]
    bench.add("network_folded_vs_plain_cpu", [plain / fold for plain, fold in pairs])
    assert pairs


def test_smoothing_skips_what_no_threshold_can_change():
    rng = np.random.default_rng(0)
    tissue = np.ones((4096, 4096), np.uint8)
    clear = np.zeros_like(tissue)
    clear[1500:2100, 1500:2100] = 255
    unclear = rng.integers(0, 256, tissue.shape).astype(np.uint8)
    seconds = []
    for probability in (clear, unclear):
        start = time.perf_counter()
        mask_from_probability(probability, tissue, MaskSettings(0.5, 6.0), (2.0, 2.0))
        seconds.append(time.perf_counter() - start)
    print(f"\nmask of 4096 x 4096 px, sigma 3 px: clear {seconds[0]:.2f} s, undecided everywhere {seconds[1]:.2f} s")
    assert seconds[0] < 0.5 * seconds[1]
