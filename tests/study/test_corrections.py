"""Corrections outlive crashes, damage and full disks, and say where they come from."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from napari_histodistill.slide.labels import IGNORE, NORMAL, TUMOUR
from napari_histodistill.study import (
    NO_CORRECTION,
    Entry,
    Patch,
    StudyError,
    StudySlide,
    compaction,
    corrections,
    journal,
    timeline,
)
from napari_histodistill.study.compaction import Compacted
from napari_histodistill.study.pyramid import Pyramid


def stroke(number: int) -> tuple[int, int, np.ndarray]:
    """The stroke of this number: a window that overlaps those of others, of one value."""
    rng = np.random.default_rng(number)
    height, width = rng.integers(3, 300, 2)
    return int(rng.integers(0, 600)), int(rng.integers(0, 400)), np.full((height, width), rng.integers(4), np.uint8)


def after(strokes: int, shape: tuple[int, int]) -> np.ndarray:
    """The corrections once so many strokes were made."""
    out = np.full(shape, NO_CORRECTION, np.uint8)
    for number in range(strokes):
        y, x, block = stroke(number)
        out[y : y + block.shape[0], x : x + block.shape[1]] = block
    return out


def paint(entry: StudySlide, strokes: int, start: int = 0) -> None:
    for number in range(start, strokes):
        y, x, block = stroke(number)
        entry.save_corrections_region(y, x, block, tool="brush")


def whole(entry: StudySlide) -> np.ndarray:
    return entry.all_corrections()[:, :]


@pytest.fixture
def often(monkeypatch):
    """The array is brought up to date after every third stroke."""
    monkeypatch.setattr(corrections, "PENDING_LIMIT", 2)


def test_what_was_set_is_read_back_whether_or_not_it_reached_the_array(entry, often):
    assert entry.corrections() is None
    for strokes in range(1, 8):
        paint(entry, strokes, strokes - 1)
        np.testing.assert_array_equal(whole(entry), after(strokes, entry.grid.shape))
    entry.all_corrections().compact()
    array = Pyramid(entry.folder / "corrections.ome.zarr").levels[0][:]
    np.testing.assert_array_equal(array, after(7, entry.grid.shape))
    assert entry.corrections().read(5, 7, 90, 80).shape == (90, 80)
    np.testing.assert_array_equal(entry.corrections().levels[0][:], array)


def test_strokes_that_are_brought_into_the_array_while_it_is_read_are_not_undone(entry, monkeypatch):
    entry.save_corrections_region(0, 0, np.full((9, 9), TUMOUR, np.uint8))
    reader, writer = entry.all_corrections(), entry.all_corrections()
    plain = compaction.Compacted.window

    def meanwhile(self, *window: int) -> np.ndarray | None:
        if self is reader._compacted:
            entry.save_corrections_region(0, 0, np.full((9, 9), NORMAL, np.uint8))
            writer.compact()
        return plain(self, *window)

    monkeypatch.setattr(compaction.Compacted, "window", meanwhile)
    assert (reader.read(0, 0, 9, 9) == NORMAL).all()


KILLED = """
import sys
from pathlib import Path
from napari_histodistill.study import StudySlide, corrections
sys.path.insert(0, sys.argv[2])
from test_corrections import stroke
corrections.PENDING_LIMIT = 2
entry = StudySlide.open(Path(sys.argv[1]))
for number in range(int(sys.argv[3]), 100_000):
    y, x, block = stroke(number)
    entry.save_corrections_region(y, x, block, tool="brush")
    print(number + 1, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a signal")
def test_acknowledged_strokes_survive_a_kill_at_any_moment(entry, tmp_path):
    rng, acknowledged = random.Random(1), 0
    folder = str(Path(__file__).parent)
    for _ in range(6):
        command = [sys.executable, "-c", KILLED, str(entry.folder), folder, str(acknowledged)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            for _ in range(rng.randint(2, 8)):
                acknowledged = int(child.stdout.readline())
            threading.Event().wait(rng.uniform(0, 0.03))
            child.send_signal(signal.SIGKILL)
            acknowledged = int((child.stdout.read().split() or [acknowledged])[-1])
        found = whole(entry)
        survivors = [n for n in (acknowledged, acknowledged + 1) if np.array_equal(found, after(n, entry.grid.shape))]
        assert survivors, f"{acknowledged} strokes were acknowledged"
        acknowledged = survivors[0]
        entry.all_corrections().compact()
        np.testing.assert_array_equal(whole(entry), found)
    assert acknowledged > 8


@pytest.mark.parametrize("step", ["begin_anew", "forget_mark", "take_in"])
def test_whoever_reads_while_the_array_is_made_anew_misses_nothing(entry, monkeypatch, tmp_path, step):
    paint(entry, 5)
    expected, stop = after(5, entry.grid.shape), InterruptedError
    painter, plain = entry.all_corrections(), Compacted.window
    painter.compact()

    def then_mended(self, *window):
        monkeypatch.undo()
        finish = getattr(Compacted, step)

        def half_way(self, *args):
            if step != "take_in":
                finish(self, *args)
            raise stop

        with monkeypatch.context() as patch:
            patch.setattr(Compacted, step, half_way)
            with pytest.raises(stop):
                painter.mend(lambda path: None, lambda folder: folder.rename(tmp_path / "aside"))
        return plain(self, *window)

    monkeypatch.setattr(Compacted, "window", then_mended)
    np.testing.assert_array_equal(whole(entry), expected)
    np.testing.assert_array_equal(whole(entry), expected)


def test_a_crash_between_array_and_mark_applies_nothing_twice(entry, often, monkeypatch):
    paint(entry, 2)
    monkeypatch.setattr(compaction.Compacted, "write_mark", lambda self, mark: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        paint(entry, 3, 2)
    monkeypatch.undo()
    np.testing.assert_array_equal(whole(entry), after(3, entry.grid.shape))
    paint(entry, 6, 3)
    entry.all_corrections().compact()
    np.testing.assert_array_equal(whole(entry), after(6, entry.grid.shape))


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_journal_whose_end_is_missing_loses_the_last_stroke_only(entry, cut):
    paint(entry, 5)
    path = entry.folder / "corrections.journal"
    path.write_bytes(path.read_bytes()[:-cut])
    np.testing.assert_array_equal(whole(entry), after(4, entry.grid.shape))
    assert "cut short" in entry.all_corrections().problems()[0]
    paint(entry, 5, 4)
    np.testing.assert_array_equal(whole(entry), after(5, entry.grid.shape))
    assert entry.all_corrections().problems() == []


def test_a_journal_cut_behind_what_the_array_holds_goes_on(entry):
    paint(entry, 5)
    entry.all_corrections().compact()
    path = entry.folder / "corrections.journal"
    path.write_bytes(path.read_bytes()[:-30])
    np.testing.assert_array_equal(whole(entry), after(5, entry.grid.shape))
    paint(entry, 7, 5)
    np.testing.assert_array_equal(whole(entry), after(7, entry.grid.shape))
    sequences = [found.sequence for found in entry.all_corrections().entries().entries]
    assert sequences == [1, 2, 3, 4, 6, 7]


def test_any_flipped_byte_costs_one_stroke_at_most_and_is_told(entry):
    paint(entry, 4)
    path = entry.folder / "corrections.journal"
    sound = path.read_bytes()
    for position in range(0, len(sound), 17):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 0x55]) + sound[position + 1 :])
        found = entry.all_corrections().entries().entries
        assert len(found) >= 3
        assert entry.all_corrections().problems()
        assert whole(entry).shape == entry.grid.shape


