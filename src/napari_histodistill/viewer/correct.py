"""Correcting a result by hand, for the "Correct" widget: tools, brush, undo, and changes that are previewed."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from psygnal import Signal

from napari_histodistill.jobs import ThreadJob
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study.journal import describe
from napari_histodistill.viewer.display import show_window
from napari_histodistill.viewer.editing import clip_window
from napari_histodistill.viewer.geometry import camera_of, plain_brush, visible_window
from napari_histodistill.viewer.layers import Role, add_layer, corrections_layer, preview_layer
from napari_histodistill.viewer.look import Look, look_at
from napari_histodistill.viewer.masking import overlap
from napari_histodistill.viewer.shaping import Proposal, Shaping, ShapingRequest, propose
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_histodistill.jobs import Progress
    from napari_histodistill.study import Entry
    from napari_histodistill.viewer.editing import Window
    from napari_histodistill.viewer.result import ResultView
    from napari_histodistill.viewer.slide_view import OpenSlideView

NAMES: Final = {TUMOUR: "tumour", NORMAL: "normal", IGNORE: "ignore"}
DEFAULT_BRUSH: Final = 60.0
DEFAULT_AMOUNTS: Final = {
    Shaping.GROW: 12.0,
    Shaping.SHRINK: 12.0,
    Shaping.FILL_HOLES: 5000.0,
    Shaping.DROP_ISLANDS: 5000.0,
}


class Tool(enum.Enum):
    """What the mouse does."""

    MOVE = "pan_zoom"
    BRUSH = "paint"
    LASSO = "lasso"
    POLYGON = "polygon"
    FILL = "fill"


class BrushUnit(enum.Enum):
    """What stays the same while zooming."""

    UM = "µm"
    SCREEN = "screen px"


class CorrectControl:
    """Corrections of one slide in a viewer.

    Parameters
    ----------
    view : OpenSlideView

    Attributes
    ----------
    value : int
        What is painted: 1 tumour, 2 normal, 3 ignore; 0 erases.
    brush, brush_unit : float, BrushUnit
        Diameter of the brush.
    extend : bool
        Whether painting outside tissue is done all the same; otherwise it is refused.
    whole_slide : bool
        Whether a `Shaping` is for the whole slide or for what is in view.
    amounts : dict
        Of each `Shaping`: µm or µm².
    progress : Progress or None
        Of the proposal that is being made.
    proposal : Proposal or None
        What would change.
    changed : Signal
        Something that a widget shows has changed.
    """

    changed = Signal()

    def __init__(self, view: OpenSlideView) -> None:
        self._view = view
        self.value = TUMOUR
        self.brush, self.brush_unit = DEFAULT_BRUSH, BrushUnit.UM
        self.extend = self.whole_slide = False
        self.amounts = dict(DEFAULT_AMOUNTS)
        self.progress: Progress | None = None
        self.proposal: Proposal | None = None
        self._result: ResultView | None = None
        self._layer: Labels | None = None
        self._proposed: Window | None = None
        self._setting = False
        self._proposing = Latest(view.runner)
        view.teacher.changed.connect(self._on_teacher)
        camera_of(view.viewer).events.zoom.connect(self._on_zoom)
        view.viewer.layers.selection.events.active.connect(self._on_active)
        plain_brush(view.viewer)
        self._on_teacher()

    # State

    @property
    def reason(self) -> str:
        """Why nothing can be corrected, in a sentence; empty if it can."""
        if self._view.teacher.result is None:
            return "There is no tumour mask to correct on this slide yet: run the teacher first."
        return ""

    @property
    def save_state(self) -> str:
        """Whether corrections are on disk, in words."""
        if self._result is None:
            return ""
        if self._result.save_problem:
            return self._result.save_problem
        return "All corrections are saved." if self._result.all_saved else "Saving…"

    @property
    def tool(self) -> Tool:
        """What the mouse does."""
        layer = self._layer
        if layer is None or layer is not self._view.viewer.layers.selection.active:
            return Tool.MOVE
        if layer.mode == "paint" and self._result is not None and self._result.painting.lasso:
            return Tool.LASSO
        mode = "paint" if layer.mode == "erase" else layer.mode
        return next((tool for tool in Tool if tool.value == mode), Tool.MOVE)

    @property
    def undo_text(self) -> str:
        """What would be undone, in words; empty if nothing."""
        return "" if self._result is None else _last(self._result.mask.undo_steps)

    @property
    def redo_text(self) -> str:
        """What would be redone, in words; empty if nothing."""
        return "" if self._result is None else _last(self._result.mask.redo_steps)

    @property
    def shows_corrections(self) -> bool:
        """Whether the layer of corrections is on screen."""
        layer = self._view.layer(Role.CORRECTIONS)
        return layer is not None and bool(layer.visible)

    # Painting

    def pick(self, tool: Tool, value: int | None = None) -> None:
        """Take up a tool, to set ``value`` if given: 1 tumour, 2 normal, 3 ignore; 0 erases."""
        if self._result is None:
            return
        if self._audit_patch is not None:
            self._pick_in_patch(tool, value)
            return
        layer = self._shown_layer()
        if value is not None:
            self.value = value
        self._view.viewer.layers.selection.active = layer
        self._result.painting.lasso = tool is Tool.LASSO
        self._setting = True
        layer.selected_label = self.value
        if tool is Tool.BRUSH and self.value == OUTSIDE:
            layer.mode = "erase"
        else:
            layer.mode = "paint" if tool is Tool.LASSO else tool.value
        self._setting = False
        self._apply_brush()
        if tool is Tool.LASSO:
            layer.cursor = "cross"
        self.changed.emit()

    def paint(self, value: int) -> None:
        """Paint ``value`` with the tool that is taken up, the brush if that is none; in an audited patch, there."""
        self.pick(self.tool if self.tool in {Tool.LASSO, Tool.POLYGON, Tool.FILL} else Tool.BRUSH, value)

    def _pick_in_patch(self, tool: Tool, value: int | None) -> None:
        """The same for the audited patch, which has no lasso: a polygon does for it."""
        patch = self._audit_patch
        assert patch is not None
        self._view.viewer.layers.selection.active = patch
        if value is not None:
            patch.selected_label = value
        patch.mode = Tool.POLYGON.value if tool is Tool.LASSO else tool.value

    def set_brush(self, size: float | None = None, unit: BrushUnit | None = None) -> None:
        """Change the brush's diameter, or its unit at the same apparent size."""
        if unit is not None and unit is not self.brush_unit:
            zoom = float(camera_of(self._view.viewer).zoom)
            self.brush *= zoom if unit is BrushUnit.SCREEN else 1 / zoom
            self.brush_unit = unit
        if size is not None:
            self.brush = size
        self._apply_brush()
        self.changed.emit()

    def set_extend(self, on: bool) -> None:
        """Paint outside tissue all the same, or refuse to."""
        self.extend = on
        if self._result is not None:
            self._result.mask.allowed = None if on else self._result.inside_tissue
        self.changed.emit()

    def undo(self) -> None:
        """Take the last step back."""
        patch = self._audit_patch
        if patch is not None:
            patch.undo()
            return
        self._travel("undoing")

    def redo(self) -> None:
        """Bring back the step undone last."""
        patch = self._audit_patch
        if patch is not None:
            patch.redo()
            return
        self._travel("redoing")

    @property
    def _audit_patch(self) -> Labels | None:
        """The patch that is being audited, unless the mask was taken up: what is set in it is no correction."""
        layer: Any = self._view.layer(Role.AUDIT)
        taken_up = self._layer is not None and self._layer is self._view.viewer.layers.selection.active
        return None if layer is None or not layer.visible or taken_up else layer

    def _travel(self, way: str) -> None:
        if self._result is not None and not self._result.pacer.busy:
            self._result.pacer.run(getattr(self._result.mask, way)(), self.changed.emit)

    def show_corrections(self, on: bool) -> None:
        """Show, on a layer of its own, what a person set."""
        layer = self._view.layer(Role.CORRECTIONS)
        if layer is None and on and self._result is not None:
            data = corrections_layer(self._view.slide, self._view.frame, self._result.mask.hand)
            layer = add_layer(self._view.viewer, data)
            layer.editable = False
        if layer is not None:
            layer.visible = on
        self.changed.emit()

    # Changes that are previewed

    def set_amount(self, shaping: Shaping, amount: float) -> None:
        """Change how much a `Shaping` does; a preview of another amount is dropped."""
        self.amounts[shaping] = amount
        self.discard()

    def set_scope(self, *, whole_slide: bool) -> None:
        """Change what is in view or the whole slide; a preview is dropped."""
        self.whole_slide = whole_slide
        self.discard()

    @property
    def proposing(self) -> bool:
        """Whether a proposal is being made."""
        return self._proposing.busy

    def propose(self, shaping: Shaping) -> None:
        """Find and show what a `Shaping` would change."""
        self.discard()
        result = self._result
        if result is None or result.pacer.busy:
            return
        mask = result.mask
        mask.commit()
        everything = slice(0, mask.shape[0]), slice(0, mask.shape[1])
        seen = everything if self.whole_slide else clip_window(visible_window(self._shown_layer()), mask.shape)
        if seen[0].start >= seen[0].stop or seen[1].start >= seen[1].stop:
            return
        request = ShapingRequest(
            shaping,
            self.amounts.get(shaping, 0.0),
            mask.data,
            mask.hand,
            mask.computed,
            result.inside_tissue,
            seen,
            result.entry.grid.pixel_size_um,
        )
        self._proposed = seen
        self._proposing.start(
            ThreadJob(propose, request), progress=self._on_progress, done=self._on_proposed, failed=self._on_failed
        )
        self.changed.emit()

    def apply(self) -> None:
        """Make what is previewed a correction, as one step."""
        proposal, result = self.proposal, self._result
        self.discard()
        if proposal is not None and result is not None:
            shaping = proposal.request.shaping
            result.pacer.run(result.mask.applying(proposal.patches, shaping.value, shaping.sets), self.changed.emit)
            self.changed.emit()

    def discard(self) -> None:
        """Drop the preview, or stop making one."""
        self._proposing.cancel()
        self.progress = self.proposal = self._proposed = None
        layer = self._view.layer(Role.PREVIEW)
        if layer is not None:
            self._view.viewer.layers.remove(layer)
        self.changed.emit()

    def _on_progress(self, progress: Progress) -> None:
        self.progress = progress
        self.changed.emit()

    def _on_proposed(self, proposal: Proposal) -> None:
        self.progress, self.proposal = None, proposal
        if proposal.pixels:
            data = preview_layer(
                self._view.slide, self._view.frame, proposal.picture, proposal.request.data.shape, proposal.corner
            )
            add_layer(self._view.viewer, data).editable = False
        self.changed.emit()

    def _on_failed(self, error: Exception) -> None:
        self.progress = self._proposed = None
        tell(error)
        self.changed.emit()

    # News

    def _on_teacher(self) -> None:
        result = self._view.teacher.result
        if result is not self._result:
            self.discard()
            self._result, self._layer = result, None
            corrections = self._view.layer(Role.CORRECTIONS)
            if corrections is not None:
                self._view.viewer.layers.remove(corrections)
            if result is not None:
                self.set_extend(self.extend)
                for signal in (result.mask.edited, result.mask.computed_changed):
                    signal.connect(self._on_mask_changed)
                result.mask.stepped.connect(self._on_stepped)
        layer = None if result is None else result.mask_layer
        if layer is not None and layer is not self._layer:
            self._layer = layer
            for event in (layer.events.mode, layer.events.selected_label):
                event.connect(self._on_tool)
            layer.events.brush_size.connect(self._on_brush_size)
            self._apply_brush()
        self.changed.emit()

    def _on_mask_changed(self, window: Window) -> None:
        if self._proposed is not None and overlap(window, self._proposed):
            self.discard()  # it is of a mask that is no more
        layer: Any = self._view.layer(Role.CORRECTIONS)
        if layer is not None:
            show_window(layer, window)

    def _on_stepped(self, _entry: Entry) -> None:
        self.changed.emit()

    def _on_tool(self, _event: Any = None) -> None:
        layer = self._layer
        if self._setting or layer is None or self._result is None:
            return
        if layer.mode != Tool.BRUSH.value:
            self._result.painting.lasso = False
        if layer.mode == "erase":
            self.value = OUTSIDE
        elif layer.selected_label in {OUTSIDE, *NAMES}:
            self.value = int(layer.selected_label)
        self.changed.emit()

    def _on_active(self, _event: Any = None) -> None:
        self.changed.emit()

    def _on_brush_size(self, _event: Any = None) -> None:
        if not self._setting and self._layer is not None:
            self.brush = float(self._layer.brush_size) / self._pixels_per_unit
            self.changed.emit()

    def _on_zoom(self, _event: Any = None) -> None:
        if self.brush_unit is BrushUnit.SCREEN:
            self._apply_brush()

    @property
    def _pixels_per_unit(self) -> float:
        """Mask pixels under one µm or one screen px."""
        assert self._result is not None
        per_um = 1 / min(self._result.entry.grid.pixel_size_um)
        return per_um if self.brush_unit is BrushUnit.UM else per_um / float(camera_of(self._view.viewer).zoom)

    def _apply_brush(self) -> None:
        if self._result is not None and self._layer is not None:
            self._setting = True
            self._layer.brush_size = max(1, round(self.brush * self._pixels_per_unit))
            self._setting = False

    def _shown_layer(self) -> Labels:
        """The mask's layer, brought back and made visible if need be."""
        assert self._result is not None
        self._result.show()
        self._on_teacher()
        assert self._layer is not None
        if not self._layer.visible:  # setting it gives the layer the mode back that it was hidden with
            look_at(self._view, Look.MASK)
        return self._layer

    def close(self) -> None:
        """Stop all work."""
        self._proposing.cancel()


