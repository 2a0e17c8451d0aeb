"""The slides that are open in one viewer: how they come, which one is shown, how they go."""

from __future__ import annotations

import weakref
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_histodistill.jobs import ThreadJob
from napari_histodistill.viewer.geometry import scale_bar_of
from napari_histodistill.viewer.layers import (
    Role,
    add_layer,
    forget_role_of_copy,
    role_of,
    slide_layer,
    slide_of,
)
from napari_histodistill.viewer.slide_view import OpenSlideView
from napari_histodistill.viewer.slide_work import OpenRequest, draw_sample, open_file
from napari_histodistill.viewer.study import StudyControl
from napari_histodistill.viewer.teacher_work import default_study_folder
from napari_histodistill.viewer.work import Latest, Runner, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel

    from napari_histodistill.slide import Slide
    from napari_histodistill.viewer.warming import Warming


class SlideViews:
    """Follows a viewer's layer list: every slide in it has a view, and is closed when its layer goes.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    runner : Runner
    warming : Warming, optional
        What a slide that is opened waits for, in the background.

    Attributes
    ----------
    current_changed : Signal
        Another slide (or None) is the one that the widgets are about.
    views_changed : Signal
        A slide was opened or closed.
    """

    current_changed = Signal(object)
    views_changed = Signal()

    def __init__(self, viewer: ViewerModel, runner: Runner, warming: Warming | None = None) -> None:
        self._viewer = weakref.ref(viewer)
        self.runner, self._warming = runner, warming
        self._views: list[OpenSlideView] = []
        self._current: OpenSlideView | None = None
        self._closed = False
        self._names: list[str] = []
        """Of files that are being opened."""
        self._tidy = runner.timer(0, self._close_orphans)
        self._sample = Latest(runner)
        self._alone = runner.timer(0, self._show_current_alone)  # whoever adds a layer chooses it afterwards
        self._scale = runner.timer(0, self._show_scale)  # not with the slide: its first text takes napari 0.1 s
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_layers_changed)
        viewer.layers.selection.events.active.connect(self._on_active)
        self._on_layers_changed()

    @property
    def current(self) -> OpenSlideView | None:
        """The slide whose layer was active last."""
        return self._current

    def open(self, path: Path | str) -> None:
        """Open a slide in the background and show it alone; one that is open comes to the front.

        Tells the user if that fails.
        """
        file = Path(path).resolve()
        found = next((view for view in self._views if view.slide.path.resolve() == file), None)
        if found is not None:
            if not self.is_alone(found):  # else it is there, and the camera where it is wanted
                self.go_to(found)
            return
        name = Path(path).name
        self._names.append(name)
        self._say_what_opens()
        request = OpenRequest(Path(path), None if self._warming is None else self._warming.ended)
        self.runner.start(
            ThreadJob(open_file, request),
            progress=lambda _progress: None,
            done=partial(self._on_opened, name),
            failed=partial(self._on_failed, name),
        )

    def _say_what_opens(self) -> None:
        viewer = self._viewer()
        if viewer is not None:
            viewer.status = f"Opening {', '.join(self._names)}…" if self._names else ""

    def _on_opened(self, name: str, slide: Slide) -> None:
        if self._viewer() is None or self._closed:
            slide.close()
            return
        self._names.remove(name)
        self._say_what_opens()
        self.show(slide)

    def _on_failed(self, name: str, error: Exception) -> None:
        self._names.remove(name)
        if self._viewer() is not None:
            self._say_what_opens()
            tell(error)

    def open_sample(self, done: Callable[[], None]) -> None:
        """Draw the sample slide on a thread, if it is not in the cache yet, and open it; then call ``done``."""

        def finish(path: Path | None) -> None:
            if path is not None:
                self.open(path)
            done()

        def fail(error: Exception) -> None:
            tell(error)
            finish(None)

        self._sample.start(ThreadJob(draw_sample, None), done=finish, failed=fail)

    def show(self, slide: Slide) -> OpenSlideView | None:
        """Add the layer of a slide that was just opened."""
        viewer = self._viewer()
        assert viewer is not None, "the viewer is gone"
        layer = add_layer(viewer, slide_layer(slide))
        viewer.layers.selection.active = layer
        return self.view_of(slide)

    def is_alone(self, view: OpenSlideView) -> bool:
        """Whether a slide is the current one, and no other is shown."""
        others = (other for other in self._views if other is not view)
        return view is self._current and not view.aside and all(other.aside for other in others)

    def go_to(self, view: OpenSlideView) -> None:
        """Make a slide the current one and show it alone, as it was left: slides lie over one another."""
        self._show_alone(view)
        patch = view.audit.layer if view.has("audit") else None
        view.viewer.layers.selection.active = patch or view.layer(Role.SLIDE)

    def _show_alone(self, view: OpenSlideView) -> None:
        for other in self._views:
            if other is not view:
                other.set_aside()
        view.bring_back()

    def _show_current_alone(self) -> None:
        """A slide has come, perhaps through napari: it must not lie over another one."""
        if self._current is None:
            return
        if self.is_alone(self._current):
            self._current.was_alone = True
        else:
            self.go_to(self._current)

    def drop(self, view: OpenSlideView) -> None:
        """Write everything that is not written and take a slide and all its layers out of the viewer."""
        layer = view.layer(Role.SLIDE)
        if layer is not None:
            view.viewer.layers.remove(layer)
        self._close(view, wait=True)
        self._on_closed()

    @cached_property
    def study(self) -> StudyControl:
        """The study of this viewer; made when it is first asked for."""
        return StudyControl(self)

    def _study_of(self, slide: Slide) -> Path:
        return self.study.folder_for(slide) if "study" in self.__dict__ else default_study_folder(slide.path)

    @property
    def views(self) -> tuple[OpenSlideView, ...]:
        """The slides that are open, in the order in which they were."""
        return tuple(self._views)

    def view_of(self, slide: Slide) -> OpenSlideView | None:
        """The view of a slide that is in the viewer."""
        return next((view for view in self._views if view.slide is slide), None)

    def look_for_news(self) -> None:
        """Show what other programs have written to the studies of the slides since the last call."""
        for view in self._views:
            if "teacher" in view.__dict__:
                view.teacher.look_for_news()

    def close(self) -> None:
        """Write everything and close all slides: the application is about to end."""
        self._closed = True
        self._sample.cancel()
        if "study" in self.__dict__:
            self.study.close()
        while self._views:
            self._views.pop().close(wait=True)

    def _on_layers_changed(self, _event: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None or self._closed:
            return
        opened = False
        for layer in viewer.layers:
            slide = slide_of(layer)
            if slide is not None and role_of(layer) is Role.SLIDE and self.view_of(slide) is None:
                self._views.append(OpenSlideView(viewer, slide, self.runner, self._study_of))
                opened = True
                if slide.mpp is not None:
                    self._scale.start()
        if any(view.layer(Role.SLIDE) is None for view in self._views):
            self._tidy.start()  # not now: the list may be in the middle of removing several layers
        self._choose_current()
        if opened:
            self._alone.start()
            self.views_changed.emit()

    def _on_inserted(self, event: Any) -> None:
        slide = slide_of(event.value)
        view = None if slide is None else self.view_of(slide)
        if view is not None:
            forget_role_of_copy(event.value)
            view.keep_aside(event.value)
        self._on_layers_changed()

    def _show_scale(self) -> None:
        viewer = self._viewer()
        if viewer is not None:
            scale_bar_of(viewer).visible = True

    def _close_orphans(self) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        orphans = [view for view in self._views if view.layer(Role.SLIDE) is None]
        for view in orphans:
            self._close(view)
        if orphans:
            self._on_closed()
        else:
            self._choose_current()

    def _on_closed(self) -> None:
        """Another slide becomes the current one, and is shown if none is."""
        self._choose_current()
        self.views_changed.emit()
        if self._current is not None and all(view.aside for view in self._views):
            self.go_to(self._current)

    def _close(self, view: OpenSlideView, *, wait: bool = False) -> None:
        self._views.remove(view)
        view.close(wait=wait)
        for layer in [layer for layer in view.viewer.layers if slide_of(layer) is view.slide]:
            view.viewer.layers.remove(layer)

    def _on_active(self, _event: Any) -> None:
        """A layer of a slide that is set aside was chosen in napari's list: that slide is wanted."""
        self._choose_current()
        viewer, view = self._viewer(), self._current
        active = None if viewer is None else viewer.layers.selection.active
        if view is not None and view.aside and active is not None and slide_of(active) is view.slide:
            self._show_alone(view)

    def _choose_current(self) -> None:
        viewer = self._viewer()
        active = None if viewer is None else viewer.layers.selection.active
        slide = None if active is None else slide_of(active)
        chosen = None if slide is None else self.view_of(slide)
        if chosen is None:
            chosen = self._current if self._current in self._views else next(reversed(self._views), None)
        if chosen is not self._current:
            self._current = chosen
            self.current_changed.emit(chosen)
