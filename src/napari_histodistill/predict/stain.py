"""Stain normalisation of a whole slide: fitted once on its tissue, then the same for every tile, so no seam shows."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.nets.card import ModelError
from napari_histodistill.nets.stain import StainStatistics, fit_stain, normalise_stain
from napari_histodistill.slide.tissue import TISSUE

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.nets import ModelCard
    from napari_histodistill.predict.engine import Predictor
    from napari_histodistill.predict.tiling import Tiling
    from napari_histodistill.slide import Slide
    from napari_histodistill.study import TissueOnGrid

BLOCKS = 12
"""Blocks with tissue that the fit looks at, spread evenly over the slide."""


class Recolouring:
    """A slide's colours in those of the training tissue.

    Colours are looked up in a table of 128 levels a channel, 20 times faster than the formula.

    Parameters
    ----------
    source, reference : StainStatistics
        Of the slide's tissue and of the model's.
    """

    def __init__(self, source: StainStatistics, reference: StainStatistics) -> None:
        self._source, self._reference = source, reference
        levels = np.arange(1, 256, 2, dtype=np.uint8)
        colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
        changed = normalise_stain(colours.reshape(len(levels), -1, 3), source, reference).reshape(-1, 3)
        # Four bytes a colour: whole numbers are looked up three times faster than rows of three.
        self._table = np.pad(changed, [(0, 0), (0, 1)]).view(np.uint32)[:, 0]

    def __reduce__(self) -> tuple[Any, tuple[StainStatistics, StainStatistics]]:
        """Twelve numbers cross to another process, not the table, which is made there once."""
        return _recolouring, (self._source, self._reference)

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Images (..., 3), recoloured."""
        levels = images >> 1
        place = levels[..., 0].astype(np.intp)
        for channel in (1, 2):
            place <<= 7
            place |= levels[..., channel]
        recoloured: npt.NDArray[np.uint8] = self._table.take(place)[..., None].view(np.uint8)[..., :3]
        return recoloured


@lru_cache(maxsize=4)
def _recolouring(source: StainStatistics, reference: StainStatistics) -> Recolouring:
    return Recolouring(source, reference)


class StainNormalised:
    """A model that sees every image recoloured; a `Predictor` itself."""

    def __init__(self, model: Predictor, recolour: Recolouring) -> None:
        self.card, self.device, self._model, self.recolour = model.card, model.device, model, recolour

    def predict(self, images: npt.NDArray[np.uint8], /) -> npt.NDArray[np.float32]:
        """Tumour probabilities (n, h, w) of images (n, h, w, 3) in the slide's own colours."""
        return self._model.predict(self.recolour(images))


def recoloured(model: Predictor, recolour: Recolouring | None) -> Predictor:
    """The model behind a stain normalisation, or the model itself."""
    return model if recolour is None else StainNormalised(model, recolour)


def fit_recolouring(
    card: ModelCard, slide: Slide, tiling: Tiling, tiles: set[int], tissue: TissueOnGrid
) -> Recolouring | None:
    """The stain normalisation that a model's card asks for, fitted on a slide's tissue; None if it asks for none.

    The fit depends on slide, tiling and tissue only, so a run that is resumed sees the same colours. A slide with too
    little tissue to fit keeps its own.

    Raises
    ------
    ModelError
        If the card asks for a normalisation and does not say to what.
    """
    if card.stain_normalisation is None:
        return None
    if card.stain_reference is None:
        raise ModelError(f"The card of {card.name} asks for stain normalisation without a reference: train it anew.")
    reference = StainStatistics.from_card(card.stain_reference)
    ordered = sorted(tiles)
    chosen = [ordered[i] for i in np.unique(np.linspace(0, len(ordered) - 1, BLOCKS).round().astype(int))]
    source = fit_stain(_tissue_pixels(slide, tiling, index, tissue) for index in chosen) if chosen else None
    return Recolouring(source, reference) if source else None


def _tissue_pixels(slide: Slide, tiling: Tiling, index: int, tissue: TissueOnGrid) -> npt.NDArray[np.uint8]:
    """Pixels of a block that lie in tissue, uint8 (n, 1, 3)."""
    window = tiling.block_window(index)
    image = slide.read_resampled(tiling.input_shape, *window.scaled(tiling.factor))
    inside = tissue[window.slices] == TISSUE
    pixels: npt.NDArray[np.uint8] = image[inside.repeat(tiling.factor, 0).repeat(tiling.factor, 1)]
    return pixels[:, None]
