"""The slides that are open in one viewer: their layers, their place in the world, their end."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import ThreadJob
from napari_histodistill.slide.metadata import is_plausible
from napari_histodistill.viewer.audit import AuditControl
from napari_histodistill.viewer.comparison import Comparison
from napari_histodistill.viewer.correct import CorrectControl
from napari_histodistill.viewer.distil import DistilControl
from napari_histodistill.viewer.export import ExportControl
from napari_histodistill.viewer.geometry import Frame, camera_of, scale_bar_of
from napari_histodistill.viewer.layers import SLIDE_KEY, Role, add_layer, find_layer, role_of, slide_layer, slide_of
from napari_histodistill.viewer.review import ReviewControl
from napari_histodistill.viewer.slide_work import OpenRequest, build_added_levels, draw_sample, open_file
from napari_histodistill.viewer.study import StudyControl
from napari_histodistill.viewer.teacher import TeacherControl, default_study_folder
from napari_histodistill.viewer.tissue import TissueControl
from napari_histodistill.viewer.work import Latest, Runner, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_histodistill.jobs import Progress
    from napari_histodistill.slide import Slide
    from napari_histodistill.viewer.warming import Warming

LEVELS_REFRESH_S = 1.0
"""How often an image whose levels are being computed is drawn anew, in seconds."""


@dataclass
class _Aside:
    """What is shown of a slide when it is brought back."""

    shown: list[Layer]
    center: tuple[float, ...]
    zoom: float


class OpenSlideView:
    """A slide in a viewer.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly: the viewer owns the view through `SlideViews`.
    slide : Slide
    runner : Runner
    study_of : callable
        Gives the folder in which the work on a slide is kept, unless the user chooses another.

    Attributes
    ----------
    moved : Signal
        The pixel size, and with it every layer's place, has changed.
    reopened : Signal
        `slide` was replaced by the same file with other colours.
    """

    moved = Signal()
    reopened = Signal()

    def __init__(self, viewer: ViewerModel, slide: Slide, runner: Runner, study_of: Callable[[Slide], Path]) -> None:
        self._viewer = weakref.ref(viewer)
        self.slide, self.runner, self._study_of = slide, runner, study_of
        self.icc = False
        self._aside: _Aside | None = None
        self._levels = Latest(runner)
        self._redraw = runner.timer(LEVELS_REFRESH_S, self.redraw)
        self._build_levels()

    @cached_property
    def tissue(self) -> TissueControl:
        """The slide's tissue."""
        return TissueControl(self)

    @cached_property
    def teacher(self) -> TeacherControl:
        """The teacher that is run on the slide; made, and its study looked up, when it is first asked for."""
        return TeacherControl(self)

    @cached_property
    def correct(self) -> CorrectControl:
        """Corrections of the teacher's result."""
        return CorrectControl(self)

    @cached_property
    def distil(self) -> DistilControl:
        """The distillation on the slide."""
        return DistilControl(self)

    @cached_property
    def review(self) -> ReviewControl:
        """Where to look next; made when it is first asked for, as is the audit."""
        return ReviewControl(self)

    @cached_property
    def audit(self) -> AuditControl:
        """How good the predictions are, on tissue drawn at random."""
        return AuditControl(self)

    @cached_property
    def comparison(self) -> Comparison:
        """Two rounds compared."""
        return Comparison(self)

    @cached_property
    def export(self) -> ExportControl:
        """What leaves and comes in; made when it is first asked for."""
        return ExportControl(self)

    @property
    def study_folder(self) -> Path:
        """Where the work on the slide is kept."""
        return self.teacher.study_folder if self.has("teacher") else self._study_of(self.slide)

    def has(self, control: str) -> bool:
        """Whether one of the controls above was asked for by now."""
        return control in self.__dict__

    @property
    def viewer(self) -> ViewerModel:
        """The viewer; it lives as long as its views."""
        viewer = self._viewer()
        assert viewer is not None, "the viewer is gone"
        return viewer

    @property
    def frame(self) -> Frame:
        """The slide's place in the world."""
        return Frame(self.slide.shape, self.slide.mpp)

    def layer(self, role: Role) -> Layer | None:
        """The layer of this slide that shows ``role``, or None."""
        return find_layer(self.viewer, self.slide, role)

    @property
    def aside(self) -> bool:
        """Whether another slide is shown in its place."""
        return self._aside is not None

    @property
    def in_front(self) -> bool:
        """Whether it is the slide that a person works on: news of another must move neither camera nor selection."""
        active = self.viewer.layers.selection.active
        return not self.aside and (active is None or slide_of(active) in {None, self.slide})

    def set_aside(self) -> None:
        """Hide the slide's layers, and remember which were shown and where the camera was."""
        shown = [layer for layer in self._layers() if layer.visible]
        if self._aside is None:
            camera = camera_of(self.viewer)
            self._aside = _Aside([], tuple(camera.center), float(camera.zoom))
        for layer in shown:
            self.keep_aside(layer)

    def keep_aside(self, layer: Layer) -> None:
        """Hide a layer that comes, or is on screen, while the slide is set aside."""
        if self._aside is not None and layer.visible:
            self.set_shown(layer, on=True)

    def shows(self, layer: Layer) -> bool:
        """Whether a layer is on screen, or will be once the slide is brought back."""
        return bool(layer.visible) or (self._aside is not None and layer in self._aside.shown)

    def set_shown(self, layer: Layer, *, on: bool) -> None:
        """Show or hide a layer; of a slide that is set aside it takes effect once that is brought back."""
        if self._aside is not None:
            others = [other for other in self._aside.shown if other is not layer]
            self._aside.shown = [*others, layer] if on else others
            on = False
        if layer.visible != on:
            layer.visible = on

    def bring_back(self) -> None:
        """Show the slide as it was when it was set aside; one that was not is fitted to the canvas."""
        aside, self._aside = self._aside, None
        if aside is None:
            self.viewer.reset_view()
            return
        for layer in aside.shown:
            layer.visible = True
        camera_of(self.viewer).center, camera_of(self.viewer).zoom = aside.center, aside.zoom

    def set_mpp(self, mpp: float | tuple[float, float]) -> None:
        """Give the slide a pixel size and put all its layers in their place.

        Parameters
        ----------
        mpp : float or tuple of float
            µm per level-0 pixel, one number or (y, x).

        Raises
        ------
        HistodistillError
            If no slide has such pixels.
        """
        both = mpp if isinstance(mpp, tuple) else (mpp, mpp)
        if not is_plausible(both):
            raise HistodistillError(f"{mpp} µm per pixel is not a slide's: give a number from 0.05 to 8.")
        before, self.slide.mpp = self.frame, both
        for layer in self._layers():
            self.frame.move(layer, before)
        show_scale_bar(self.viewer)
        self.viewer.reset_view()
        self.moved.emit()

    def set_icc(self, on: bool) -> None:
        """Show the colours that the scanner's ICC profile gives, or those of the file as they are."""
        from napari_histodistill.slide import open_slide

        if on == self.icc:
            return
        try:
            slide = open_slide(self.slide.path, mpp=self.slide.mpp, icc=on)
        except HistodistillError as error:
            tell(error)
            self.reopened.emit()
            return
        self._levels.cancel()
        layers, before = self._layers(), self.slide
        self.slide, self.icc = slide, on
        for layer in layers:
            layer.metadata[SLIDE_KEY] = slide
        self.redraw()
        before.close()
        self._build_levels()
        self.reopened.emit()

    def redraw(self) -> None:
        """Show the slide's levels as they are now: napari keeps the coarsest one until the data is set again."""
        layer = self.layer(Role.SLIDE)
        if layer is not None:
            layer.data = list(self.slide.pyramid())

    def _build_levels(self) -> None:
        if not self.slide.added_levels_complete:
            self._levels.start(
                ThreadJob(build_added_levels, self.slide), progress=self._on_level_progress, done=self._on_levels_done
            )

    def _on_level_progress(self, _progress: Progress) -> None:
        if not self._redraw.active:
            self._redraw.start()

    def _on_levels_done(self, _result: None) -> None:
        self._redraw.stop()
        self.redraw()

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.viewer.layers if slide_of(layer) is self.slide]

    def close(self, *, wait: bool = False) -> None:
        """Stop all work on the slide, write what is not written (``wait``: to the last bit) and close its file."""
        for control in ("review", "audit", "correct", "comparison", "distil", "export"):
            if self.has(control):
                getattr(self, control).close()
        if self.has("teacher"):
            self.teacher.close(wait=wait)
        self.tissue.close()
        self._redraw.stop()
        self._levels.cancel()
        self.slide.close()


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
        self._scale = runner.timer(0, self._show_scale)  # not with the slide: its first text takes napari 0.1 s
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_layers_changed)
        viewer.layers.selection.events.active.connect(self._choose_current)
        self._on_layers_changed()

    @property
    def current(self) -> OpenSlideView | None:
        """The slide whose layer was active last."""
        return self._current

    def open(self, path: Path | str) -> None:
        """Open a slide in the background and add its layer as the active one; tells the user if that fails."""
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

    def go_to(self, view: OpenSlideView) -> None:
        """Make a slide the current one and show it alone, as it was left: slides lie over one another."""
        for other in self._views:
            if other is not view:
                other.set_aside()
        view.bring_back()
        patch = view.audit.layer if view.has("audit") else None
        view.viewer.layers.selection.active = patch or view.layer(Role.SLIDE)

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
            self.views_changed.emit()

    def _on_inserted(self, event: Any) -> None:
        slide = slide_of(event.value)
        view = None if slide is None else self.view_of(slide)
        if view is not None:
            view.keep_aside(event.value)
        self._on_layers_changed()

    def _show_scale(self) -> None:
        viewer = self._viewer()
        if viewer is not None:
            show_scale_bar(viewer)

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

    def _choose_current(self, _event: Any = None) -> None:
        viewer = self._viewer()
        active = None if viewer is None else viewer.layers.selection.active
        slide = None if active is None else slide_of(active)
        chosen = None if slide is None else self.view_of(slide)
        if chosen is None:
            chosen = self._current if self._current in self._views else next(reversed(self._views), None)
        if chosen is not self._current:
            self._current = chosen
            self.current_changed.emit(chosen)


def show_scale_bar(viewer: ViewerModel) -> None:
    """Switch napari's scale bar on; it reads the layers' units."""
    scale_bar_of(viewer).visible = True
