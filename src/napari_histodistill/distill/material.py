"""What students learn from: images with bag labels, as the student and as the teacher see them, and corrections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_histodistill.mil.store import ArrayStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_histodistill.mil.data import BagDataset
    from napari_histodistill.nets.stain import StainStatistics


@dataclass(frozen=True)
class Material:
    """Training images of a distillation.

    Attributes
    ----------
    mpp : float
        µm per pixel of all images.
    seen : sequence of uint8 (h, w, 3)
        One image a place, as the teacher sees it.
    place_labels : sequence of int
        1 where the place holds tumour, 0 where it does not, -1 where nobody knows.
    images : sequence of uint8 (h, w, 3)
        What the student is shown: every place once, or in several colours.
    places : sequence of int
        The place that each image shows.
    set_by_hand : sequence of uint8 (h, w), optional
        What a person set at each place: a label of `slide.labels`, 255 where nothing.
    """

    mpp: float
    seen: Sequence[NDArray[np.uint8]]
    place_labels: Sequence[int]
    images: Sequence[NDArray[np.uint8]]
    places: Sequence[int]
    set_by_hand: Sequence[NDArray[np.uint8]] | None = None

    @property
    def labels(self) -> list[int]:
        """The bag label of every image."""
        return [self.place_labels[place] for place in self.places]


def from_dataset(
    dataset: BagDataset, mpp: float, reference: StainStatistics | None, *, both_stains: bool = True
) -> Material:
    """The images of a data set at ``mpp``; with a ``reference`` stain the teacher sees them normalised to it."""
    n = len(dataset)
    labels = [bag.label for bag in dataset.bags]
    seen = ArrayStore(bag.read_image(mpp, reference) for bag in dataset.bags)
    if reference is None or not both_stains:
        return Material(mpp, seen, labels, seen, range(n))
    own = (bag.read_image(mpp) for bag in dataset.bags)
    images = ArrayStore(image for images in (own, seen) for image in images)
    return Material(mpp, seen, labels, images, [*range(n), *range(n)])
