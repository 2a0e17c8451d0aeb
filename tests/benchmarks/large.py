"""A slide through the loop in a window: open, tissue, teacher, strokes, one round. ``python large.py SLIDE FOLDER``.

A program of its own, so that nothing else counts in its memory; prints one line of JSON with peaks in MB.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import napari
from sparse_slide import UM

from napari_histodistill.viewer.geometry import camera_of
from walkthrough.hand import Hand
from walkthrough.story import NORMAL, TUMOUR, Plan, Story
from walkthrough.watchdog import MemoryGauge, Watchdog

TISSUE_UM = 1200
"""A place inside the tissue, along both axes."""


def main(slide: Path, folder: Path) -> None:
    os.environ["HISTODISTILL_CACHE"] = str(folder / "cache")
    beside = folder / slide.name  # its study lies beside it
    beside.symlink_to(slide)
    viewer = napari.Viewer()
    watchdog, gauge = Watchdog(), MemoryGauge()
    Hand(viewer).window.resize(1600, 1000)
    plan = Plan(
        slide=beside,
        zoom=((0.5, 0.5), 1),
        before=[(TUMOUR, [(0.5, 0.45), (0.55, 0.45)]), (NORMAL, [(0.5, 0.6), (0.55, 0.6)])],
        meanwhile=[(TUMOUR, [(0.45, 0.5), (0.5, 0.5)])],
        rounds=1,
        epochs=1,
        tiles=24,
        patience_s=1500,
    )
    story = Story(viewer, plan, folder / "pictures", watchdog)
    story.open_and_find_tissue()
    story.run_teacher()
    camera_of(viewer).center, camera_of(viewer).zoom = (TISSUE_UM, TISSUE_UM), 0.1 / UM
    story.correct()
    story.distil()
    gauge.stop()
    watchdog.stop()
    said = {"process_mb": gauge.process / 2**20, "children_mb": gauge.children / 2**20}
    print(json.dumps(said | {"rounds": len(story.view.distil.history.rounds)}), flush=True)
    viewer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
