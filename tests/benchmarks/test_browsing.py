"""Opening a slide and looking around in it, in a window each, beside napari-wsi; the first frame and the memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = 3
PROGRAM = Path(__file__).with_name("browse.py")
PEER = "napari-wsi"


@pytest.mark.viewer
def test_opening_and_browsing_beside_napari_wsi(slides_dir, build, bench):
    names = ("first_frame_vs_napari_wsi", "browse_rate_vs_napari_wsi", "browse_memory_vs_napari_wsi")
    python = build / "peers" / PEER / "bin" / "python"
    if not python.exists():
        for name in names:
            bench.missing(name, f"{PEER} is not installed in build/peers: make bench", target=1)
        pytest.skip(f"no {PEER}")
    slide = slides_dir / "crc-section-pyramid.tiff"
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(browse(sys.executable, "histodistill", slide))
        theirs.append(browse(python, PEER, slide))
        print(f"\nhistodistill {ours[-1]}\n{PEER} {theirs[-1]}", flush=True)
    assert all(said["frames"] == ours[0]["frames"] and said["shown_at_once"] > 0.9 for said in ours + theirs)
    for name, key in zip(names, ("first_frame_s", "browse_s", "peak_mb"), strict=True):
        bench.add(name, [their[key] / our[key] for our, their in zip(ours, theirs, strict=True)], target=1)
    bench.add("browse_peak_mb", [said["peak_mb"] for said in ours], unit="MB")


def browse(python, reader, slide) -> dict:
    """What `browse.py` says, from a process of its own without pytest's settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [python, PROGRAM, reader, slide], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
