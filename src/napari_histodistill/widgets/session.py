"""What the widgets of one viewer share, and the `Runner` that brings news of background work to Qt's main thread."""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_histodistill.logs import start_log
from napari_histodistill.viewer.slides import SlideViews
from napari_histodistill.viewer.warming import Warming

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel

    from napari_histodistill.viewer.work import AnyJob, OnDone, OnFailed, OnProgress

WATCH_MS: Final = 2000
"""Between two looks at whether another program wrote corrections."""

_watches: weakref.WeakKeyDictionary[ViewerModel, QTimer] = weakref.WeakKeyDictionary()
_sessions: weakref.WeakKeyDictionary[ViewerModel, SlideViews] = weakref.WeakKeyDictionary()


def session_of(viewer: ViewerModel) -> SlideViews:
    """The slides of a viewer; followed from the first call on, and shared by all widgets of this viewer."""
    viewer = unwrapped(viewer)
    if viewer not in _sessions:
        if not _sessions:
            start_log()
        runner = QtRunner()
        _sessions[viewer] = SlideViews(viewer, runner, Warming(runner))
        _watches[viewer] = _watch(_sessions[viewer])
        QApplication.instance().aboutToQuit.connect(_sessions[viewer].close)
    return _sessions[viewer]


def _watch(views: SlideViews) -> QTimer:
    """A timer that has a viewer's slides look for what other programs write, such as an import."""
    timer = QTimer()
    timer.setInterval(WATCH_MS)
    timer.timeout.connect(views.look_for_news)
    QApplication.instance().aboutToQuit.connect(timer.stop)
    timer.start()
    return timer


def unwrapped(viewer: ViewerModel) -> ViewerModel:
    """The viewer behind the `PublicOnlyProxy` that napari gives to widgets.

    The proxy wraps everything that comes out of it if its module's name begins with "napari", so our own objects too.
    """
    return getattr(viewer, "__wrapped__", viewer)


class _Relay(QObject):
    """Calls a function on the main thread, from any thread."""

    call = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.moveToThread(QApplication.instance().thread())
        self.call.connect(self._perform, Qt.ConnectionType.QueuedConnection)

    def send(self, function: Callable[[], None]) -> None:
        """Have a function called; after the end of the application there is nobody to call it."""
        with suppress(RuntimeError):  # Qt has deleted this object
            self.call.emit(function)

    def _perform(self, function: Callable[[], None]) -> None:
        function()


class QtRunner:
    """A `Runner` of Qt's event loop.

    Each job is supervised by a thread of its own. napari's ``thread_worker`` takes its threads from Qt's pool, which
    has as many as the machine has cores: a long run and the levels of a slide would keep a threshold waiting on two.
    """

    def __init__(self) -> None:
        self._relay = _Relay()  # must outlive the calls that it has queued

    def start(self, job: AnyJob, *, progress: OnProgress, done: OnDone, failed: OnFailed) -> None:
        """Start a job; the callbacks come on the main thread."""
        thread = threading.Thread(
            target=self._supervise,
            args=(job, progress, done, failed),
            name=f"histodistill-news-{job.number}",
            daemon=True,
        )
        thread.start()

    def _supervise(self, job: AnyJob, progress: OnProgress, done: OnDone, failed: OnFailed) -> None:
        try:
            events = job.events()
            while True:
                try:
                    event = next(events)
                except StopIteration as end:
                    self._relay.send(partial(done, end.value))
                    return
                self._relay.send(partial(progress, event))
        except Exception as error:  # noqa: BLE001 - every failure of a job goes to whoever started it
            self._relay.send(partial(failed, error))

    def timer(self, seconds: float, function: Callable[[], None]) -> QtTimer:
        """A single-shot timer on the main thread."""
        return QtTimer(seconds, function)


class QtTimer:
    """A `Timer` made of a QTimer."""

    def __init__(self, seconds: float, function: Callable[[], None]) -> None:
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(round(1000 * seconds))
        self._timer.timeout.connect(function)

    def start(self) -> None:
        """Begin, or begin anew."""
        self._timer.start()

    def stop(self) -> None:
        """Do not call."""
        self._timer.stop()

    @property
    def active(self) -> bool:
        """Whether a call is due."""
        active: bool = self._timer.isActive()
        return active