def test_a_damaged_array_is_made_again_from_the_journal(entry):
    paint(entry, 6)
    entry.all_corrections().compact()
    for chunk in (entry.folder / "corrections.ome.zarr" / "0" / "c").rglob("*"):
        if chunk.is_file():
            data = bytearray(chunk.read_bytes())
            data[len(data) // 2] ^= 0xFF
            chunk.write_bytes(data)
    np.testing.assert_array_equal(whole(entry), after(6, entry.grid.shape))
    entry.all_corrections().rebuild()
    array = Pyramid(entry.folder / "corrections.ome.zarr").levels[0][:]
    np.testing.assert_array_equal(array, after(6, entry.grid.shape))


def test_an_array_without_its_head_is_made_again_when_more_is_added(entry, often):
    paint(entry, 3)
    (entry.folder / "corrections.ome.zarr" / "zarr.json").write_text("{")
    np.testing.assert_array_equal(whole(entry), after(3, entry.grid.shape))
    paint(entry, 6, 3)
    np.testing.assert_array_equal(whole(entry), after(6, entry.grid.shape))
    entry.all_corrections().compact()
    array = Pyramid(entry.folder / "corrections.ome.zarr").levels[0][:]
    np.testing.assert_array_equal(array, after(6, entry.grid.shape))


def test_a_stroke_in_the_journal_is_safe_though_the_array_cannot_be_written(entry, often, monkeypatch):
    def full(self, y, x, height, width):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Pyramid, "reduce", full)
    paint(entry, 5)
    np.testing.assert_array_equal(whole(entry), after(5, entry.grid.shape))
    with pytest.raises(StudyError, match="No correction is lost"):
        entry.all_corrections().compact()
    monkeypatch.undo()
    entry.all_corrections().compact()
    assert [e.sequence for e in entry.all_corrections().entries().entries] == [1, 2, 3, 4, 5]


