"""What tiling costs, that reading and writing hide behind computing, and that memory does not grow with the slide.

``make bench`` prints the figures; the bounds are ratios of measurements side by side in one run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sparse_slide import sparse_slide

from napari_histodistill.heap import kept_heap
from napari_histodistill.jobs import InlineControl
from napari_histodistill.nets import load_model
from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.nets.threads import torch_threads
from napari_histodistill.predict import PredictRequest, engine, mask_from_probability, predict_slide

PREDICT = """
import sys
from pathlib import Path
from browse import peak_mb
from napari_histodistill.jobs import InlineControl
from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.predict import PredictRequest, predict_slide
predict_slide(PredictRequest(Path(sys.argv[1]), Path(sys.argv[2]), threads=1), InlineControl())
print(peak_mb())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="measures with the resource module")
def test_peak_memory_does_not_grow_with_the_slide(build, tmp_path, bench):
    peaks = {}
    for height, width in [(20_480, 20_480), (80_000, 100_000)]:
        path = sparse_slide(build, height, width)
        command = [sys.executable, "-c", PREDICT, path, tmp_path / f"study-{width}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout
        peaks[height * width] = float(output)
        print(f"\n{width} x {height} px: peak {peaks[height * width]:.0f} MB resident")
    small, large = peaks.values()
    bench.add("peak_rss_mb_100k", [large], target=1500, unit="MB")
    assert large < 1.35 * small
    assert large < 1500


class Gate:
    """A model that, after every `EVERY` tiles, measures the bare network on random tensors of the shapes it had.

    Readers wait meanwhile, so that nothing is read in time that does not count. What comes before the first tile and
    after the last one is done once a slide, and belongs to no piece.
    """

    EVERY = 6

    def __init__(self, model, monkeypatch) -> None:
        self.card, self.device, self._model = model.card, model.device, model
        self._open, self._shapes, self._tiles = threading.Event(), [], 0
        self.wall, self.cpu = [], []
        """Per piece, seconds of (the run, the bare network)."""
        self.paused = 0.0
        """CPU seconds that this thread spent on the bare network and its inputs."""
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
        if self._tiles == 0:
            self._since = time.perf_counter(), time.process_time()
        elif self._tiles % self.EVERY == 0:
            self.measure()
        self._tiles += 1
        return self._model.predict(images)

    def measure(self) -> None:
        wall, cpu = time.perf_counter() - self._since[0], time.process_time()
        pause = time.thread_time()
        self._open.clear()
        with torch.inference_mode():
            inputs = [torch.rand(s, device=self.device) for s in set(self._shapes)]
            inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
            by_shape = {tuple(x.shape): x for x in inputs}
            bare_wall, bare_cpu = time.perf_counter(), time.thread_time()
            for shape in self._shapes:
                self._forward(by_shape[shape])
            if self.device.startswith("cuda"):
                torch.cuda.synchronize()
            bare_wall, bare_cpu = time.perf_counter() - bare_wall, time.thread_time() - bare_cpu
        self.wall.append((wall, bare_wall))
        self.cpu.append((cpu - self._since[1], bare_cpu))
        self._shapes = []
        self._open.set()
        pause = time.thread_time() - pause
        self.paused += pause
        self._since = time.perf_counter(), cpu + pause  # writing goes on meanwhile, and counts


@pytest.mark.parametrize(("side", "edge", "name"), [(12_800, 16_384, "_10mm2"), (39_936, 45_056, "")])
def test_a_run_beside_the_bare_network(build, tmp_path, bench, monkeypatch, side, edge, name):
    """Tiles per second of a running prediction, reading included; and what 10 and 100 mm² of tissue cost in all."""
    path = sparse_slide(build, edge, side=side)
    with monkeypatch.context() as patch:
        gate = Gate(load_model("bundled", "cpu"), patch)
        start = time.process_time()
        summary = predict_slide(PredictRequest(path, tmp_path / "study", threads=1), InlineControl(), gate)
        cpu = time.process_time() - start - gate.paused
    tile = sum(bare for _, bare in gate.cpu) / (len(gate.cpu) * gate.EVERY)
    print(f"\n{summary.tissue_mm2:.0f} mm², {summary.tiles} tiles: {cpu:.1f} s of CPU, a bare tile {tile:.2f}")
    shares = [bare / whole for whole, bare in gate.cpu]
    bench.add(f"predict_efficiency_cpu{name}", [bare / whole for whole, bare in gate.wall], target=0.9)
    bench.add(f"predict_network_share_of_cpu{name}", shares)
    bench.add(f"predict_cost_per_mm2{name or '_100mm2'}", [cpu / tile / summary.tissue_mm2], unit="bare tiles")
    assert statistics.median(shares) > 0.5


def test_a_run_beside_the_bare_network_on_a_gpu(build, tmp_path, bench, monkeypatch):
    if not torch.cuda.is_available():
        bench.missing("predict_efficiency_gpu", "no GPU", target=0.9)
        pytest.skip("there is no GPU")
    gate = Gate(load_model("bundled", "cuda"), monkeypatch)
    path = sparse_slide(build, 45_056, side=39_936)
    predict_slide(PredictRequest(path, tmp_path / "study", device="cuda"), InlineControl(), gate)
    bench.add("predict_efficiency_gpu", [bare / whole for whole, bare in gate.wall], target=0.9)
    assert gate.wall


def test_a_thousand_mm2_cost_no_more_each(build, tmp_path, bench):
    """Everything but the network, which is a constant here; its CPU time is that of as many bare tiles."""
    model = load_model("bundled", "cpu")

    class Quick:
        card, device = model.card, model.device

        def predict(self, images):
            return np.full(images.shape[:3], 0.25, np.float32)

    path = sparse_slide(build, 34_816, side=31_744, um=1.0)
    start = time.process_time()
    summary = predict_slide(PredictRequest(path, tmp_path / "study", threads=1), InlineControl(), Quick())
    rest = time.process_time() - start
    x = torch.rand(1, 3, 1344, 1344).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch_threads(1), kept_heap():
        model._inference(x)
        start = time.thread_time()
        for _ in range(3):
            model._inference(x)
        tile = (time.thread_time() - start) / 3
    print(f"\n{summary.tissue_mm2:.0f} mm², {summary.tiles} tiles: {rest:.0f} s of CPU without the network")
    cost = (rest / tile + summary.tiles) / summary.tissue_mm2
    bench.add("predict_cost_per_mm2_1000mm2", [cost], unit="bare tiles")
    assert summary.tissue_mm2 > 950


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