def _last(steps: list[Entry]) -> str:
    return describe(steps[-1], NAMES) if steps else ""


KEYS: Final[dict[str, tuple[str, Callable[[CorrectControl], None]]]] = {
    "T": ("paint tumour", lambda control: control.paint(TUMOUR)),
    "N": ("paint normal", lambda control: control.paint(NORMAL)),
    "I": ("paint ignore", lambda control: control.paint(IGNORE)),
    "E": ("erase corrections", lambda control: control.paint(OUTSIDE)),
    "Q": ("lasso", lambda control: control.pick(Tool.LASSO)),
    "Shift-Q": ("polygon", lambda control: control.pick(Tool.POLYGON)),
    "W": ("move the slide", lambda control: control.pick(Tool.MOVE)),
    "Control-Z": ("undo", CorrectControl.undo),
    "Control-Shift-Z": ("redo", CorrectControl.redo),
    "G": ("grow tumour", lambda control: control.propose(Shaping.GROW)),
    "Shift-G": ("shrink tumour", lambda control: control.propose(Shaping.SHRINK)),
    "H": ("fill holes", lambda control: control.propose(Shaping.FILL_HOLES)),
    "Shift-H": ("drop islands", lambda control: control.propose(Shaping.DROP_ISLANDS)),
    "K": ("confirm what is shown", lambda control: control.propose(Shaping.CONFIRM)),
    "Shift-K": ("forget corrections", lambda control: control.propose(Shaping.FORGET)),
    "Shift-Enter": ("apply the preview", CorrectControl.apply),
    "Shift-Escape": ("drop the preview", CorrectControl.discard),
    "U": ("show corrections", lambda control: control.show_corrections(not control.shows_corrections)),
}
"""Keys of the viewer, none of which napari gives to Labels, Image or the viewer except E, Z and undo, which agree."""
