"""Who may write, who holds a lock, and the way out."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from napari_histodistill.study import FileLock, Study, StudyError
from napari_histodistill.study.locks import Holder


def test_one_holder_at_a_time(tmp_path):
    first, second = (FileLock(tmp_path / "lock", "slide.svs") for _ in range(2))
    assert not first.held_by_anyone()
    with first:
        assert second.held_by_anyone()
        with pytest.raises(StudyError, match=rf"slide\.svs is in use by process {os.getpid()} since .*: wait for it"):
            second.acquire()
    assert not second.held_by_anyone()
    with second:
        assert first.held_by_anyone()


def test_a_killed_holder_frees_the_lock(tmp_path):
    code = (
        "import sys, time, pathlib; from napari_histodistill.study.locks import FileLock\n"
        "lock = FileLock(pathlib.Path(sys.argv[1]), 'x'); lock.acquire(); print('held', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        lock = FileLock(tmp_path / "lock", "x")
        with pytest.raises(StudyError, match=f"process {child.pid}"):
            lock.acquire()
    finally:
        child.kill()
        child.communicate()
    with lock:
        assert Holder.read(tmp_path / "lock").pid == os.getpid()


def say(path, **changes):
    """Let the lock file say that somebody holds it."""
    path.write_text(json.dumps({"pid": os.getpid(), "host": "", "since": "2026-01-02T03:04:05+00:00", **changes}))


def test_a_holder_on_another_computer_is_named_and_the_command_that_breaks_its_lock(study):
    lock = study.distillation_lock()
    with lock:
        say(lock.path, host="lab7", pid=42)
        with pytest.raises(StudyError) as refused:
            study.distillation_lock().acquire()
    assert "in use by process 42 on the computer lab7 since 2026-01-02" in str(refused.value)
    assert f"histodistill check {study.folder} --break-lock" in str(refused.value)


def test_a_lock_file_of_an_older_version_is_read(study):
    lock = study.distillation_lock()
    with lock:
        lock.path.write_text("4194305")  # no process has this number
        with pytest.raises(StudyError, match="in use by process 4194305: close the study there"):
            study.distillation_lock().acquire()
    assert str(Holder.read(study.folder / "none")) == "another process"


def test_a_lock_that_was_broken_meanwhile_is_not_taken_for_one(study):
    first, second = study.distillation_lock(), study.distillation_lock()
    with first:
        first.path.rename(first.path.with_name("aside"))
        with second:
            assert study.distillation_lock().held_by_anyone()


def test_without_locks_in_the_file_system_the_sentence_says_so(study, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(file, flags):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StudyError, match=r"has no file locks .*local disk"):
        study.distillation_lock().acquire()


def test_a_lock_in_a_folder_that_is_gone_is_a_sentence(tmp_path):
    with pytest.raises(StudyError, match=r"cannot be written .*see that the folder is there"):
        Study(tmp_path / "gone").distillation_lock().acquire()
