"""``make pictures``: the story without measurements, for the documentation; every dock in both themes, small screen.

Chosen pictures are made small and put into ``docs/images``; all of them lie in ``build/pictures`` to be looked at.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import napari
from PIL import Image

from napari_histodistill.export import export_slide
from napari_histodistill.study import Study
from napari_histodistill.viewer.look import Look
from walkthrough.__main__ import SMALL, _plan
from walkthrough.story import NORMAL, PANELS, TUMOUR, Plan, Story
from walkthrough.watchdog import Watchdog

DOCS: Final = Path(__file__).parents[2] / "docs" / "images"
SCREEN: Final = (1366, 840)
MOST_BYTES: Final = 240_000
CHOSEN: Final = (
    "slide", "tissue", "teacher", "corrected", "distil", "painting-on", "difference", "pinned", "exported",
    "prediction",
)  # fmt: skip
THEMES: Final = ("dark", "light")
LARGE_PT: Final = 14


def main() -> None:
    """Tell the story on the generated slide, look around, and keep the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/pictures"))
    parser.add_argument("--only-docks", action="store_true", help="No story, so no picture for the docs.")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    with tempfile.TemporaryDirectory(prefix="pictures-") as work:
        os.environ["HISTODISTILL_CACHE"] = f"{work}/cache"
        os.environ["HISTODISTILL_CONFIG"] = f"{work}/config"
        _take(Path(work), out, story_too=not arguments.only_docks)


def _take(work: Path, out: Path, *, story_too: bool) -> None:
    plan = _sensible(work)
    viewer = napari.Viewer()
    watchdog = Watchdog()
    story = Story(viewer, plan, out, watchdog)
    story.hand.window.resize(*SCREEN)
    story.hand.pause(1)
    if story_too:
        story.tell()
        _prediction_alone(story)
        for picture in story.pictures:
            name = picture.stem.partition("-")[2]
            if name in CHOSEN:
                shrink(picture, DOCS / "tutorial" / f"{name}.jpg")
        study = Study.open(story.view.teacher.study_folder)
        overlay = export_slide(study.slides()[0], ("png",), work)["png"]
        shrink(overlay, DOCS / "tutorial" / "mask.jpg", width=900)
    look_around(story)
    watchdog.stop()
    viewer.close()


def _sensible(work: Path) -> Plan:
    """The plan of the generated slide with strokes that a person would make: tumour on tumour, normal on glands."""
    plan = _plan("generated", work)
    assert plan is not None
    return replace(
        plan,
        before=[
            (TUMOUR, [(0.57, 0.36), (0.60, 0.37), (0.63, 0.36), (0.66, 0.38)]),
            (NORMAL, [(0.73, 0.45), (0.74, 0.48), (0.74, 0.51)]),
            (NORMAL, [(0.20, 0.30), (0.22, 0.33), (0.23, 0.36), (0.23, 0.40)]),
        ],
        meanwhile=[
            (TUMOUR, [(0.78, 0.30), (0.80, 0.28), (0.83, 0.29)]),
            (NORMAL, [(0.30, 0.70), (0.33, 0.70), (0.36, 0.71)]),
        ],
    )


def _prediction_alone(story: Story) -> None:
    """The Distil dock with the prediction, the mask hidden, the whole slide in view."""
    panel = story.panel("Distil")
    panel.verticalScrollBar().setValue(0)
    story.hand.viewer.reset_view()
    story.hand.click(panel.looks[Look.PREDICTION])
    panel.verticalScrollBar().setValue(0)
    story.picture("prediction")


def look_around(story: Story) -> None:
    """Every dock from top to bottom in both themes in a laptop's window, then with larger letters."""
    from napari.settings import get_settings

    hand, before = story.hand, get_settings().appearance.font_size
    hand.window.resize(*SMALL)
    for theme in THEMES:
        hand.viewer.theme = theme
        for name in PANELS:
            panel = story.panel(name)
            bar = panel.verticalScrollBar()
            for part, at in enumerate(sorted({bar.minimum(), bar.maximum()})):
                bar.setValue(at)
                story.picture(f"{theme}-{name.lower()}-{part + 1}")
    hand.viewer.theme = "dark"
    get_settings().appearance.font_size = LARGE_PT
    for name in PANELS:
        story.panel(name).verticalScrollBar().setValue(0)
        story.picture(f"large-{name.lower()}")
    get_settings().appearance.font_size = before


def shrink(picture: Path, to: Path, width: int = 1100) -> None:
    """A picture as a JPEG of at most `MOST_BYTES`, in full colour: few colours would lose the masks'."""
    image = Image.open(picture).convert("RGB")
    image.thumbnail((width, width), Image.Resampling.LANCZOS)
    to.parent.mkdir(parents=True, exist_ok=True)
    for quality in (88, 82, 75, 68, 60):
        image.save(to, quality=quality, subsampling=0, optimize=True)
        if to.stat().st_size <= MOST_BYTES:
            return
    raise ValueError(f"{to.name} has {to.stat().st_size} bytes at quality {quality}: make it narrower.")


if __name__ == "__main__":
    main()
