"""What a study promises under kills, full and vanishing disks, read-only folders, and two processes at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import child
from damage import check
from harness import RECIPE, Harness, begin_study, draw_slide, plain_teacher

from napari_histodistill.distill import StudyRequest, distill_study
from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import InlineControl
from napari_histodistill.predict import PredictRequest, predict_slide
from napari_histodistill.study import NO_CORRECTION, RunState, Study, StudyError, remove_slide, restore_slide

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, kills and mounts")
needs_root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="mounts or becomes another user")


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return draw_slide(tmp_path_factory.mktemp("slide") / "small.tiff")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return plain_teacher(tmp_path_factory.mktemp("model") / "teacher")


@pytest.fixture
def study(tmp_path, slide) -> Path:
    return begin_study(tmp_path / "study", slide)


def entry_of(study: Path):
    (entry,) = Study.open(study).slides()
    return entry


def dot(study: Path, number: int) -> None:
    """Stroke of this number: one row of a pattern that does not compress."""
    values = np.random.default_rng(number).integers(0, 4, (20, 190), dtype=np.uint8)
    entry_of(study).save_corrections_region(number % 100, 3, values)


def expected(study: Path, strokes: int) -> np.ndarray:
    out = np.full(entry_of(study).grid.shape, NO_CORRECTION, np.uint8)
    for number in range(strokes):
        values = np.random.default_rng(number).integers(0, 4, (20, 190), dtype=np.uint8)
        out[number % 100 : number % 100 + 20, 3:193] = values
    return out


def test_kills_at_any_moment_lose_nothing_that_was_acknowledged():
    code = "import json, sys; from dataclasses import asdict; from harness import kill_often\n"
    code += "print(json.dumps(asdict(kill_often(20, 7, distilling=0.1))))"
    folder = str(Path(__file__).parent)
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["errors"] == []
    assert (found["kills"], found["reopened"], found["studies_damaged"]) == (20, 20, 0)
    assert (found["strokes_lost"], found["rounds_lost"], found["predictions_lost"]) == (0, 0, 0)
    assert found["strokes_acknowledged"] > 20
    assert found["kills_in_file_operations"] > 2


# Full disks


@pytest.fixture
def small_disk(tmp_path, slide):
    """A study alone on a disk of 1.5 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("may not mount a disk")
    try:
        yield begin_study(disk / "study", slide)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@needs_root
def test_on_a_full_disk_every_write_is_refused_in_a_sentence_and_nothing_saved_is_lost(small_disk, slide, teacher):
    study, filler = small_disk, small_disk.parent / "filler"
    strokes = 0
    while strokes < 200:
        try:
            dot(study, strokes)
            strokes += 1
        except StudyError as error:
            refused = str(error)
            break
        if strokes == 5:
            filler.write_bytes(bytes(900_000))
    assert 5 < strokes < 200
    assert "No space left" in refused
    with pytest.raises(HistodistillError, match=r"No space left|cannot be written"):
        distill_study(StudyRequest(study, str(teacher), rounds=1, epochs=1, recipe=RECIPE, threads=1), InlineControl())
    with pytest.raises(HistodistillError, match=r"No space left|cannot be written"):
        predict_slide(PredictRequest(slide, study, model=str(teacher), threads=1), InlineControl())
    np.testing.assert_array_equal(entry_of(study).all_corrections()[:], expected(study, strokes))
    assert entry_of(study).run.record.state is RunState.COMPLETE
    assert [str(finding) for finding in check(study).damaged] == []
    filler.unlink()
    dot(study, strokes)
    np.testing.assert_array_equal(entry_of(study).all_corrections()[:], expected(study, strokes + 1))


# Folders that may not be written, or are away


@needs_root
def test_a_read_only_study_is_read_and_every_write_is_refused_in_a_sentence(study, slide):
    dot(study, 0)
    Study.open(study).distillation_lock().acquire()  # lock files are there, as after any work
    shutil.copytree(study, public := Path("/var/tmp") / f"histodistill-{os.getpid()}")
    try:
        shutil.copy(slide, public / "small.tiff")
        subprocess.run(["chmod", "-R", "a=rX", str(public)], check=True)
        code = f"""
import os, sys
sys.path[:] = {sys.path!r}
from pathlib import Path
import numpy as np
from napari_histodistill.errors import HistodistillError
from napari_histodistill.study import Study
from napari_histodistill.check import CheckRequest, check_study
from napari_histodistill.jobs import InlineControl
study = Path({str(public)!r})
Study.open(study).slides()[0].corrected(0, 0, Study.open(study).slides()[0].run.pseudo_mask.read(0, 0, 9, 9))
check_study(CheckRequest(study), InlineControl())  # loads everything that the next user may not be able to read
os.setgid(65534); os.setuid(65534)
(entry,) = Study.open(study).slides()
assert entry.run.pseudo_mask.levels[0][60, 90] == 1
assert entry.all_corrections()[0:1, 3:193].max() < 4
assert check_study(CheckRequest(study), InlineControl()).sound
def refused(write):
    try:
        write()
    except HistodistillError as error:
        assert "Permission denied" in str(error), error
    else:
        raise AssertionError("was written")
refused(lambda: entry.save_corrections_region(0, 0, np.ones((2, 2), np.uint8)))
refused(entry.save)
refused(lambda: entry.new_run({{}}))
refused(lambda: entry.save_tissue(np.ones((5, 5), np.uint8), settings={{}}))
refused(lambda: entry.lock().acquire())
refused(lambda: Study.open(study).distillation_lock().acquire())
"""
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "HOME": "/nonexistent"})
    finally:
        shutil.rmtree(public)


