"""Background jobs: the same behaviour inline, on a thread and in a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from napari_histodistill.errors import HistodistillError
from napari_histodistill.eta import EtaEstimator
from napari_histodistill.jobs import (
    InlineControl,
    JobCancelled,
    JobControl,
    JobDiedError,
    JobFailedError,
    JobState,
    ProcessJob,
    Progress,
    ThreadJob,
)

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
WORK = """
import os, signal, sys, threading, time
from napari_histodistill.errors import HistodistillError

class OddError(HistodistillError):
    def __init__(self, a, b):
        super().__init__(f"{a} {b}")

def count(request, control):
    print("noise on standard output")
    for i in range(request):
        control.checkpoint()
        control.progress(i + 1, request, "counting", payload=("tile", i))
    return request * 10

def endless(request, control):
    i = 0
    while True:
        control.checkpoint()
        i += 1
        control.progress(i, 0, payload=os.getpid())
        time.sleep(0.01)

def deaf(request, control):
    control.progress(1, 2)
    time.sleep(600)

def user_error(request, control):
    raise HistodistillError("The file is missing; choose another.")

def odd_error(request, control):
    raise OddError("not", "loadable")

def bug(request, control):
    return {}[request]

def die(request, control):
    control.progress(1, 2)
    os.kill(os.getpid(), request)

def leave(request, control):
    os._exit(3)

def linger(request, control):
    threading.Thread(target=time.sleep, args=(600,)).start()
    return os.getpid()

def from_threads(request, control):
    threads = [threading.Thread(target=control.progress, args=(i, request, "x" * 100_000)) for i in range(request)]
    for t in threads: t.start()
    for t in threads: t.join()

def unpicklable(request, control):
    return lambda: None

def modules(request, control):
    return sorted(sys.modules)