def test_of_a_damaged_array_of_an_older_study_the_sound_tiles_are_kept(entry):
    array = Pyramid.create(
        entry.folder / "corrections.ome.zarr", entry.grid, "labels", name="corrections", fill=255, multiscale=False
    )
    array.write(0, 0, np.full((600, 700), TUMOUR, np.uint8))
    chunk = entry.folder / "corrections.ome.zarr" / "0" / "c" / "1" / "1"
    chunk.write_bytes(chunk.read_bytes()[:7])
    expected = np.full(entry.grid.shape, NO_CORRECTION, np.uint8)
    expected[:600, :700] = TUMOUR
    expected[256:512, 256:512] = NO_CORRECTION
    np.testing.assert_array_equal(whole(entry), expected)
    assert "1 damaged tile" in entry.all_corrections().problems()[0]
    entry.save_corrections_region(900, 0, np.full((5, 5), IGNORE, np.uint8))
    expected[900:905, :5] = IGNORE
    np.testing.assert_array_equal(whole(entry), expected)


def test_a_damaged_or_forged_mark_is_not_believed(entry):
    paint(entry, 6)
    entry.all_corrections().compact()
    path = entry.folder / "corrections.json"
    for text in ("{", path.read_text().replace('"sequence": 6', '"sequence": 9'), path.read_text()[:40]):
        path.write_text(text)
        np.testing.assert_array_equal(whole(entry), after(6, entry.grid.shape))
        entry.all_corrections().compact()
        np.testing.assert_array_equal(whole(entry), after(6, entry.grid.shape))


