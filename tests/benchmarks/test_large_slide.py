"""A slide of 100,000 x 80,000 px through open, tissue, teacher, painting and a round in a window: its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sparse_slide import sparse_slide

HERE = Path(__file__).parent


@pytest.mark.viewer
def test_the_loop_on_a_large_slide(build, tmp_path, bench):
    slide = sparse_slide(build, 80_000, 100_000, side=7168)  # 3 mm² of tissue
    paths = [str(HERE), str(HERE.parents[1] / "scripts"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, HERE / "large.py", slide, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["rounds"] == 1
    bench.add("peak_rss_mb_100k_napari", [said["process_mb"]], target=3000, unit="MB")
    bench.add("peak_rss_mb_100k_child", [said["children_mb"]], target=2500, unit="MB")
