"""Is it good enough? For the "Review" widget: patches drawn at random, labelled one by one, and what they tell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_histodistill.jobs import ThreadJob
from napari_histodistill.predict.audit import (
    DRAWS,
    OWN,
    AuditFigures,
    DrawRequest,
    FiguresRequest,
    audit_figures,
    draw_audit,
    draw_more,
)
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.slide.tissue import TISSUE
from napari_histodistill.study.audit import change_audit
from napari_histodistill.viewer.geometry import camera_of, fly_to
from napari_histodistill.viewer.keeping import Keeper
from napari_histodistill.viewer.kept import KeptLayer
from napari_histodistill.viewer.layers import Role, audit_layer
from napari_histodistill.viewer.shown import OfShown, shown_prediction
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Labels, Layer

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.study import Audit, StudySlide
    from napari_histodistill.viewer.editing import Mask
    from napari_histodistill.viewer.slide_view import OpenSlideView

MORE: Final = 10
"""Draws that "more" adds."""
SHARE: Final = 0.6
"""Of the canvas, that a patch takes up."""
HIDDEN: Final = (
    Role.PSEUDO_MASK,
    Role.PREDICTION,
    Role.DIFFERENCE,
    Role.COMPARISON,
    Role.IMPORT,
    Role.PREVIEW,
    Role.CORRECTIONS,
    Role.PROBABILITY,
    Role.UNCERTAINTY,
    Role.PLACE,
)
"""What is taken off the tissue while a person judges it."""
AS_SHOWN, ALL_TUMOUR, ALL_NORMAL = "as shown", "all tumour", "all normal"


@dataclass(frozen=True)
class _Labelled:
    index: int
    labels: Mask
    how: str


@dataclass(frozen=True)
class _MoreRequest:
    entry: StudySlide
    draws: int


@dataclass(frozen=True)
class _Loaded:
    audit: Audit | None
    figures: AuditFigures


def _keep(entry: StudySlide, labelled: tuple[_Labelled, ...]) -> None:
    def change(audit: Audit) -> Audit:
        return reduce(lambda before, one: before.with_label(one.index, one.labels, one.how), labelled, audit)

    change_audit(entry.folder, change)


def _draw_more(request: _MoreRequest, control: JobControl) -> Audit:
    control.progress(0, 0, "Drawing more patches")
    return draw_more(request.entry, request.draws)


def _load(request: FiguresRequest, control: JobControl) -> _Loaded:
    return _Loaded(request.entry.audit(), audit_figures(request, control))


class AuditControl(OfShown):
    """The audit of one slide in a viewer.

    Parameters
    ----------
    view : OpenSlideView

    Attributes
    ----------
    audit : Audit or None
    figures : AuditFigures or None
        What is known of the predictions; of an instant ago while ``busy``.
    patch : int or None
        Position in the audit of the patch that is being labelled.
    """

    def __init__(self, view: OpenSlideView) -> None:
        super().__init__(view)
        self.audit: Audit | None = None
        self.figures: AuditFigures | None = None
        self.patch: int | None = None
        self._patches = KeptLayer(view, Role.AUDIT)
        self._known: tuple[Any, ...] = ()
        self._before: list[int] = []
        self._visible: dict[Role, bool] = {}
        self._active: Layer | None = None
        self._camera: tuple[tuple[float, ...], float] | None = None
        """Centre and zoom from before labelling."""
        self._keeper: Keeper[_Labelled, None] = Keeper(view.runner, _keep, self._on_kept)
        self._loading, self._drawing = Latest(view.runner), Latest(view.runner)
        self._begin()

    # State

    @property
    def draw_reason(self) -> str:
        """Why no patches can be drawn now, in a sentence; empty if they can."""
        if self.reason:
            return self.reason
        if self._view.distil.state.busy:
            return "The model is learning: draw when the rounds are over, so that it learns from none of the patches."
        return "Patches are being drawn: a moment." if self._drawing.busy else ""

    @property
    def busy(self) -> bool:
        """Whether patches are being drawn or figures computed."""
        return self._drawing.busy or self._loading.busy

    @property
    def unlabelled(self) -> list[int]:
        """Patches that wait for a label, in the order of the draws."""
        return [] if self.audit is None else [i for i in self.audit.active if self.audit.patches[i].labels is None]

    @property
    def can_go_back(self) -> bool:
        """Whether a patch was labelled before this one since the slide was opened."""
        return bool(self._before)

    def title_of(self, prediction: str) -> str:
        """What a prediction is called in the list."""
        if prediction == OWN:
            adopted = None if self._result is None else self._result.run.record.settings.get("adopted")
            return "teacher" if adopted is None else f"mask ({self.title_of(str(adopted))})"
        distillation, _, number = prediction.rpartition("-")
        folder = self._view.distil.history.folder
        title = f"round {int(number)}"
        return title if folder is None or folder.name == distillation else f"{title} of {int(distillation)}"

    # Drawing

    def draw(self, draws: int = DRAWS, seed: int = 0) -> None:
        """Draw the first patches, with strata by the prediction on screen; later ones come with `more`."""
        shown = shown_prediction(self._view)
        if self.draw_reason or self.audit is not None or self._result is None or shown is None:
            return
        request = DrawRequest(self._result.entry, shown.name, draws, seed)
        self._drawing.start(ThreadJob(draw_audit, request), done=self._on_drawn, failed=self._on_failed)
        self.changed.emit()

    def more(self, draws: int = MORE) -> None:
        """Let more of the draws count; labels stay."""
        if self.draw_reason or self.audit is None or self._result is None:
            return
        self._keeper.finish()
        request = _MoreRequest(self._result.entry, draws)
        self._drawing.start(ThreadJob(_draw_more, request), done=self._on_drawn, failed=self._on_failed)
        self.changed.emit()

    def _on_drawn(self, audit: Audit) -> None:
        self.audit = audit
        self._load()
        if self._view.in_front:
            self.label_next()

    def _on_failed(self, error: Exception) -> None:
        tell(error)
        self.changed.emit()

    # Labelling

    @property
    def layer(self) -> Labels | None:
        """The patch on screen, which can be painted in; None while none is labelled."""
        return self._patches.layer

    def label_next(self) -> None:
        """Show the next patch that has no label; after the last one, the slide again."""
        waiting = [index for index in self.unlabelled if index != self.patch]
        if waiting:
            self._open(waiting[0])
        else:
            self.stop()

    def go_back(self) -> None:
        """Show the patch that was labelled before, to label it again."""
        if self._before:
            self._open(self._before.pop())

    def paint(self, value: int) -> None:
        """Take up the brush to paint 1 tumour, 2 normal or 3 ignore (cannot be told) in the patch."""
        layer = self.layer
        if layer is not None:
            self._view.viewer.layers.selection.active = layer
            layer.selected_label, layer.mode = value, "paint"

    def label(self, how: str) -> None:
        """Keep what a person says of the patch: `AS_SHOWN`, `ALL_TUMOUR` or `ALL_NORMAL`; on to the next."""
        layer, index = self.layer, self.patch
        if self.audit is None or index is None or layer is None or self._result is None:
            return
        start = self._start_of(index)
        values = np.asarray(layer.data)[1:-1, 1:-1]
        if how != AS_SHOWN:
            values = np.full_like(values, TUMOUR if how == ALL_TUMOUR else NORMAL)
        known = np.isin(values, (TUMOUR, NORMAL, IGNORE))
        labels = np.where(start == OUTSIDE, np.uint8(OUTSIDE), np.where(known, values, start)).astype(np.uint8)
        self.audit = self.audit.with_label(index, labels, how)
        self._before.append(index)
        self._keeper.keep(self._result.entry, _Labelled(index, labels, how))
        self.label_next()

    def stop(self) -> None:
        """Leave labelling; everything that was on screen shows again."""
        self.patch = None
        layer, layers = self.layer, self._view.viewer.layers
        painted_in = layer is not None and layers.selection.active is layer
        self._patches.put_away()
        for role, visible in self._visible.items():
            hidden = self._view.layer(role)
            if hidden is not None:
                self._view.set_shown(hidden, on=visible)
        self._visible.clear()
        if painted_in:  # what is painted next must not go into a patch that is not seen
            layers.selection.active = self._active if self._active in layers else self._view.layer(Role.SLIDE)
        if self._camera is not None and self._view.in_front:
            camera_of(self._view.viewer).center, camera_of(self._view.viewer).zoom = self._camera
        self._active = self._camera = None
        self.changed.emit()

    def _open(self, index: int) -> None:
        assert self.audit is not None
        assert self._result is not None
        patch, view = self.audit.patches[index], self._view
        self._uncover(HIDDEN)
        self.patch = index
        framed = np.pad(self._start_of(index), 1)  # a border of nothing, so that outlines close along the patch's edge
        data = audit_layer(view.slide, view.frame, framed, self._result.mask.shape, (patch.y - 1, patch.x - 1))
        selection = view.viewer.layers.selection
        begins = self.layer is None
        layer: Any = self._patches.show(data)
        if begins:
            layer.contour = 1
            self._active, selection.active = selection.active, layer
            camera = camera_of(view.viewer)
            self._camera = self._camera or (tuple(camera.center), float(camera.zoom))
        layer.mode = "pan_zoom"
        layer.brush_size = max(2, patch.height // 6)
        middle = [
            float(layer.translate[axis] + (size + 1) / 2 * layer.scale[axis])
            for axis, size in enumerate((patch.height, patch.width))
        ]
        fly_to(view.viewer, (middle[0], middle[1]), patch.height * float(layer.scale[0]), SHARE)
        self.changed.emit()

    def _uncover(self, roles: Iterable[Role]) -> None:
        """Take layers off the tissue until labelling ends."""
        for role in roles:
            over = self._view.layer(role)
            if over is not None:
                self._visible.setdefault(role, self._view.shows(over))
                self._view.set_shown(over, on=False)

    def _start_of(self, index: int) -> Mask:
        """What a patch shows at first: what was said of it, or else what is predicted; 0 outside tissue."""
        assert self.audit is not None
        assert self._result is not None
        patch = self.audit.patches[index]
        if patch.labels is not None:
            return patch.labels
        prediction = self._view.distil.prediction
        shown = self._result.mask if prediction is None or prediction.layer is None else prediction
        said = shown.data[patch.slices]
        tissue = self._result.tissue_on_grid()[patch.slices] == TISSUE
        start: Mask = np.where(tissue, np.where(said == TUMOUR, TUMOUR, NORMAL), OUTSIDE).astype(np.uint8)
        return start

    def _on_kept(self, _result: None) -> None:
        if not self._keeper.waiting:
            self._load()

    # News

    def _leave_result(self) -> None:
        self._keeper.leave()
        self._drawing.cancel()
        self.stop()
        self._patches.remove()
        self.audit = self.figures = None
        self._before.clear()

    def _on_shown(self) -> None:
        result, history = self._result, self._view.distil.history
        if self.patch is not None:  # a round may just have brought its prediction
            self._uncover(role for role in HIDDEN if role not in self._visible)
        known = (result, None if result is None else result.run.record.state, history.folder, history.predicted)
        if known != self._known:
            self._known = known
            self._load()

    def refresh(self) -> None:
        """Compute the figures anew, with the corrections that were made since."""
        if self._result is not None:
            self._load()

    def _load(self) -> None:
        if self._result is None:
            self._loading.cancel()
            return
        areas = {} if self.figures is None else self.figures.areas
        request = FiguresRequest(self._result.entry, areas)
        self._loading.start(ThreadJob(_load, request), done=self._on_loaded, failed=self._on_failed)
        self.changed.emit()

    def _on_loaded(self, loaded: _Loaded) -> None:
        self.figures = loaded.figures
        if not self._keeper.waiting:
            self.audit = loaded.audit
        self.changed.emit()

    def close(self) -> None:
        """Stop all work; every label is on disk when this returns."""
        self._loading.cancel()
        self._drawing.cancel()
        self._keeper.leave()