@pytest.fixture
def session(study, slide, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(study.parent / "cache"))
    session = child.Session(slide, study)
    yield session
    session.close()


def paint_in_vain(session, *stroke: int) -> None:
    """Paint while the study cannot be written, and see that this is told."""
    session.paint(*stroke)
    session.loop.run(20, lambda: session.result.save_problem)
    assert "not saved yet" in session.result.save_problem


def see_all_saved(session, study: Path) -> None:
    """Wait until everything that was painted is on disk."""
    session.loop.run(30, lambda: session.result.all_saved)
    assert session.result.save_problem == ""
    hand = session.result.mask.hand.copy()
    session.close()
    np.testing.assert_array_equal(entry_of(study).all_corrections()[:], hand - np.uint8(1))
    assert check(study).damaged == []


def test_a_folder_that_vanishes_is_told_and_what_was_painted_is_written_when_it_is_back(study, session):
    session.paint(30, 40, 1)
    session.loop.run(20, lambda: session.result.all_saved)
    away = study.rename(study.with_name("away"))
    paint_in_vain(session, 90, 100, 3)
    assert not study.exists()  # nothing of it is made anew
    session.paint(60, 150, 2)
    away.rename(study)
    see_all_saved(session, study)


def test_a_slide_that_another_process_takes_out_is_told_and_its_strokes_are_written_when_it_is_back(study, session):
    removed = remove_slide(entry_of(study).folder)
    paint_in_vain(session, 90, 100, 3)
    assert list((study / "slides").iterdir()) == []  # nothing of it is made anew
    restore_slide(removed)
    see_all_saved(session, study)


class Vanishing(InlineControl):
    """A control during whose work, after a report that says so, the study's folder goes away."""

    def __init__(self, study: Path, when: str) -> None:
        super().__init__(self._told)
        self._study, self._when = study, when

    def _told(self, progress) -> None:
        if progress.message.startswith(self._when) and self._study.exists():
            self._study.rename(self._study.with_name("away"))


@pytest.mark.parametrize("when", ["Training", "Predicting", "Writing the mask"])
def test_a_distillation_whose_folder_vanishes_says_so_and_goes_on_when_it_is_back(study, teacher, when):
    request = StudyRequest(
        study, str(teacher), rounds=1, epochs=1, recipe=RECIPE, most_tiles=2, device="cpu", threads=1, resume=True
    )
    with pytest.raises(HistodistillError, match=r"cannot be (read|written)|does not exist|is no OME-Zarr"):
        distill_study(request, Vanishing(study, when))
    assert not study.exists()
    study.with_name("away").rename(study)
    assert check(study).damaged == []
    result = distill_study(request, InlineControl())
    assert entry_of(study).prediction(f"0001-{result.rounds[-1].number:04d}").record.state is RunState.COMPLETE
    assert check(study).damaged == []


# Two processes


def test_two_processes_add_to_one_study_and_each_sees_the_strokes_of_the_other(study):
    code = """
import sys
sys.path[:0] = [sys.argv[1]]
from pathlib import Path
from test_faults import dot
for number in range(int(sys.argv[3]), int(sys.argv[3]) + 8):
    dot(Path(sys.argv[2]), number)
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(study)]
    for process in [subprocess.Popen([*command, str(start)]) for start in (0, 50)]:
        assert process.wait() == 0
    entries = entry_of(study).all_corrections().entries().entries
    assert [entry.sequence for entry in entries] == list(range(1, 17))
    assert check(study).damaged == []


def test_what_another_process_holds_is_refused_with_its_name(study, teacher):
    code = "import sys; from pathlib import Path; from napari_histodistill.study import Study\n"
    code += "lock = Study.open(sys.argv[1]).distillation_lock(); lock.acquire(); print('held', flush=True); input()"
    command = [sys.executable, "-c", code, str(study)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        request = StudyRequest(study, str(teacher), rounds=1, epochs=1, recipe=RECIPE, threads=1)
        with pytest.raises(StudyError, match=f"in use by process {other.pid} since .*end it, and try again"):
            distill_study(request, InlineControl())
        other.kill()
    with Study.open(study).distillation_lock():
        assert Study.open(study).distillation_lock().held_by_anyone()


def test_the_harness_notices_a_lost_stroke(study, tmp_path):
    (tmp_path / "work").mkdir()
    harness = Harness(None, tmp_path / "work", 1)
    harness._study = study
    dot(study, 0)
    (stroke,) = entry_of(study).all_corrections().entries().entries
    other = replace(stroke, identity="another")
    with pytest.raises(HistodistillError, match="other strokes"):
        harness._compare([(0.0, "made", other), (0.1, "saved", 1)], [])
    harness._compare([(0.0, "made", stroke), (0.1, "made", other), (0.2, "saved", 2)], [])
    assert harness.figures.strokes_lost == 1
