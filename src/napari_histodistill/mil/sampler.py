"""Training batches: as many positive as negative images, cropped, augmented and cut into bags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_histodistill.mil.augment import (
    Augmentation,
    Batch,
    degrade,
    exchange_halves,
    jitter_stain,
    lay_glass,
    random_crop,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor


class Sampler:
    """Draws the batches of an epoch; an epoch passes once over as many images as there are.

    Parameters
    ----------
    images : sequence of uint8 (h, w, 3)
        At the network's mpp.
    labels : sequence of int
        1 for positive bags, 0 for negative ones; both must occur.
    crop, batch : int
        Side of the training images in px, and their number in a batch.
    augmentation : Augmentation
    targets : sequence of uint8 (h, w), optional
        Tumour probability x 255 of every pixel.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.uint8]],
        labels: Sequence[int],
        crop: int,
        batch: int,
        augmentation: Augmentation,
        targets: Sequence[NDArray[np.uint8]] | None = None,
    ) -> None:
        if targets is None:
            self._planes = list(images)
        else:
            self._planes = [np.dstack([image, target]) for image, target in zip(images, targets, strict=True)]
        self._members = [np.flatnonzero(np.asarray(labels) == label) for label in (1, 0)]
        self.crop, self.half, self.augmentation = crop, max(1, batch // 2), augmentation
        self.steps = -(-len(self._planes) // (2 * self.half))

    def epoch(self, seed: int, number: int) -> Iterator[Batch]:
        """The batches of epoch ``number``: the same for the same seed, whatever came before."""
        rng = np.random.default_rng([seed, number])
        positive, negative = (_endless(members, rng) for members in self._members)
        for _ in range(self.steps):
            batch = exchange_halves(self._draw(positive, rng), self._draw(negative, rng), self.augmentation.mosaic, rng)
            yield lay_glass(batch, self.augmentation.glass, rng)

    def _draw(self, members: Iterator[int], rng: Generator) -> Tensor:
        crops = [
            random_crop(self._planes[next(members)], self.crop, self.augmentation.zoom, rng) for _ in range(self.half)
        ]
        planes = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div_(255)
        images = degrade(jitter_stain(planes[:, :3], self.augmentation, rng), self.augmentation, rng)
        return torch.cat([images, planes[:, 3:]], 1)


def _endless(members: NDArray[np.intp], rng: Generator) -> Iterator[int]:
    while True:
        yield from map(int, rng.permutation(members))
