"""Long changes go on between pieces and come to their end, also when the slide is closed in the middle."""

from __future__ import annotations

import time

import pytest

from napari_histodistill.viewer import pacing
from napari_histodistill.viewer.pacing import Pacer


def slow(steps):
    for step in range(steps):
        time.sleep(0.002)
        yield step


@pytest.fixture
def pacer(monkeypatch, new_runner):
    monkeypatch.setattr(pacing, "SLICE_S", 0.005)
    shown, runner = [], new_runner()
    pacer = Pacer(runner, shown.append)
    pacer.shown, pacer.timer = shown, runner.timers[-1]
    return pacer


def test_a_short_change_is_done_at_once(pacer):
    done = []
    pacer.run(iter([1, 2]), lambda: done.append(True))
    assert (pacer.shown, done, pacer.busy) == ([1, 2], [True], False)


def test_a_long_one_comes_in_pieces_and_the_next_waits(pacer):
    pacer.run(slow(20))
    assert 0 < len(pacer.shown) < 20
    pacer.run(iter(["after"]))
    assert pacer.timer.active
    while pacer.busy:
        pacer.timer.function()
    assert pacer.shown == [*range(20), "after"]


def test_finish_brings_everything_to_its_end(pacer):
    pacer.run(slow(20))
    pacer.run(iter(["after"]))
    pacer.finish()
    assert pacer.shown == [*range(20), "after"]


def test_one_that_fails_does_not_hold_up_the_next(pacer):
    def failing():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        pacer.run(failing())
    pacer.run(iter([2]))
    assert pacer.shown == [1, 2]