"""


@pytest.fixture(scope="session")
def work_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    (folder / "histodistill_test_work.py").write_text(WORK)
    return folder


@pytest.fixture
def work(work_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(work_folder))
    import histodistill_test_work

    return histodistill_test_work


@pytest.fixture(params=[ThreadJob, ProcessJob])
def job_class(request):
    return request.param


def drain(events) -> tuple[list[Progress], object]:
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as stop:
            return seen, stop.value


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_until(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_events_come_in_order_and_end_with_the_result(work, job_class):
    job = job_class(work.count, 5)
    assert job.state is JobState.WAITING
    seen, result = drain(job.events())
    assert [p.done for p in seen] == [1, 2, 3, 4, 5]
    assert [p.payload for p in seen] == [("tile", i) for i in range(5)]
    assert seen[0].message == "counting"
    assert result == job.result == 50
    assert job.state is JobState.DONE
    assert job.error is None


class Counting:
    """Work that is an object."""

    def __init__(self, work):
        self.work = work

    def __call__(self, request, control):
        return self.work.count(request, control)


@pytest.mark.parametrize("wrap", [lambda work: partial(work.count), Counting], ids=["partial", "object"])
def test_whatever_can_be_called_is_work_and_has_a_name_for_the_log(work, wrap):
    job = ThreadJob(wrap(work), 5)
    assert job.wait(60) == 50
    assert job.name in {"count", "Counting"}


def test_numbers_rise(work):
    assert ThreadJob(work.count, 1).number < ProcessJob(work.count, 1).number < ThreadJob(work.count, 1).number


def test_wait_gives_the_result_without_reading_events(work, job_class):
    assert job_class(work.count, 3).wait(60) == 30


def test_wait_times_out(work):
    job = ThreadJob(work.endless, None)
    with pytest.raises(TimeoutError):
        job.wait(0.05)
    job.cancel()


def test_user_errors_cross_as_themselves(work, job_class):
    job = job_class(work.user_error, None)
    with pytest.raises(HistodistillError, match=r"The file is missing; choose another\."):
        job.wait(60)
    assert job.state is JobState.FAILED
    assert isinstance(job.error, HistodistillError)


def test_other_errors_carry_the_traceback_of_the_worker(work, job_class):
    job = job_class(work.bug, "key")
    with pytest.raises(JobFailedError, match="KeyError: 'key'") as caught:
        drain(job.events())
    assert "return {}[request]" in caught.value.details
    assert job.state is JobState.FAILED


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_memory_that_runs_out_is_said_in_plain_words_whoever_noticed(error):
    def greedy(_request, _control):
        raise error

    with pytest.raises(HistodistillError, match="Memory ran out"):
        ThreadJob(greedy, None).wait(10)


def test_an_error_that_does_not_unpickle_still_arrives(work):
    with pytest.raises(JobFailedError, match="TypeError"):
        ProcessJob(work.odd_error, None).wait(60)


def test_a_result_that_does_not_pickle_is_an_error(work):
    with pytest.raises(JobFailedError, match=r"[Pp]ickle|local object"):
        ProcessJob(work.unpicklable, None).wait(60)


@POSIX
def test_a_killed_child_becomes_a_sentence_about_memory(work):
    job = ProcessJob(work.die, signal.SIGKILL.value)
    with pytest.raises(JobDiedError, match="memory ran out"):
        drain(job.events())
    assert job.state is JobState.FAILED


@POSIX
def test_a_crashed_child_names_its_signal(work):
    with pytest.raises(JobDiedError, match="signal 6"):
        ProcessJob(work.die, signal.SIGABRT.value).wait(60)


def test_a_child_that_leaves_without_result_is_an_error(work):
    with pytest.raises(JobDiedError, match="exit code 3"):
        ProcessJob(work.leave, None).wait(60)


@POSIX
def test_a_child_that_does_not_end_after_its_result_is_not_left_behind(work, monkeypatch):
    monkeypatch.setattr("napari_histodistill.jobs.ORPHAN_GRACE_S", 0.2)
    pid = ProcessJob(work.linger, None).wait(60)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_cancel_stops_at_a_checkpoint(work, job_class):
    job = job_class(work.endless, None)
    events = job.events()
    next(events)
    job.cancel()
    job.cancel()
    with pytest.raises(JobCancelled):
        drain(events)
    assert job.state is JobState.CANCELLED


def test_cancel_before_start_never_runs(work, job_class):
    job = job_class(work.endless, None)
    job.cancel()
    with pytest.raises(JobCancelled):
        job.wait(5)


def test_cancel_ends_a_child_that_does_not_listen(work):
    job = ProcessJob(work.deaf, None, grace=0.2)
    events = job.events()
    next(events)
    job.cancel()
    with pytest.raises(JobCancelled):
        drain(events)
    assert not alive(job.pid)


def test_pause_holds_and_resume_goes_on(work, job_class):
    job = job_class(work.endless, None)
    events = job.events()
    next(events)
    job.pause()
    assert job.state is JobState.PAUSED
    reports = []
    reader = threading.Thread(target=lambda: reports.extend(iter(lambda: next(events, None), None)), daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda args: None)
        reader.start()
        time.sleep(0.5)
        held = len(reports)
        time.sleep(0.3)
        assert len(reports) == held
        job.resume()
        assert job.state is JobState.RUNNING
        assert wait_until(lambda: len(reports) > held)
        job.pause()
        job.cancel()
        reader.join(20)
    assert job.state is JobState.CANCELLED


def test_closing_the_events_cancels(work):
    job = ProcessJob(work.endless, None)
    events = job.events()
    next(events)
    events.close()
    assert wait_until(lambda: job.state is JobState.CANCELLED)


def test_reports_from_many_threads_stay_whole(work):
    seen, _ = drain(ProcessJob(work.from_threads, 20).events())
    assert sorted(p.done for p in seen) == list(range(20))
    assert {p.message for p in seen} == {"x" * 100_000}


def test_a_child_imports_neither_torch_nor_qt_nor_napari_nor_main(work):
    loaded = ProcessJob(work.modules, None).wait(60)
    assert not {"torch", "napari", "qtpy", "PyQt6", "pytest"} & set(loaded)


def test_a_script_without_main_guard_runs_once(work_folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import histodistill_test_work as work\n"
        "from napari_histodistill.jobs import ProcessJob\n"
        "print('main runs'); print(ProcessJob(work.count, 2).wait(60))\n"
    )
    out = subprocess.run([sys.executable, script, work_folder], capture_output=True, text=True, check=True).stdout
    assert out.split("\n")[:2] == ["main runs", "20"]


def test_work_in_main_is_refused(work, monkeypatch):
    monkeypatch.setattr(work.count, "__module__", "__main__")
    with pytest.raises(TypeError, match="a child can import"):
        ProcessJob(work.count, 1).start()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_the_child_ends_when_its_parent_is_killed(work_folder, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import histodistill_test_work as work\n"
        "from napari_histodistill.jobs import ProcessJob\n"
        "for p in ProcessJob(work.endless, None).events(): print(p.payload, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, script, work_folder], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not alive(pid))


def test_inline_control_runs_here_and_cancels_from_its_callback(work):
    seen = []
    control = InlineControl(seen.append)
    assert isinstance(control, JobControl)
    assert work.count(3, control) == 30
    assert [p.done for p in seen] == [1, 2, 3]
    control = InlineControl(lambda p: control.cancel() if p.done == 2 else None)
    with pytest.raises(JobCancelled):
        work.count(5, control)


def test_eta_follows_the_rate_forgets_pauses_and_starts_anew():
    now = 0.0
    eta = EtaEstimator(lambda: now)
    assert eta.update(10, 100) is None  # work done in an earlier run is no rate
    now = 1.0
    assert eta.update(11, 100) == pytest.approx(89)
    now = 101.0
    eta.skip(99)
    assert eta.update(12, 100) == pytest.approx(88)
    for _ in range(200):  # the rate doubles: the estimate follows
        now += 0.05
        last = eta.update(12, 100)
    for i in range(13, 100):
        now += 0.5
        last = eta.update(i, 100)
    assert last == pytest.approx(0.5, rel=0.4)
    assert eta.update(0, 7) is None
