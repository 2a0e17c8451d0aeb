"""What a round of the distillation says of a slide, as a layer: tiles as they land, corrections laid over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.jobs import ThreadJob
from napari_histodistill.predict import mask_region
from napari_histodistill.slide.labels import NORMAL, TUMOUR
from napari_histodistill.viewer.display import show_thumbnail, show_window
from napari_histodistill.viewer.editing import clip_window, window_of
from napari_histodistill.viewer.geometry import visible_window
from napari_histodistill.viewer.kept import KeptLayer
from napari_histodistill.viewer.layers import ADDED, REMOVED, Role, add_layer, difference_layer, prediction_layer
from napari_histodistill.viewer.look import Look, look_at
from napari_histodistill.viewer.masking import MaskRequest, blocks_of, blocks_under, compute_masks, nearest_first
from napari_histodistill.viewer.pacing import Pacer
from napari_histodistill.viewer.work import Latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari.layers import Labels

    from napari_histodistill.distill import Preview
    from napari_histodistill.jobs import Progress
    from napari_histodistill.nets.masking import MaskSettings
    from napari_histodistill.study import Run
    from napari_histodistill.viewer.editing import Mask, Window
    from napari_histodistill.viewer.result import ResultView
    from napari_histodistill.viewer.slide_view import OpenSlideView


class PredictionView:
    """The prediction layer of a slide, and its difference from the pseudo-mask.

    Parameters
    ----------
    view : OpenSlideView
    result : ResultView
        The pseudo-mask, whose corrections, tissue, threshold and smoothing hold for predictions too.

    Attributes
    ----------
    data : uint8 array
        What is shown: what the round says, what a person set laid over it.
    """

    def __init__(self, view: OpenSlideView, result: ResultView) -> None:
        self._view, self._result = view, result
        self._computed: Mask = np.zeros(result.mask.shape, np.uint8)
        self.data: Mask = np.zeros_like(self._computed)
        self._difference: Mask | None = None
        self._against = KeptLayer(view, Role.DIFFERENCE)
        self._blocks = blocks_of(result.mask.shape)
        self._pending: set[int] = set()
        self._stale: set[int] = set()
        """Blocks that still show what was shown before."""
        self._masking = Latest(view.runner)
        self._pacer = Pacer(view.runner, lambda _window: None)
        self._run: Run | None = None
        self._made_with: tuple[MaskSettings, int] | None = None
        self._title = ""
        self._painted = False
        """Whether the user has painted since a prediction was last asked for."""
        result.mask.edited.connect(self._on_edited)
        result.mask.computed_changed.connect(self._on_pseudo_mask)

    @property
    def layer(self) -> Labels | None:
        """The prediction's layer, None if there is none."""
        return self._view.layer(Role.PREDICTION)

    @property
    def difference(self) -> Labels | None:
        """The layer of the difference, None if it is not shown."""
        return self._against.layer

    # What is shown

    def expect(self) -> None:
        """The user has asked for a prediction: it takes the mask's place on screen unless the user paints meanwhile."""
        self._painted = False

    def show(self, run: Run | None, title: str) -> None:
        """Show a round's prediction from now on; of one that is being written, what has landed."""
        self._run = run
        self._pending.clear()
        self._masking.cancel()
        self._ensure_layer()
        self.set_title(title)
        self._stale = set(range(len(self._blocks)))
        if run is not None:
            self._stale -= run.record.finished
            self._want(run.record.finished)
        self._pacer.run(self._blanking())

    def follow(self, run: Run) -> None:
        """Show all that has landed of the round that is shown."""
        self._run = run
        self._want(run.record.finished)

    def hide(self) -> None:
        """Take the layers away: there is nothing to show."""
        self._run = None
        self._masking.cancel()
        self._pending.clear()
        self.show_difference(on=False)
        if self.layer is not None:
            self._view.viewer.layers.remove(self.layer)
        self._computed, self.data = np.zeros(self.data.shape, np.uint8), np.zeros(self.data.shape, np.uint8)

    def _blanking(self) -> Iterator[Window]:
        """Lay corrections alone over the blocks that nothing is known of, piece by piece."""
        while self._stale:
            window = self._blocks[self._stale.pop()]
            self._computed[window] = 0
            self._lay_over(window)
            yield window

    def land(self, run: Run, window: Window) -> None:
        """Show a window that has landed on disk."""
        self._run = run
        self._want(blocks_under(window, self.data.shape))

    def preview(self, preview: Preview, title: str) -> None:
        """Show a block of what an unfinished student says."""
        self._ensure_layer()
        self.set_title(title)
        height, width = preview.probability.shape
        window = clip_window(window_of(preview.y, preview.x, height, width), self.data.shape)
        settings = self._result.settings
        self._stale.difference_update(blocks_under(window, self.data.shape))
        self._computed[window] = mask_region(
            preview.probability,
            self._result.tissue_on_grid()[window],
            0,
            0,
            height,
            width,
            settings,
            self._result.entry.grid.pixel_size_um,
        )
        self._lay_over(window)

    def set_title(self, title: str) -> None:
        """Name the layer after what it shows."""
        self._title = title
        if self.layer is not None:
            self.layer.name = title

    def show_difference(self, on: bool) -> None:
        """Show where prediction and pseudo-mask disagree, or no longer."""
        layer = self.difference
        if on and layer is None:
            self._difference = np.zeros(self.data.shape, np.uint8)
            data = difference_layer(self._view.slide, self._view.frame, self._difference)
            self._against.show(data).editable = False
            self._pacer.run(self._comparing())
        elif not on and layer is not None:
            self._against.put_away()
            self._difference = None

    def _comparing(self) -> Iterator[Window]:
        for window in self._blocks:
            self._compare(window)
            yield window

    def close(self, *, remove_layers: bool = False) -> None:
        """Stop the work and, if asked, take the layers away."""
        self._masking.cancel()
        self._stale.clear()
        self._result.mask.edited.disconnect(self._on_edited)
        self._result.mask.computed_changed.disconnect(self._on_pseudo_mask)
        if remove_layers:
            self._against.remove()
            if self.layer is not None:
                self._view.viewer.layers.remove(self.layer)

    def _ensure_layer(self) -> None:
        if self.layer is None:
            layer: Any = add_layer(
                self._view.viewer,
                prediction_layer(self._view.slide, self._view.frame, self.data),
                below=self._result.mask_layer,
            )
            layer.editable = False
            layer.name = self._title or layer.name
            look_at(self._view, Look.MASK if self._painted else Look.PREDICTION)

    # Masks

    def _want(self, blocks: Iterable[int]) -> None:
        self._pending |= set(blocks)
        if not self._masking.busy:
            self._compute()

    def _compute(self) -> None:
        if self._run is None or not self._pending:
            return
        layer = self.layer
        seen = visible_window(layer) if layer is not None else self._blocks[0]
        windows = nearest_first((self._blocks[index] for index in self._pending), seen)
        self._pending = set()
        settings, tissue = self._result.settings, self._result.tissue_on_grid(self._run)
        self._made_with = settings, id(tissue.mask)
        request = MaskRequest(
            self._run.probability.levels[0],
            tissue,
            settings,
            self._result.entry.grid.pixel_size_um,
            tuple(windows),
        )
        self._masking.start(ThreadJob(compute_masks, request), progress=self._on_block, done=self._on_computed)

    def _on_block(self, progress: Progress) -> None:
        block = progress.payload
        self._stale.difference_update(blocks_under(block.window, self.data.shape))
        self._computed[block.window] = block.mask
        self._lay_over(block.window)

    def _on_computed(self, _result: None) -> None:
        if self._pending:
            self._compute()
        elif self.layer is not None:
            show_thumbnail(self.layer)

    def _on_edited(self, window: Window) -> None:
        self._painted = True
        if self.layer is not None:
            self._lay_over(window)

    def _on_pseudo_mask(self, window: Window) -> None:
        """The pseudo-mask was computed anew: where threshold, smoothing or tissue are others, follow them."""
        self._compare(window)
        now = self._result.settings, id(self._result.tissue_on_grid().mask)
        if self._run is not None and self._made_with is not None and self._made_with != now:
            self._made_with = now
            self._want(self._run.record.finished)

    def _lay_over(self, window: Window) -> None:
        """Corrections win over what the round says, wherever it says something."""
        hand = self._result.mask.hand[window]
        self.data[window] = np.where(hand > 0, hand - np.uint8(1), self._computed[window])
        if self.layer is not None:
            show_window(self.layer, window)
        self._compare(window)

    def _compare(self, window: Window) -> None:
        if self._difference is None:
            return
        mine, other = self.data[window] == TUMOUR, self._result.mask.data[window] == TUMOUR
        said = (self.data[window] == TUMOUR) | (self.data[window] == NORMAL)
        difference = np.zeros(mine.shape, np.uint8)
        difference[mine & ~other] = ADDED
        difference[other & ~mine & said] = REMOVED
        self._difference[window] = difference
        if self.difference is not None:
            show_window(self.difference, window)
