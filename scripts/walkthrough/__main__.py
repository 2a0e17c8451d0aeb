"""``make walkthrough``: the story on the generated slide and, where the shared data is, on a real one."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import napari

from napari_histodistill.slide import open_slide
from napari_histodistill.slide.grid import WorkingGrid
from walkthrough.bare import BARE, beyond_bare, longest_holds
from walkthrough.beside import SIZE, bare_holds, painting
from walkthrough.docks import PANELS
from walkthrough.hand import Hand
from walkthrough.story import NORMAL, TUMOUR, Plan, Story
from walkthrough.watchdog import MemoryGauge, Watchdog

SMALL = (1366, 768)
REAL = "crc-section-pyramid.tiff"


def main() -> None:
    """Go through the plans that there are slides for, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/walkthrough"))
    parser.add_argument("--only", choices=["generated", "real"])
    parser.add_argument("--without-strokes", action="store_true", help="leave the strokes on a large grid out")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    for name in ("generated", "real"):
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="walkthrough-") as work:
                os.environ["HISTODISTILL_CACHE"] = f"{work}/cache"
                plan = _plan(name, Path(work))
                if plan is None:
                    print(f"No {REAL}: set HISTODISTILL_DATA to the folder of the shared data.")
                    continue
                folder = out if name == "generated" else out / name
                figures = walk(plan, folder, Path(work), strokes=not arguments.without_strokes)
                (folder / "walkthrough.json").write_text(json.dumps(figures, indent=1) + "\n")
                print(name, json.dumps({k: v for k, v in figures.items() if k != "blocks"}, indent=1))


def _plan(name: str, work: Path) -> Plan | None:
    """What is done on a slide; a copy, so that its study lies beside it in a folder that is thrown away."""
    if name == "generated":
        from napari_histodistill.slide.synthetic import draw_slide, write_slide

        path = work / "generated.tiff"
        write_slide(draw_slide(), path)
        return Plan(
            slide=path,
            zoom=((0.45, 0.5), 3),
            before=[
                (TUMOUR, [(0.40, 0.40), (0.42, 0.42), (0.44, 0.43), (0.46, 0.43)]),
                (NORMAL, [(0.20, 0.30), (0.22, 0.33), (0.23, 0.36), (0.23, 0.40)]),
                (NORMAL, [(0.70, 0.70), (0.72, 0.72), (0.75, 0.72)]),
            ],
            meanwhile=[
                (TUMOUR, [(0.50, 0.52), (0.52, 0.54), (0.54, 0.55)]),
                (NORMAL, [(0.30, 0.70), (0.33, 0.70), (0.36, 0.71)]),
            ],
            rounds=2,
            epochs=2,
            tiles=80,
        )
    data = Path(os.environ.get("HISTODISTILL_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (data / "slides" / REAL).is_file():
        return None
    path = work / REAL
    shutil.copyfile(data / "slides" / REAL, path)
    generated = _plan("generated", work)
    assert generated is not None
    on_tissue = [
        (TUMOUR, [(0.52, 0.76), (0.54, 0.78), (0.56, 0.80)]),
        (NORMAL, [(0.30, 0.28), (0.32, 0.30), (0.34, 0.32)]),
        (NORMAL, [(0.76, 0.26), (0.78, 0.28), (0.80, 0.30)]),
    ]
    meanwhile = [
        (TUMOUR, [(0.47, 0.70), (0.48, 0.72), (0.49, 0.74)]),
        (NORMAL, [(0.20, 0.36), (0.22, 0.36), (0.24, 0.35)]),
    ]
    return replace(generated, slide=path, before=on_tissue, meanwhile=meanwhile, rounds=1, epochs=None, tiles=None)


def walk(plan: Plan, out: Path, work: Path, *, strokes: bool = True) -> dict[str, Any]:
    """Go through a plan, measure beside it, write the pictures; gives what was measured."""
    started = time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    with open_slide(plan.slide) as slide:
        holds_of_bare = bare_holds(plan, WorkingGrid.for_slide(slide, 3.0).shape)
    viewer = napari.Viewer()
    hand, watchdog, gauge = Hand(viewer), Watchdog(), MemoryGauge()
    watchdog.holds += holds_of_bare
    hand.window.resize(*SIZE)
    hand.pause(1)
    alone: dict[str, Any] = {}
    beside: dict[str, Any] = {}

    def measure() -> None:
        with gauge.held(), watchdog.doing("measure"):
            beside.update(painting(hand, work / "beside", prediction=True))
            beside["learnt_all_the_time"] = story.view.distil.state.busy

    story = Story(viewer, replace(plan, while_learning=measure if strokes else None), out, watchdog)
    try:
        story.tell()
        _look_around(story)
    finally:
        if story.pictures:
            story.picture("end")
    if strokes:
        with gauge.held(), watchdog.doing("measure"):
            alone = painting(hand, work / "alone", prediction=False)
    viewer.close()
    hand.pause(2)
    watchdog.stop()
    gauge.stop()
    holds = sorted(
        (h for h in watchdog.holds if h.activity != "measure" and not h.activity.startswith(BARE)),
        key=lambda h: -h.seconds,
    )
    blocks, cpu_blocks = beyond_bare(watchdog), beyond_bare(watchdog, cpu=True)
    return {
        "slide": plan.slide.name,
        "paint_ratio_p95": alone.get("ratio_p95"),
        "paint_ratio_p95_while_distilling": beside.get("ratio_p95"),
        "max_block_ms": max(blocks.values()),
        "max_block_cpu_ms": max(cpu_blocks.values()),
        "first_refresh_s": story.figures.pop("first_refresh_s"),
        "rounds_promoted": story.figures.pop("rounds_promoted"),
        "corrected_pixels_changed": story.figures.pop("corrected_pixels_changed"),
        "peak_rss_mb": gauge.together / 2**20,
        "peak_rss_process_mb": gauge.process / 2**20,
        "peak_rss_children_mb": gauge.children / 2**20,
        **story.figures,
        "titles": story.titles,
        "block_ms_beyond_bare": blocks,
        "block_cpu_ms_beyond_bare": cpu_blocks,
        "longest_ms": longest_holds(watchdog),
        "longest_cpu_ms": longest_holds(watchdog, cpu=True),
        "painting": {"alone": alone, "while_distilling": beside},
        "load_average": os.getloadavg(),
        "seconds": time.monotonic() - started,
        "blocks": [asdict(hold) for hold in holds[:25]],
    }


def _look_around(story: Story) -> None:
    """Every dock in a laptop's window, and the Distil dock on napari's light theme."""
    window = story.hand.window
    window.resize(*SMALL)
    for name in PANELS:
        story.panel(name)
        story.picture(f"small-{name.lower()}")
    window.resize(*SIZE)
    with story.watchdog.doing("theme"):
        story.hand.viewer.theme = "light"
        story.hand.pause(1)
    panel = story.panel("Distil")
    story.picture("light-distil")
    story.hand.reveal(panel.pin_button)
    story.picture("light-history")
    with story.watchdog.doing("theme"):
        story.hand.viewer.theme = "dark"
        story.hand.pause(1)


if __name__ == "__main__":
    main()
