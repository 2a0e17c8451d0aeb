"""One small interface for work in the background: progress, pause, resume, cancel, result, error.

The work itself is a plain function ``work(request, control)`` with a frozen, picklable request. It runs in this thread
(`InlineControl`, the command line), on a thread (`ThreadJob`, work without torch) or in a child process
(`ProcessJob`, anything with torch: a child never holds the window and gives its memory back).

A child is a fresh interpreter that imports the module of the function and nothing else. It is not started through
`multiprocessing`, whose spawn imports the parent's ``__main__`` a second time: a user's script without a guard would
run twice, and a napari child would import napari. Frames of pickle go through the child's standard input and output.
"""

from __future__ import annotations

import enum
import itertools
import logging
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from multiprocessing.spawn import get_executable
from typing import IO, TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

from napari_histodistill.errors import HistodistillError
from napari_histodistill.eta import EtaEstimator

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

Q = TypeVar("Q")
R = TypeVar("R")

logger = logging.getLogger(__name__)
CANCEL_GRACE_S = 10.0
"""Seconds a cancelled child has to reach its next checkpoint before it is ended."""
ORPHAN_GRACE_S = 5.0
"""Seconds a child whose parent is gone has to stop by itself."""
_job_numbers = itertools.count(1)
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[1:]; from napari_histodistill.jobs import run_child; run_child()"


class JobCancelled(Exception):  # noqa: N818 - an outcome that the user asked for, not an error
    """Raised in the work by `JobControl.checkpoint`, and to whoever waits for the result, after a cancel."""


