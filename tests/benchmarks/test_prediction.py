"""What tiling costs, that reading and writing hide behind computing, and that memory does not grow with the slide.

``make bench`` prints the figures; the bounds are ratios of measurements side by side in one run.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_histodistill.jobs import InlineControl
from napari_histodistill.nets import load_model
from napari_histodistill.predict import PredictRequest, mask_from_probability, predict_slide
from napari_histodistill.predict.engine import torch_threads
from napari_histodistill.predict.predict import tissue_tiles
from napari_histodistill.predict.tiling import Tiling
from napari_histodistill.slide import open_slide
from napari_histodistill.study import Study

PREDICT = """
import resource, sys
from pathlib import Path
from napari_histodistill.jobs import InlineControl
from napari_histodistill.predict import PredictRequest, predict_slide
predict_slide(PredictRequest(Path(sys.argv[1]), Path(sys.argv[2]), threads=1), InlineControl())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak / (2**20 if sys.platform == "darwin" else 2**10))
"""


def write_sparse_slide(path: Path, height: int, width: int, side: int = 14_336) -> None:
    """A pyramid at 0.25 µm of glass with one square of stained texture: tiles are repeated, so it is quick to write."""
    rng = np.random.default_rng(0)
    shade = np.kron(rng.random((32, 32)), np.ones((16, 16)))[..., None]
    colour = (1 - shade) * np.array([225, 150, 190]) + shade * np.array([140, 80, 160])
    tissue = np.clip(colour + rng.normal(0, 8, (512, 512, 1)), 0, 255).astype(np.uint8)
    glass = np.full((512, 512, 3), 243, np.uint8)

    def tiles(factor):
        for y in range(0, height // factor, 512):
            for x in range(0, width // factor, 512):
                inside = all(2048 <= factor * value < 2048 + side for value in (y, x))
                yield tissue if inside else glass

    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for factor in (1, 4, 16, 64):
            tif.write(
                tiles(factor),
                shape=(height // factor, width // factor, 3),
                dtype=np.uint8,
                tile=(512, 512),
                photometric="rgb",
                compression="jpeg",
                resolution=(1e4 / (0.25 * factor),) * 2,
                resolutionunit="CENTIMETER",
                subfiletype=int(factor > 1),
            )


@pytest.mark.skipif(sys.platform == "win32", reason="measures with the resource module")
def test_peak_memory_does_not_grow_with_the_slide(tmp_path):
    peaks = {}
    for height, width in [(20_000, 20_000), (80_000, 100_000)]:
        path = tmp_path / f"{width}.tiff"
        write_sparse_slide(path, height, width)
        command = [sys.executable, "-c", PREDICT, path, tmp_path / f"study-{width}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[height * width] = float(output)
        print(f"\n{width} x {height} px: peak {peaks[height * width]:.0f} MB resident")
    small, large = peaks.values()
    assert large < 1.35 * small
    assert large < 1500


def test_a_run_costs_little_more_than_its_forward_passes(slides_dir, tmp_path):
    request = PredictRequest(slides_dir / "crc-section-pyramid.tiff", tmp_path / "study", threads=1)
    model = load_model("bundled", "cpu")
    start = time.perf_counter()
    summary = predict_slide(request, InlineControl(), model)
    whole = time.perf_counter() - start
    (entry,) = Study.open(request.study_folder).slides()
    tiling = Tiling.for_model(entry.grid.shape, entry.grid.pixel_size_um[0], model.card.mpp, model.card.margin)
    window = tiling.tile_window(tiling.count // 2).scaled(tiling.factor)
    with open_slide(request.slide_path) as slide, torch_threads(1):
        tile = slide.read_resampled(tiling.input_shape, *window)[None]
        start = time.perf_counter()
        for _ in range(3):
            model.predict(tile)
        per_px = (time.perf_counter() - start) / 3 / tile[0, ..., 0].size
    tiles = tissue_tiles(tiling, entry.tissue_on_grid())
    input_px = sum(math.prod(tiling.tile_window(index).scaled(tiling.factor)[2:]) for index in tiles)
    tissue_px = 1e6 * summary.tissue_mm2 / model.card.mpp**2
    print(f"\n{summary.tiles} tiles in {whole:.1f} s, {whole / (per_px * input_px):.2f} times the model alone on them")
    print(f"the model: {per_px * 1e6:.2f} s per million px; {input_px / tissue_px:.1f} px read per px of tissue")
    assert whole < 2 * per_px * input_px


def test_smoothing_skips_what_no_threshold_can_change():
    rng = np.random.default_rng(0)
    tissue = np.ones((4096, 4096), np.uint8)
    clear = np.zeros_like(tissue)
    clear[1500:2100, 1500:2100] = 255
    unclear = rng.integers(0, 256, tissue.shape).astype(np.uint8)
    seconds = []
    for probability in (clear, unclear):
        start = time.perf_counter()
        mask_from_probability(probability, tissue, 0.5, 6.0, (2.0, 2.0))
        seconds.append(time.perf_counter() - start)
    print(f"\nmask of 4096 x 4096 px, sigma 3 px: clear {seconds[0]:.2f} s, undecided everywhere {seconds[1]:.2f} s")
    assert seconds[0] < 0.5 * seconds[1]
