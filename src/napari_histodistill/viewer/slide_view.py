"""A slide that is open in a viewer: its layers, its place in the world, its controls, whether it is shown."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import ThreadJob
from napari_histodistill.slide.metadata import is_plausible
from napari_histodistill.viewer.audit import AuditControl
from napari_histodistill.viewer.comparison import Comparison
from napari_histodistill.viewer.correct import CorrectControl
from napari_histodistill.viewer.distil import DistilControl
from napari_histodistill.viewer.export import ExportControl
from napari_histodistill.viewer.geometry import Frame, camera_of, fit_to, scale_bar_of
from napari_histodistill.viewer.layers import SLIDE_KEY, Role, find_layer, slide_of
from napari_histodistill.viewer.review import ReviewControl
from napari_histodistill.viewer.slide_work import build_added_levels
from napari_histodistill.viewer.teacher import TeacherControl
from napari_histodistill.viewer.tissue import TissueControl
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_histodistill.jobs import Progress
    from napari_histodistill.slide import Slide
    from napari_histodistill.viewer.work import Runner

LEVELS_REFRESH_S = 1.0
"""How often an image whose levels are being computed is drawn anew, in seconds."""


@dataclass
class _Aside:
    """What is shown of a slide when it is brought back, and from where: centre and zoom; None if it never was shown."""

    shown: list[Layer]
    camera: tuple[tuple[float, ...], float] | None


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
    was_alone : bool
        Whether it was shown alone by now, so that the camera was its own.
    """

    moved = Signal()
    reopened = Signal()

    def __init__(self, viewer: ViewerModel, slide: Slide, runner: Runner, study_of: Callable[[Slide], Path]) -> None:
        self._viewer = weakref.ref(viewer)
        self.slide, self.runner, self._study_of = slide, runner, study_of
        self.icc = False
        self._aside: _Aside | None = None
        self.was_alone = False
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
            self._aside = _Aside([], (tuple(camera.center), float(camera.zoom)) if self.was_alone else None)
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
        """Show the slide as it was when it was set aside; one that was not, or comes first, is fitted to the canvas."""
        aside, self._aside = self._aside, None
        self.was_alone = True
        for layer in [] if aside is None else aside.shown:
            layer.visible = True
        if aside is None or aside.camera is None:
            fit_to(self.viewer, self.frame)
        else:
            camera_of(self.viewer).center, camera_of(self.viewer).zoom = aside.camera

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
        scale_bar_of(self.viewer).visible = True  # it reads the units of the layers
        if not self.aside:
            fit_to(self.viewer, self.frame)
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
