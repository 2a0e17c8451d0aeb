"""One prediction in a viewer: probability and pseudo-mask as layers, live threshold, corrections, figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from psygnal import Signal

from napari_histodistill.export import KEY, provenance_of
from napari_histodistill.jobs import JobControl, ThreadJob
from napari_histodistill.predict import write_pseudo_mask
from napari_histodistill.predict.figures import COUNTED
from napari_histodistill.slide.labels import OUTSIDE
from napari_histodistill.study import Run, RunState, TissueOnGrid
from napari_histodistill.viewer.display import show_thumbnail, show_window
from napari_histodistill.viewer.editing import EditableMask
from napari_histodistill.viewer.figures import LiveFigures
from napari_histodistill.viewer.geometry import visible_window
from napari_histodistill.viewer.layers import (
    PSEUDO_MASK_VALUES,
    Role,
    add_layer,
    probability_layer,
    pseudo_mask_layer,
)
from napari_histodistill.viewer.masking import MaskRequest, blocks_of, blocks_under, compute_masks, nearest_first
from napari_histodistill.viewer.pacing import Pacer
from napari_histodistill.viewer.painting import Painting
from napari_histodistill.viewer.saving import CorrectionsSaver, SavedCorrections
from napari_histodistill.viewer.work import Latest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Image, Labels
    from numpy.typing import NDArray

    from napari_histodistill.jobs import Progress
    from napari_histodistill.nets.masking import MaskSettings
    from napari_histodistill.predict import Figures
    from napari_histodistill.study import StudySlide
    from napari_histodistill.viewer.editing import Mask, Window
    from napari_histodistill.viewer.slide_view import OpenSlideView
    from napari_histodistill.viewer.work import AnyJob

SETTINGS_DELAY_S: Final = 0.04
"""Threshold and smoothing are followed this often while a slider moves."""
TISSUE_DELAY_S: Final = 0.3
KEEP_DELAY_S: Final = 2.0
"""From the last change of threshold, smoothing or tissue until the study's mask is written anew."""
REDRAW_S: Final = 0.5
"""How often the probabilities are drawn anew while they stream in."""


