"""What the dock widgets have in common: each is about the slide that is current in its viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from napari_histodistill.viewer.guide import next_step, state_for_report
from napari_histodistill.widgets.help import HelpBar
from napari_histodistill.widgets.parts import Follower, Panel
from napari_histodistill.widgets.session import session_of, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import napari
    from napari.components import ViewerModel
    from napari.layers import Layer
    from psygnal import SignalInstance

    from napari_histodistill.viewer.slide_view import OpenSlideView
    from napari_histodistill.viewer.slides import SlideViews

C = TypeVar("C")


class SlidePanel(Panel):
    """A panel about the current slide of a viewer, whichever that is.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer

    Attributes
    ----------
    session : SlideViews
        The slides of the viewer.
    view : OpenSlideView or None
        The current one.
    page : str
        Where the documentation tells of it: the name of a page in ``docs`` and, after a #, of a heading.
    """

    page = "napari.md"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.session = session_of(napari_viewer)
        self.view: OpenSlideView | None = None
        self._always, self._of_view = Follower(self), Follower(self)
        self.help = HelpBar(self.page, lambda: state_for_report(self.view))
        self.column.addWidget(self.help)
        self._build(unwrapped(napari_viewer))
        self._always.follow(self.session.current_changed, self._on_current)
        self._on_current(self.session.current)

    def _build(self, viewer: ViewerModel) -> None:
        """Make the widgets, once."""
        raise NotImplementedError

    def _on_current(self, view: OpenSlideView | None) -> None:
        self._of_view.unfollow()
        self.view = view
        if view is not None:
            self._begin(view)
            for signal in self._signals_of_progress(view):
                self._of_view.follow(signal, self._guide)
        self._show()
        self._guide()

    def _guide(self) -> None:
        self.help.say(next_step(self.step[1], self.view))

    def _signals_of_progress(self, view: OpenSlideView) -> Iterable[SignalInstance]:  # noqa: ARG002 - of other panels
        """What may change what there is to do next."""
        return ()

    def _begin(self, view: OpenSlideView) -> None:
        """Another slide is current: follow what changes (with ``_of_view``), take over what was chosen for it."""
        raise NotImplementedError

    def _show(self) -> None:
        """Show what there is of the current slide, or that there is none."""
        raise NotImplementedError


class ControlPanel(SlidePanel, Generic[C]):
    """A panel over one controller of the current slide, which must have a signal ``changed``."""

    @property
    def control(self) -> C | None:
        """The controller of the current slide."""
        return None if self.view is None else self._control_of(self.view)

    def _control_of(self, view: OpenSlideView) -> C:
        raise NotImplementedError

    def _signals_of_progress(self, view: OpenSlideView) -> Iterable[SignalInstance]:
        signal: SignalInstance = getattr(self._control_of(view), "changed")  # noqa: B009 - C promises no more in types
        return (signal,)

    def _do(self, action: Callable[[C], None]) -> None:
        """Have the controller do something, if there is one."""
        control = self.control
        if control is not None:
            action(control)


def bind_keys(
    owner: ViewerModel | Layer, session: SlideViews, actions: Mapping[str, Callable[[OpenSlideView], None]]
) -> None:
    """Give the viewer keys; they act on its current slide, also after the widget was closed.

    What napari binds for the kind of layer that is active comes before them, unless that layer is given the keys too.
    """
    for key, action in actions.items():
        owner.bind_key(key, _handler(session, action), overwrite=True)


def _handler(session: SlideViews, action: Callable[[OpenSlideView], None]) -> Callable[[object], None]:
    def handle(_owner: object) -> None:  # a function, since napari asks for its name
        if session.current is not None:
            action(session.current)

    return handle