class JobFailedError(Exception):
    """The work raised something that no user caused.

    Attributes
    ----------
    details : str
        Traceback of the thread or process that did the work.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message, details)
        self.details = details

    def __str__(self) -> str:
        return str(self.args[0])


class JobDiedError(HistodistillError):
    """The child process ended without a word, as it does when the system runs out of memory."""


class JobState(enum.Enum):
    """Where a job stands; the last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the job has ended, one way or another."""
        return self in {JobState.DONE, JobState.FAILED, JobState.CANCELLED}


@dataclass(frozen=True)
class Progress:
    """One report of a job.

    Parameters
    ----------
    done, total : int
        Steps done and in all; ``total = 0`` while that is unknown.
    message : str
        What is being done, for people.
    payload : Any
        What came about in this step, for programs (a `TileDone`, a figure).
    eta : float or None
        Seconds to go at the present rate; None while no rate is known.
    """

    done: int
    total: int
    message: str = ""
    payload: Any = None
    eta: float | None = None


@runtime_checkable
class JobControl(Protocol):
    """What the computing function sees of its job; safe to call from any of its threads."""

    def progress(self, done: int, total: int, message: str = "", payload: Any = None) -> None:
        """Report ``done`` of ``total`` steps."""

    def checkpoint(self) -> None:
        """Wait while the job is paused; raise `JobCancelled` if it was cancelled."""


class _Control:
    """The `JobControl` of every job: flags to obey, and a function that takes the reports away."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self._report = report
        self._eta = EtaEstimator()
        self._lock = threading.RLock()
        self._running = threading.Event()
        self._running.set()
        self._cancelled = False

    def progress(self, done: int, total: int, message: str = "", payload: Any = None) -> None:
        with self._lock:
            self._report(Progress(done, total, message, payload, self._eta.update(done, total)))

    def checkpoint(self) -> None:
        if not self._running.is_set():
            paused_at = time.monotonic()
            self._running.wait()
            with self._lock:
                self._eta.skip(time.monotonic() - paused_at)
        if self._cancelled:
            raise JobCancelled("Cancelled.")

    def pause(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def cancel(self) -> None:
        self._cancelled = True
        self._running.set()


class InlineControl(_Control):
    """Run work in this thread: ``work(request, InlineControl(callback))``.

    Parameters
    ----------
    callback : callable, optional
        Called with every `Progress`, in the thread that reports it. `cancel` may be called from it, from
        a signal handler or from another thread.
    """

    def __init__(self, callback: Callable[[Progress], None] | None = None) -> None:
        super().__init__(callback or (lambda _progress: None))


class Job(ABC, Generic[Q, R]):
    """A piece of work in the background; the common part of `ThreadJob` and `ProcessJob`.

    Parameters
    ----------
    function : callable
        ``function(request, control) -> result``.
    request : Any
        Frozen snapshot of everything the work needs.

    Attributes
    ----------
    number : int
        Rises with every job of this process, so that late results can be told and dropped.
    name : str
        Of the function, for the log.
    state : JobState
    result : Any
        What the function returned, once ``state`` is DONE.
    error : Exception or None
        Why there is no result, once ``state`` is FAILED or CANCELLED.
    """

    def __init__(self, function: Callable[[Q, JobControl], R], request: Q) -> None:
        self.number = next(_job_numbers)
        self.state = JobState.WAITING
        self.result: R | None = None
        self.error: Exception | None = None
        self._function, self._request = function, request
        inner = function.func if isinstance(function, partial) else function
        self.name = getattr(inner, "__name__", type(inner).__name__)
        self._events: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._finished = threading.Event()
        self._started = 0.0

    def start(self) -> None:
        """Begin; a job runs once, and a second call does nothing."""
        with self._lock:
            if self.state is JobState.WAITING:
                self.state = JobState.RUNNING
                self._started = time.monotonic()
                logger.info("job %d, %s, begins", self.number, self.name)
                try:
                    self._launch()
                except Exception as error:
                    self._finish(JobState.FAILED, error=error)
                    raise

    def pause(self) -> None:
        """Hold the work at its next checkpoint."""
        with self._lock:
            if self.state is JobState.RUNNING:
                self.state = JobState.PAUSED
                self._command("pause")

    def resume(self) -> None:
        """Let paused work go on."""
        with self._lock:
            if self.state is JobState.PAUSED:
                self.state = JobState.RUNNING
                self._command("resume")

    def cancel(self) -> None:
        """Ask the work to stop at its next checkpoint; returns at once, `wait` or `events` tell when it has."""
        with self._lock:
            if self.state is JobState.WAITING:
                self._finish(JobState.CANCELLED, error=JobCancelled("Cancelled."))
            elif not self.state.final:
                self.state = JobState.RUNNING
                self._command("cancel")

    def events(self) -> Generator[Progress, None, R]:
        """Start the job if need be, yield its `Progress` as it comes, and return the result.

        Made to be the body of a napari ``thread_worker``. For one consumer; closing the generator early cancels.

        Raises
        ------
        JobCancelled
            After `cancel`.
        HistodistillError
            What the user can mend, as the work raised it.
        JobFailedError
            Everything else, with the traceback in its ``details``.
        """
        self.start()
        try:
            while (event := self._events.get()) is not None:
                yield event
        finally:
            self.cancel()
        return self._outcome()

    def wait(self, timeout: float | None = None) -> R:
        """Start the job if need be and return its result; raises as `events` does, or TimeoutError."""
        self.start()
        if not self._finished.wait(timeout):
            raise TimeoutError(f"Job {self.number} is not finished after {timeout} s.")
        return self._outcome()

    def _outcome(self) -> R:
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # DONE, so it is an R, which may itself be None

    def _finish(self, state: JobState, result: R | None = None, error: Exception | None = None) -> None:
        with self._lock:
            if self.state.final:
                return
            self.result, self.error, self.state = result, error, state
            seconds = time.monotonic() - self._started if self._started else 0.0
            why = f" ({type(error).__name__})" if state is JobState.FAILED else ""
            logger.info("job %d, %s, %s%s after %.1f s", self.number, self.name, state.value, why, seconds)
            self._finished.set()
            self._events.put(None)

    @abstractmethod
    def _launch(self) -> None:
        """Start the thread or process."""

    @abstractmethod
    def _command(self, command: str) -> None:
        """Pass "pause", "resume" or "cancel" to the control that the work sees."""


class ThreadJob(Job[Q, R]):
    """A job on a daemon thread of this process, for work without torch. Cancelling is cooperative only."""

    def _launch(self) -> None:
        self._control = _Control(self._events.put)
        threading.Thread(target=self._run, name=f"histodistill-job-{self.number}", daemon=True).start()

    def _run(self) -> None:
        self._finish(**_perform(self._function, self._request, self._control))

    def _command(self, command: str) -> None:
        getattr(self._control, command)()


class ProcessJob(Job[Q, R]):
    """A job in a child process. Function, request, payloads and result must pickle; the function by its module.

    Attributes
    ----------
    pid : int or None
        Process id of the child once started.

    Notes
    -----
    A cancelled child that does not reach a checkpoint within ``grace`` seconds is terminated. When this
    process ends, however it ends, the child's input closes and the child ends too.
    """

    def __init__(self, function: Callable[[Q, JobControl], R], request: Q, *, grace: float = CANCEL_GRACE_S) -> None:
        super().__init__(function, request)
        self._grace = grace
        self._cancel_asked = False
        self._pipe_lock = threading.Lock()
        self.pid: int | None = None

    def _launch(self) -> None:
        if self._function.__module__ == "__main__":
            raise TypeError("The work of a ProcessJob must live in a module that a child can import, not in __main__.")
        work = pickle.dumps((self._function, self._request))
        executable = os.fsdecode(get_executable())
        self._child = subprocess.Popen(  # noqa: S603 - this interpreter, own arguments
            [executable, "-c", _BOOTSTRAP, *(path for path in sys.path if isinstance(path, str))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if sys.__stderr__ is not None else subprocess.DEVNULL,
            bufsize=0,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self.pid = self._child.pid
        threading.Thread(target=self._listen, args=(work,), name=f"histodistill-job-{self.number}", daemon=True).start()

    def _listen(self, work: bytes) -> None:
        assert self._child.stdout is not None
        outcome: dict[str, Any] | None = None
        try:
            self._send(work)
            while (frame := _receive(self._child.stdout)) is not None:
                kind, value = pickle.loads(frame)  # noqa: S301 - from our own child
                if kind == "progress":
                    self._events.put(value)
                else:
                    outcome = value
                    break
        except Exception as error:  # noqa: BLE001 - reported through the job; a message that does not load here
            self._child.kill()
            outcome = _failure(error)
        self._close(outcome)

    def _close(self, outcome: dict[str, Any] | None) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._child.wait(ORPHAN_GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()  # or it stays behind as a defunct process
        if outcome is None and self._cancel_asked:
            outcome = {"state": JobState.CANCELLED, "error": JobCancelled("Cancelled.")}
        self._finish(**(outcome or {"state": JobState.FAILED, "error": _death(self._child.wait())}))

    def _send(self, frame: bytes) -> None:
        assert self._child.stdin is not None
        try:
            with self._pipe_lock:
                _send(self._child.stdin, frame)
        except (BrokenPipeError, ValueError):
            return  # the child is gone; the listener finds out why

    def _command(self, command: str) -> None:
        if command == "cancel" and not self._cancel_asked:
            self._cancel_asked = True
            threading.Thread(target=self._end_after_grace, daemon=True).start()
        self._send(command.encode())

    def _end_after_grace(self) -> None:
        if not self._finished.wait(self._grace):
            self._child.terminate()
            if not self._finished.wait(self._grace):
                self._child.kill()


def _perform(function: Callable[[Q, JobControl], R], request: Q, control: JobControl) -> dict[str, Any]:
    """Run the work; its outcome as the arguments of `Job._finish`."""
    try:
        return {"state": JobState.DONE, "result": function(request, control)}
    except JobCancelled as cancelled:
        return {"state": JobState.CANCELLED, "error": cancelled}
    except Exception as error:  # noqa: BLE001 - reported through the job
        return _failure(error)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: CUDA has a class for it, MPS and torch on the CPU only a message."""
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)


def _failure(error: Exception) -> dict[str, Any]:
    if not isinstance(error, HistodistillError) and is_out_of_memory(error):
        error = HistodistillError("Memory ran out; close other programs or work on a smaller slide, then resume.")
    if not isinstance(error, HistodistillError):
        details = "".join(traceback.format_exception(error))
        error = JobFailedError(f"{type(error).__name__}: {error}", details)
    return {"state": JobState.FAILED, "error": error}


def _death(code: int) -> JobDiedError:
    if code == -signal.SIGTERM.value or code >= 0:
        return JobDiedError(f"The background process ended unexpectedly (exit code {code}); start it again to resume.")
    reason = "most likely because memory ran out; close other programs" if code == -9 else "please report this"
    return JobDiedError(f"The background process was stopped by signal {-code}, {reason} and start it again to resume.")


def _send(pipe: IO[bytes], frame: bytes) -> None:
    view = memoryview(struct.pack("<Q", len(frame)) + frame)
    while view:
        view = view[pipe.write(view) :]


def _receive(pipe: IO[bytes]) -> bytes | None:
    """Next frame, or None when the other side has closed."""
    header = _read_exactly(pipe, 8)
    return None if header is None else _read_exactly(pipe, struct.unpack("<Q", header)[0])


def _read_exactly(pipe: IO[bytes], size: int) -> bytes | None:
    parts = []
    while size and (part := pipe.read(size)):
        parts.append(part)
        size -= len(part)
    return None if size else b"".join(parts)


def run_child() -> None:
    """Entry point of the child of a `ProcessJob`: take the work from standard input, do it, send the outcome back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a shared terminal is the parent's to handle
    commands = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not get between the frames
    work = _receive(commands)
    if work is None:
        return
    control = _Control(lambda progress: _send(replies, pickle.dumps(("progress", progress))))
    threading.Thread(target=_obey, args=(commands, control), daemon=True).start()
    _send(replies, _perform_pickled(work, control))


def _perform_pickled(work: bytes, control: JobControl) -> bytes:
    try:
        function, request = pickle.loads(work)  # noqa: S301 - from our own parent
        frame = pickle.dumps(("end", _perform(function, request, control)))
        pickle.loads(frame)  # noqa: S301 - an exception may pickle and yet not load: find out here
    except Exception as error:  # noqa: BLE001 - reported to the parent
        return pickle.dumps(("end", _failure(error)))
    return frame


def _obey(commands: IO[bytes], control: _Control) -> None:
    """Pass the parent's commands on; when the parent is gone, cancel, and end the process if that does not help."""
    while (command := _receive(commands)) is not None:
        getattr(control, command.decode())()
    control.cancel()
    time.sleep(ORPHAN_GRACE_S)
    os._exit(1)