class ResultView:
    """A run of a study's slide, shown in a viewer and edited there.

    Parameters
    ----------
    view : OpenSlideView
    entry : StudySlide
    run : Run
    tissue : uint8 array
        Tissue mask, any grid over the slide: 0 background, 1 tissue, 3 artefact. Read again after `tissue_changed`.
    saved : SavedCorrections
        Corrections so far.
    settings : MaskSettings

    Attributes
    ----------
    figures_changed : Signal
        Emitted with the new `Figures`.
    saved : Signal
        Whether every correction is on disk.
    painting : Painting
        Of the pseudo-mask's layer.
    pacer : Pacer
        Runs long changes to the mask.
    """

    figures_changed = Signal(object)
    saved = Signal(bool)

    def __init__(
        self,
        view: OpenSlideView,
        entry: StudySlide,
        run: Run,
        tissue: Mask,
        saved: SavedCorrections,
        settings: MaskSettings,
    ) -> None:
        self._view, self.entry, self.run, self.settings = view, entry, run, settings
        self._tissue, self._tissue_is_new = tissue, False
        nothing_yet = np.zeros(entry.grid.shape, np.uint8)
        self.mask = EditableMask(nothing_yet, saved.hand, zero_erases=True, undo=saved.undo, redo=saved.redo)
        self.mask.context = f"run {run.folder.name}"
        self.mask.allowed = self.inside_tissue
        self.pacer = Pacer(view.runner, self._show_window)
        self._blocks = blocks_of(self.mask.shape)
        self._landed: set[int] = set()
        self._pending: set[int] = set()
        self._masking, self._keeping = Latest(view.runner), Latest(view.runner)
        self._follow = view.runner.timer(SETTINGS_DELAY_S, self._mask_all)
        self._tissue_timer = view.runner.timer(TISSUE_DELAY_S, self._mask_all)
        self._redraw = view.runner.timer(REDRAW_S, self._redraw_probability)
        self._keep = view.runner.timer(KEEP_DELAY_S, self._write_mask)
        self._rest = view.runner.timer(0, self.show)
        self._figures = LiveFigures(self.mask, run.probability.levels[0], entry.grid.pixel_size_um, view.runner)
        self._figures.changed.connect(self.figures_changed.emit)
        self._saver = CorrectionsSaver(self.mask, entry, view.runner, saved)
        self._saver.saved.connect(self.saved.emit)
        self._show_mask()
        self._rest.start()  # not in one go: each layer costs napari 0.1 to 0.2 s
        self.land(run.record.finished if run.record.state is not RunState.COMPLETE else range(len(self._blocks)))

    # Layers

    @property
    def mask_layer(self) -> Labels | None:
        """The pseudo-mask's layer, None if the user removed it."""
        return self._view.layer(Role.PSEUDO_MASK)

    @property
    def probability_layer(self) -> Image | None:
        """The layer of probabilities, None if the user removed it."""
        return self._view.layer(Role.PROBABILITY)

    def show(self) -> None:
        """Add the layers that the viewer does not have."""
        self._show_mask()
        if self.probability_layer is None:
            layer = probability_layer(self._view.slide, self._view.frame, self.run.probability.levels)
            add_layer(self._view.viewer, layer, below=self.mask_layer)

    def _show_mask(self) -> None:
        if self.mask_layer is None:
            slide, frame = self._view.slide, self._view.frame
            layer: Any = add_layer(self._view.viewer, pseudo_mask_layer(slide, frame, self.mask.data))
            layer.brush_size = 20
            self.painting = Painting(layer, self.mask, PSEUDO_MASK_VALUES, self.pacer.run)
            self._hide_tissue()
            self._note_provenance()

    def _note_provenance(self) -> None:
        """Tell the layer what made its mask, for whoever saves it."""
        layer = self.mask_layer
        if layer is not None:
            made_by = provenance_of(self.entry, self.run, self.settings)
            layer.metadata[KEY] = made_by.as_dict()

    def _hide_tissue(self) -> None:
        """The pseudo-mask says where tissue is, and two colours over the slide say less than one."""
        tissue = self._view.layer(Role.TISSUE)
        if tissue is not None:
            self._view.set_shown(tissue, on=False)

    def _show_window(self, window: Window) -> None:
        layer = self.mask_layer
        if layer is not None:
            show_window(layer, window)

    def inside_tissue(self, window: Window) -> NDArray[np.bool_]:
        """Where in a window there is tissue or artefact, bool (h, w)."""
        inside: NDArray[np.bool_] = TissueOnGrid(self._tissue, self.mask.shape, [])[window] != OUTSIDE
        return inside

    # What comes in

    def land(self, blocks: Iterable[int]) -> None:
        """Show blocks whose probabilities are on disk."""
        fresh = set(blocks)
        self._landed |= fresh
        self._pending |= fresh
        if not self._redraw.active:
            self._redraw.start()
        if not self._masking.busy:
            self._mask_pending()

    def land_window(self, window: Window) -> None:
        """Show a window of the working grid whose probabilities are on disk."""
        self.land(blocks_under(window, self.mask.shape))

    def complete(self, run: Run) -> None:
        """The run is done: everything is final, also along the edges of blocks."""
        self.run = run
        self._note_provenance()
        self.land(range(len(self._blocks)))

    def set(self, settings: MaskSettings) -> None:
        """Follow new settings; the visible part first, corrections stay."""
        self.settings = settings
        self._note_provenance()
        if not self._follow.active:
            self._follow.start()

    def tissue_changed(self, tissue: Mask) -> None:
        """Follow an edited or newly found tissue mask."""
        self._tissue, self._tissue_is_new = tissue, True
        self._tissue_timer.start()

    def tissue_on_grid(self, run: Run | None = None) -> TissueOnGrid:
        """The tissue as it is shown, on the working grid, without what a run (this one by default) could not read."""
        return TissueOnGrid(self._tissue, self.mask.shape, (run or self.run).record.unreadable)

    # Masking

    def _mask_all(self) -> None:
        self._pending = set(self._landed)
        self._mask_pending()
        if self.run.record.state is RunState.COMPLETE:
            self._keep.start()

    def _mask_pending(self) -> None:
        layer = self.mask_layer
        seen = visible_window(layer) if layer is not None else self._blocks[0]
        windows = nearest_first((self._blocks[index] for index in self._pending), seen)
        if not windows:
            return
        request = MaskRequest(
            self.run.probability.levels[0],
            self.tissue_on_grid(),
            self.settings,
            self.entry.grid.pixel_size_um,
            tuple(windows),
        )
        self._pending = set()
        self._masking.start(ThreadJob(compute_masks, request), progress=self._on_block, done=self._on_masked)

    def _on_block(self, progress: Progress) -> None:
        block = progress.payload
        self.mask.set_computed(block.window, block.mask)
        self._show_window(block.window)

    def _on_masked(self, _result: None) -> None:
        if self._pending:
            self._mask_pending()
        elif self.mask_layer is not None:
            show_thumbnail(self.mask_layer)

    def _redraw_probability(self) -> None:
        layer = self.probability_layer
        if layer is not None:
            layer.data = list(self.run.probability.levels)

    # What goes out

    @property
    def figures(self) -> Figures:
        """Numbers of what is shown."""
        return self._figures.total

    @property
    def all_saved(self) -> bool:
        """Whether the study holds every correction."""
        return self._saver.all_saved

    @property
    def saved_state(self) -> str:
        """What the study holds of the corrections, in a word: "none", "saving…" or "saved"."""
        return self._saver.state

    @property
    def save_problem(self) -> str:
        """Why corrections are not on disk, in a sentence; empty if they are, or about to be."""
        return self._saver.problem

    def corrections(self) -> SavedCorrections:
        """The corrections as they are now, for a result that takes this one's place."""
        return self._saver.corrections()

    def look_for_corrections(self) -> None:
        """Show what others have written to the study, such as an import."""
        self._saver.look()

    def look_if_changed(self) -> None:
        """The same where their journal has changed; cheap enough to be called every second."""
        self._saver.look_if_changed()

    def flush(self) -> None:
        """Write every correction, now."""
        self._saver.flush()

    def write_now(self) -> AnyJob | None:
        """Write corrections here and begin to write a mask that is not; its job, for another thread to wait for."""
        self._saver.flush()
        if self._follow.active or self._tissue_timer.active:
            self._mask_all()
        if self._keep.active:
            self._keep.stop()
            self._write_mask()
        return self._keeping.job

    def _write_mask(self) -> None:
        tissue = self._view.tissue.saved_form() if self._tissue_is_new else None
        self._tissue_is_new = False
        request = KeepRequest(self.entry, self.run, self.settings, tissue)
        self._keeping.start(ThreadJob(keep_mask, request), done=lambda _result: None)

    def close(self, *, remove_layers: bool = False, wait: bool = False) -> None:
        """Write what is not written, stop all other work and, if asked, take the layers away.

        Corrections are on disk when this returns; the mask of a threshold that was changed a moment ago is if ``wait``.
        """
        for timer in (self._follow, self._tissue_timer, self._redraw, self._rest):
            timer.stop()
        self._masking.cancel()
        self._figures.stop()
        self.pacer.finish()
        self._saver.flush()
        if self._keep.active:
            self._keep.stop()
            self._write_mask()
        if wait:
            self._keeping.finish()
        if remove_layers:
            for layer in (self.mask_layer, self.probability_layer):
                if layer is not None:
                    self._view.viewer.layers.remove(layer)


@dataclass(frozen=True)
class KeepRequest:
    """Which run's mask is written anew, with which settings and, if it is new too, which tissue."""

    entry: StudySlide
    run: Run
    settings: MaskSettings
    tissue: tuple[Mask, dict[str, Any], bool] | None


def keep_mask(request: KeepRequest, control: JobControl) -> None:
    """Write a run's pseudo-mask anew, and with what tissue, threshold and smoothing it was made.

    A run that another one has replaced meanwhile is gone, and its mask with it.
    """
    with request.entry.lock():
        if request.tissue is not None:
            mask, settings, edited = request.tissue
            request.entry.save_tissue(mask, settings=settings, edited=edited)
        if not request.run.folder.exists():
            return
        corrections = request.entry.all_corrections().journal_bytes
        figures = write_pseudo_mask(request.entry, request.run, request.settings, control)
        request.run.record.summary = {
            **(request.run.record.summary or {}),
            **asdict(figures),
            **asdict(request.settings),
            COUNTED: corrections,
        }
        request.run.save()
