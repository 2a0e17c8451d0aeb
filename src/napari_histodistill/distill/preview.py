"""A first look at a student that is still learning: what it says of the block in view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.job import Preview
from napari_histodistill.predict.predict import tiling_of, tissue_tiles
from napari_histodistill.predict.stain import fit_recolouring
from napari_histodistill.slide import open_slide

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_histodistill.distill.slides import OpenEntry
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.nets.card import ModelCard
    from napari_histodistill.nets.model import Model
    from napari_histodistill.study import StudySlide


class Previewer:
    """Reports a `Preview` of the block of a slide nearest to a place, each time it is called with a student.

    Parameters
    ----------
    entry : StudySlide
    card : ModelCard
        Of the first teacher: students read slides as it does.
    center : (y, x), optional
        Level-0 position; the middle of the tissue's blocks if None.
    number : int
        Of the round.
    control : JobControl
    opened : OpenEntry, optional
        The slide as the material of the round has opened it; otherwise it is opened here.
    """

    def __init__(
        self,
        entry: StudySlide,
        card: ModelCard,
        center: tuple[float, float] | None,
        number: int,
        control: JobControl,
        opened: OpenEntry | None = None,
    ) -> None:
        self._entry, self._number, self._control, self._epoch = entry, number, control, 0
        self._tiling, tissue = tiling_of(entry, card), entry.tissue_on_grid()
        tiles = tissue_tiles(self._tiling, tissue)
        at = entry.grid.from_level0(*center) if center else (entry.grid.shape[0] / 2, entry.grid.shape[1] / 2)
        self._index = self._tiling.ordered(tiles, at)[0] if tiles else 0
        window = self._tiling.tile_window(self._index)
        if opened is not None:
            image, recolour = opened.read(window), opened.recolour
        else:
            with open_slide(entry.slide_path, mpp=entry.mpp) as slide:
                image = slide.read_resampled(self._tiling.input_shape, *window.scaled(self._tiling.factor))
                recolour = fit_recolouring(card, slide, self._tiling, tiles, tissue)
        self._image = image if recolour is None else recolour(image)

    def __call__(self, student: Model) -> None:
        """Report what a student says."""
        self._epoch += 1
        block, shown = self._tiling.block_window(self._index), self._tiling.map_window(self._index)
        values = self._tiling.reduce(student.predict(self._image[None])[0], self._index)
        y, x = block.y - shown.y, block.x - shown.x
        probability: NDArray[np.uint8] = np.rint(255 * values[y : y + block.height, x : x + block.width]).astype(
            np.uint8
        )
        preview = Preview(self._entry.fingerprint, block.y, block.x, probability, self._number, self._epoch)
        self._control.progress(0, 0, f"Preview of round {self._number} after epoch {self._epoch}", preview)
