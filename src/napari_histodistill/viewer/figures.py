"""The numbers under a pseudo-mask, kept up to date block by block while it is computed and painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psygnal import Signal

from napari_histodistill.jobs import JobControl, ThreadJob
from napari_histodistill.predict.figures import Figures, summarise_blocks
from napari_histodistill.viewer.masking import blocks_of, blocks_under
from napari_histodistill.viewer.work import Latest

if TYPE_CHECKING:
    from napari_histodistill.jobs import Progress
    from napari_histodistill.predict.mask import Plane
    from napari_histodistill.viewer.editing import EditableMask, Mask, Window
    from napari_histodistill.viewer.work import Runner

DELAY_S: Final = 0.15
NOTHING: Final = Figures(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class _Request:
    blocks: tuple[tuple[int, Window, Mask], ...]
    probability: Plane
    pixel_size_um: tuple[float, float]


class LiveFigures:
    """Figures of a mask that changes.

    Parameters
    ----------
    mask : EditableMask
    probability : Plane
        uint8 on the same grid.
    pixel_size_um : tuple of float
        (y, x).
    runner : Runner

    Attributes
    ----------
    changed : Signal
        Emitted with the new `Figures`.
    """

    changed = Signal(object)

    def __init__(
        self, mask: EditableMask, probability: Plane, pixel_size_um: tuple[float, float], runner: Runner
    ) -> None:
        self._mask, self._probability, self._pixel_size = mask, probability, pixel_size_um
        self._windows = blocks_of(mask.shape)
        self._blocks: dict[int, Figures] = {}
        self._dirty: set[int] = set()
        self._work = Latest(runner)
        self._timer = runner.timer(DELAY_S, self._count)
        mask.edited.connect(self._on_changed)
        mask.computed_changed.connect(self._on_changed)

    @property
    def total(self) -> Figures:
        """Figures of the whole mask, as far as they are known."""
        parts = self._blocks.values()
        tissue = sum(part.tissue_mm2 for part in parts)
        tumour = sum(part.tumour_mm2 for part in parts)
        if not tissue:
            return NOTHING
        mean = sum(part.mean_probability * part.tissue_mm2 for part in parts) / tissue
        return Figures(tumour, tissue, 100 * tumour / tissue, mean)

    def stop(self) -> None:
        """Count no more."""
        self._timer.stop()
        self._work.cancel()

    def _on_changed(self, window: Window) -> None:
        self._dirty.update(blocks_under(window, self._mask.shape))
        if not self._timer.active and not self._work.busy:
            self._timer.start()

    def _count(self) -> None:
        blocks = tuple((index, self._windows[index], self._mask.data[self._windows[index]]) for index in self._dirty)
        self._dirty.clear()
        job = ThreadJob(_count_blocks, _Request(blocks, self._probability, self._pixel_size))
        self._work.start(job, progress=self._on_block, done=self._on_done)

    def _on_block(self, progress: Progress) -> None:
        index, figures = progress.payload
        self._blocks[index] = figures

    def _on_done(self, _result: None) -> None:
        self.changed.emit(self.total)
        if self._dirty:
            self._timer.start()


def _count_blocks(request: _Request, control: JobControl) -> None:
    for number, (index, window, mask) in enumerate(request.blocks, start=1):
        control.checkpoint()
        figures = summarise_blocks([(mask, request.probability[window])], request.pixel_size_um)
        control.progress(number, len(request.blocks), payload=(index, figures))
