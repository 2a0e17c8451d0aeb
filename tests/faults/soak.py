"""Opens, teaches, paints, distils, exports and closes, over and over in one process: what does not come back?

``python tests/faults/soak.py --minutes 5`` prints one line of JSON. A resource is what the process holds after a cycle
that began and ended with nothing open; the first cycles warm caches up and are not counted.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
import child
from harness import RECIPE, begin_study, draw_slide, plain_teacher

from napari_histodistill.distill import StudyRequest, distill_study
from napari_histodistill.export import ExportRequest, run_export
from napari_histodistill.jobs import InlineControl, ProcessJob
from napari_histodistill.predict import PredictRequest, predict_slide
from napari_histodistill.study import Study

WARM_UP = 4
FORMATS = ("ome-zarr", "ome-tiff", "geojson", "png", "csv")


def cycle(folder: Path, slide: Path, teacher: Path, seed: int, *, children: bool) -> None:
    """One piece of work from opening to closing; with ``children``, a round in a child process, as in the viewer."""
    study = folder / "study"
    if seed % 2:
        begin_study(study, slide)
    else:
        predict_slide(PredictRequest(slide, study, model=str(teacher), threads=1), InlineControl())
    session = child.Session(slide, study)
    rng = random.Random(seed)
    for _ in range(8):
        session.stroke(rng)
        session.loop.run(0.03)
    session.loop.run(20, lambda: session.result.all_saved)
    session.close()
    if children:
        request = StudyRequest(
            study, str(teacher), rounds=1, epochs=1, recipe=RECIPE, most_tiles=2, device="cpu", threads=1
        )
        ProcessJob(distill_study, request).wait()
    (entry,) = Study.open(study).slides()
    run_export(ExportRequest(entry.folder, FORMATS, "pseudo"), InlineControl())
    shutil.rmtree(study)


def held() -> dict[str, Any]:
    """What the process holds now."""
    gc.collect()
    process = psutil.Process()
    return {
        "memory_mb": round(process.memory_info().rss / 1e6, 1),
        "threads": threading.active_count(),
        "os_threads": process.num_threads(),
        "children": len(process.children(recursive=True)),
        "files": process.num_fds() if hasattr(process, "num_fds") else len(process.open_files()),
        "objects": len(gc.get_objects()),
    }


def soak(minutes: float, distil_every: int) -> dict[str, Any]:
    """Work for so long; what is held after the warm-up, at the end, and how memory grew a cycle (slope of a line)."""
    end, marks = time.monotonic() + 60 * minutes, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HISTODISTILL_CACHE"] = str(folder / "cache")
        slide, teacher = draw_slide(folder / "small.tiff"), plain_teacher(folder / "teacher")
        while time.monotonic() < end or len(marks) < WARM_UP + 3:
            number = len(marks)
            cycle(folder, slide, teacher, number, children=number % distil_every == 1)
            marks.append(held())
    counted = marks[WARM_UP:]
    memory = [mark["memory_mb"] for mark in counted]
    slope = float(np.polyfit(np.arange(len(memory)), memory, 1)[0])
    return {
        "cycles": len(marks),
        "warm_up": WARM_UP,
        "minutes": round(minutes, 1),
        "begin": counted[0],
        "end": counted[-1],
        "memory_mb_a_cycle": round(slope, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--distil-every", type=int, default=4, help="cycles")
    options = parser.parse_args()
    figures = soak(options.minutes, options.distil_every)
    print(json.dumps(figures))
    begin, end = figures["begin"], figures["end"]
    sys.exit(any(end[name] > begin[name] for name in ("threads", "children", "files")))


if __name__ == "__main__":
    main()
