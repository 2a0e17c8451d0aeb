"""Levels that a file lacks: planned, shown blurred, computed once, kept on disk."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_histodistill.slide import SlideError, added_levels, open_slide
from napari_histodistill.slide.levels import plan_levels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Picture = np.ndarray


class CancelledError(Exception):
    """What a control raises."""


class Recorder:
    """A control that hears everything and cancels after a number of steps."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.cancel_after = cancel_after

    def progress(self, done: int, total: int, message: str = "", payload: Any = None) -> None:
        self.steps.append((done, total))

    def checkpoint(self) -> None:
        if self.cancel_after is not None and len(self.steps) >= self.cancel_after:
            raise CancelledError


@pytest.fixture(scope="module")
def one_level(
    tmp_path_factory: pytest.TempPathFactory, make_picture: Callable[..., Picture], write_tiff: Callable[..., Path]
) -> Path:
    """One level of 2,900 x 4,700 px."""
    return write_tiff(tmp_path_factory.mktemp("one") / "one.tiff", [make_picture(2900, 4700)], tile=256)


@pytest.fixture(scope="module")
def jump(
    tmp_path_factory: pytest.TempPathFactory, make_picture: Callable[..., Picture], write_tiff: Callable[..., Path]
) -> Path:
    """Two levels with a jump of 16 between them."""
    full = make_picture(2048, 2400)
    small = full.reshape(128, 16, 150, 16, 3).mean((1, 3)).astype(np.uint8)
    return write_tiff(tmp_path_factory.mktemp("jump") / "jump.tiff", [full, small])


@pytest.mark.parametrize(
    ("stored", "planned"),
    [
        ([(900, 1200)], [True]),
        ([(2900, 4700)], [True, False]),
        ([(80_000, 100_000)], [True, False, False, False]),
        ([(40_000, 60_000), (10_000, 15_000), (2500, 3750), (1250, 1875)], [True] * 4),
        ([(32_000, 32_000), (2000, 2000)], [True, False, True]),
        ([(64_000, 64_000), (2000, 2000)], [True, False, False, True]),
        ([(10_000, 10_000), (2488, 2488)], [True, True, False]),
    ],
)
def test_levels_are_added_where_the_file_jumps(stored: list[tuple[int, int]], planned: list[bool]) -> None:
    levels = plan_levels(stored)
    assert [level.stored for level in levels] == planned
    sides = [max(level.shape) for level in levels]
    assert all(fine / coarse <= 5 for fine, coarse in itertools.pairwise(sides))
    assert sides[-1] <= 2048


def test_added_levels_are_background_then_the_picture(one_level: Path) -> None:
    with open_slide(one_level) as slide:
        (level,) = [number for number, level in enumerate(slide.levels) if not level.stored]
        shape = slide.levels[level].shape
        assert (slide.read_level(level, 0, 0, *shape) == 255).all()
        assert not slide.added_levels_complete
        control = Recorder()
        slide.build_added_levels(control)
        assert slide.added_levels_complete
        assert control.steps[-1][0] == control.steps[-1][1] == len(control.steps) == 6
        shown = slide.read_level(level, 0, 0, *shape)
        wanted = slide.read_resampled(shape, 0, 0, *shape)
        assert np.abs(shown.astype(int) - wanted).mean() < 3.5, "but for compression"
        assert np.abs(shown.astype(int) - wanted).max() < 40
        np.testing.assert_array_equal(slide.pyramid()[level][:], shown)


def test_the_next_coarser_level_is_shown_meanwhile(jump: Path) -> None:
    with open_slide(jump) as slide:
        assert [level.stored for level in slide.levels] == [True, False, True]
        shape = slide.levels[1].shape
        wanted = slide.read_resampled(shape, 0, 0, *shape).astype(int)
        blurred = slide.read_level(1, 0, 0, *shape)
        assert 8 < np.abs(blurred - wanted).mean() < 25
        slide.build_added_levels()
        assert np.abs(slide.read_level(1, 0, 0, *shape) - wanted).mean() < 3.5


def test_the_files_own_thumbnail_is_shown_meanwhile(slides_dir: Path) -> None:
    with open_slide(slides_dir / "CMU-1-Small-Region.svs") as slide:
        shape = slide.levels[1].shape
        meanwhile = slide.read_level(1, 0, 0, *shape).astype(int)
        assert np.abs(meanwhile - slide.read_resampled(shape, 0, 0, *shape)).mean() < 12


def test_tiles_are_computed_at_most_once(one_level: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(one_level) as slide:
        slide.build_added_levels()
    with open_slide(one_level) as slide:
        assert slide.added_levels_complete, "another session finds them"
        monkeypatch.setattr(slide._source, "read_tile", lambda *_: pytest.fail("level 0 was read again"))
        slide.build_added_levels()
        assert slide.read_level(1, 0, 0, 10, 10).shape == (10, 10, 3)


def test_cancelled_computation_keeps_its_tiles_and_goes_on(one_level: Path) -> None:
    with open_slide(one_level) as slide:
        with pytest.raises(CancelledError):
            slide.build_added_levels(Recorder(cancel_after=2))
        assert not slide.added_levels_complete
        done = {path for path in slide._added._folder.iterdir() if path.suffix == ".jpg"}
        assert len(done) >= 2
        stamps = {path: path.stat().st_mtime_ns for path in done}
        time.sleep(0.01)
        slide.build_added_levels()
        assert slide.added_levels_complete
        assert {path: path.stat().st_mtime_ns for path in done} == stamps
        assert not list(slide._added._folder.glob("*.partial"))


def test_two_processes_can_compute_the_same_slide(one_level: Path, own_cache: Path) -> None:
    code = (
        "from napari_histodistill.slide import open_slide\n"
        f"with open_slide({str(one_level)!r}) as slide:\n"
        "    slide.build_added_levels()\n"
        "    print(int(slide.read_level(1, 0, 0, 700, 1000).astype('u8').sum()))\n"
    )
    env = {**os.environ, "HISTODISTILL_CACHE": str(own_cache)}
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env) for _ in range(2)]
    sums = [process.communicate()[0] for process in both]
    assert sums[0] == sums[1] != b""
    assert not list(own_cache.rglob("*.partial"))


def test_cache_that_cannot_be_written_is_said_in_one_sentence(
    one_level: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "file"))
    with open_slide(one_level) as slide, pytest.raises(SlideError, match="HISTODISTILL_CACHE"):
        slide.build_added_levels()


def test_least_recently_used_slides_make_room(tmp_path: Path) -> None:
    now = time.time()
    for name, age in (("old", 9000), ("older", 99_000), ("recent", 60), ("kept", 999_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0-0-0.jpg").write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (now - age, now - age))
    added_levels.prune(tmp_path, keep=tmp_path / "kept", limit=300)
    assert {entry.name for entry in tmp_path.iterdir()} == {"old", "recent", "kept"}
    added_levels.prune(tmp_path, keep=tmp_path / "kept", limit=0)
    assert {entry.name for entry in tmp_path.iterdir()} == {"recent", "kept"}


def test_overview_of_a_large_one_level_slide_builds_the_levels_once(
    one_level: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_histodistill.slide.slide._DIRECT_PIXELS", 10**6)
    with open_slide(one_level) as slide:
        control = Recorder()
        direct = slide.read_resampled((290, 470), 0, 0, 290, 470)
        shown = slide.thumbnail(470, control)
        assert control.steps
        assert slide.added_levels_complete
        assert np.abs(shown.astype(int) - direct).mean() < 3
