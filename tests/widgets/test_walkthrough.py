"""The whole loop with the mouse on a small generated slide; ``make walkthrough`` is its long form, with figures."""

from __future__ import annotations

import threading

import psutil
import pytest

from napari_histodistill.slide.synthetic import draw_slide, write_slide
from walkthrough.story import NORMAL, TUMOUR, Plan, Story
from walkthrough.watchdog import Watchdog

pytestmark = pytest.mark.viewer


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "small.tiff"
    write_slide(draw_slide((1536, 2048)), path)
    return Plan(
        slide=path,
        zoom=((0.5, 0.5), 1),
        before=[(TUMOUR, [(0.40, 0.45), (0.43, 0.47)]), (NORMAL, [(0.55, 0.5), (0.58, 0.52)])],
        meanwhile=[(NORMAL, [(0.45, 0.55), (0.48, 0.56)])],
        rounds=1,
        epochs=1,
        tiles=20,
        patience_s=300,
    )


def at_work():
    """Threads of background work, and child processes that have not ended."""
    threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("histodistill")}
    children = psutil.Process().children(recursive=True)
    return threads | {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}


def test_the_loop_keeps_corrections_says_what_it_shows_and_leaves_nothing_behind(make_napari_viewer, plan, tmp_path):
    before = at_work()
    viewer, watchdog = make_napari_viewer(show=True), Watchdog()
    story = Story(viewer, plan, tmp_path / "pictures", watchdog)
    story.tell()
    assert story.figures["corrected_pixels"] > 100
    assert story.figures["corrected_pixels_changed"] == 0
    round_1 = "prediction: round 1, unverified"
    assert story.titles[-3:] == [round_1, f"{round_1} (pinned)", round_1]
    assert set(story.titles[:-3]) <= {"preview of round 1 (still learning)"}  # a quick round leaves no time to see it

    panel = story.panel("Distil")
    story.hand.click(panel.start_button)
    story.hand.wait(lambda: at_work() - before, 30, "the next round to begin")
    viewer.close()
    story.hand.wait(lambda: not at_work() - before, 30, "threads and processes to end")
    watchdog.stop()