def test_a_full_disk_is_a_sentence_and_loses_nothing(entry, monkeypatch):
    paint(entry, 3)

    def full(handle, data):
        os.write(handle, bytes(data[: len(data) // 2]))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal, "write_all", full)
    with pytest.raises(StudyError, match="not saved yet"):
        paint(entry, 4, 3)
    np.testing.assert_array_equal(whole(entry), after(3, entry.grid.shape))
    monkeypatch.undo()
    paint(entry, 4, 3)
    np.testing.assert_array_equal(whole(entry), after(4, entry.grid.shape))
    assert entry.all_corrections().problems() == []


def test_a_folder_that_cannot_be_written_is_a_sentence_and_is_read_all_the_same(entry, monkeypatch):
    paint(entry, 3)

    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(corrections.FileLock, "_lock_patiently", refuse)
    with pytest.raises(StudyError, match=r"can be written.*not saved yet"):
        paint(entry, 4, 3)
    np.testing.assert_array_equal(whole(entry), after(3, entry.grid.shape))


def test_corrections_of_an_older_study_are_taken_over(entry):
    """An older version kept the array and nothing else."""
    array = Pyramid.create(
        entry.folder / "corrections.ome.zarr", entry.grid, "labels", name="corrections", fill=255, multiscale=False
    )
    y, x, block = stroke(0)
    array.write(y, x, block)
    np.testing.assert_array_equal(whole(entry), after(1, entry.grid.shape))
    paint(entry, 3, 1)
    np.testing.assert_array_equal(whole(entry), after(3, entry.grid.shape))
    entries = entry.all_corrections().entries().entries
    assert [found.kind for found in entries] == ["base", "set", "set"]
    assert len(timeline(entries)[0]) == 2
    entry.all_corrections().rebuild()
    np.testing.assert_array_equal(whole(entry), after(3, entry.grid.shape))
    assert {origin.tool for origin in entry.all_corrections().provenance(y, x, *block.shape)} >= {"an earlier version"}


def test_a_journal_of_a_newer_version_is_refused(entry):
    paint(entry, 1)
    path = entry.folder / "corrections.journal"
    path.write_bytes(journal._head(99) + path.read_bytes()[len(journal._head(99)) :])
    with pytest.raises(StudyError, match="update napari-histodistill"):
        whole(entry)


def test_two_writers_see_each_other(entry):
    mine, theirs = entry.all_corrections(), StudySlide.open(entry.folder).all_corrections()
    block = np.full((4, 4), TUMOUR, np.uint8)
    mine.set_window(0, 0, block, tool="brush")
    theirs.set_window(10, 10, block, tool="import")
    patch = Patch.between(20, 20, np.full_like(block, NO_CORRECTION), block)
    (written,), (foreign,) = mine.append([Entry("brush", (patch,), TUMOUR)], known=1)
    assert (written.sequence, foreign.sequence, foreign.tool) == (3, 2, "import")
    assert np.count_nonzero(whole(entry) == TUMOUR) == 48


def test_threads_write_in_turn(entry, often):
    threads = [threading.Thread(target=paint, args=(entry, n + 1, n)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.sequence for found in entry.all_corrections().entries().entries] == [1, 2, 3, 4, 5, 6]


def test_undo_is_an_entry_and_the_timeline_follows_it(entry):
    paint(entry, 3)
    found = entry.all_corrections()
    entries = found.entries().entries
    found.append([entries[2].reversal("undo")])
    np.testing.assert_array_equal(whole(entry), after(2, entry.grid.shape))
    undo, redo = timeline(found.entries().entries)
    assert [e.sequence for e in undo] == [1, 2]
    assert [e.sequence for e in redo] == [3]
    found.append([redo[-1].reversal("redo")])
    np.testing.assert_array_equal(whole(entry), after(3, entry.grid.shape))
    assert [e.sequence for e in timeline(found.entries().entries)[0]] == [1, 2, 3]


def test_where_corrections_come_from(entry):
    block = np.full((10, 10), TUMOUR, np.uint8)
    entry.save_corrections_region(0, 0, block, tool="brush", context="run 0001")
    entry.save_corrections_region(5, 0, np.full((10, 10), IGNORE, np.uint8), tool="import of a.geojson")
    entry.save_corrections_region(0, 0, np.full((2, 10), NORMAL, np.uint8), tool="polygon")
    last = entry.all_corrections().entries().entries[-1]
    entry.all_corrections().append([last.reversal("undo")])
    origins = {o.tool: (o.value, o.pixels) for o in entry.all_corrections().provenance(0, 0, 20, 20)}
    assert origins == {"brush": (TUMOUR, 50), "import of a.geojson": (IGNORE, 100)}
    (brush,) = entry.all_corrections().provenance(0, 0, 5, 5)
    assert brush.context == "run 0001"
    assert brush.time.startswith("20")


def test_a_whole_slide_at_once_is_one_step(entry):
    values = np.full(entry.grid.shape, NO_CORRECTION, np.uint8)
    values[100:900, 200:1200] = TUMOUR
    entry.save_corrections_region(0, 0, values, tool="import")
    assert len(entry.all_corrections().entries().entries) == 1
    np.testing.assert_array_equal(whole(entry), values)


def test_a_copied_study_goes_on(entry, tmp_path):
    paint(entry, 3)
    copy = StudySlide.open(shutil.copytree(entry.folder, tmp_path / "copy"))
    paint(copy, 4, 3)
    np.testing.assert_array_equal(whole(copy), after(4, entry.grid.shape))
    np.testing.assert_array_equal(whole(entry), after(3, entry.grid.shape))


def test_a_stroke_may_name_a_file_whose_name_is_no_utf_8(entry):
    names = "import of caf\udce9.geojson", "肺 é.tiff"
    entry.save_corrections_region(0, 0, np.full((2, 2), TUMOUR, np.uint8), tool=names[0], context=names[1])
    (origin,) = entry.all_corrections().provenance(0, 0, 2, 2)
    assert (origin.tool, origin.context) == names


def test_the_latest_stroke_comes_first_although_the_clock_was_set_back(entry):
    for number, time in enumerate(("2026-03-01T10:00:00+00:00", "2026-01-01T10:00:00+00:00")):
        window = np.full((2, 2), NO_CORRECTION, np.uint8), np.full((2, 2), TUMOUR, np.uint8)
        patch = Patch.between(0, 3 * number, *window)
        entry.all_corrections().append([Entry(f"brush {number}", (patch,), TUMOUR, time=time)])
    origins = entry.all_corrections().provenance(0, 0, 2, 9)
    assert [origin.tool for origin in origins] == ["brush 1", "brush 0"]
