"""Training batches: as many positive as negative images, cropped, augmented and cut into bags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_histodistill.mil.augment import Augmentation, compose, degrade, jitter_stain, random_crop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images and the bags in them.

    Attributes
    ----------
    images : Tensor (n, 3, h, h) in [0, 1]
    bag_image, bag_label : Tensor (b,)
        The image that each bag lies in, and 1 if it holds tumour, else 0.
    bag_inside : Tensor (b, h, h)
        1 where the image belongs to the bag.
    targets : Tensor (n, h, h) or None
        Tumour probability of every pixel, for training with pixel targets.
    """

    images: Tensor
    bag_image: Tensor
    bag_label: Tensor
    bag_inside: Tensor
    targets: Tensor | None

    def to(self, device: str) -> Batch:
        """The batch on a device."""
        return Batch(
            self.images.to(device),
            self.bag_image.to(device),
            self.bag_label.to(device),
            self.bag_inside.to(device),
            None if self.targets is None else self.targets.to(device),
        )


class Sampler:
    """Draws the batches of an epoch; an epoch passes once over as many images as there are.

    Parameters
    ----------
    images : sequence of uint8 (h, w, 3)
        At the network's mpp.
    labels : sequence of int
        1 for positive bags, 0 for negative ones; both must occur.
    targets : sequence of uint8 (h, w), optional
        Tumour probability x 255 of every pixel.
    crop, batch : int
        Side of the training images in px, and their number in a batch.
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
        self._has_targets = targets is not None
        self._planes = (
            list(images)
            if targets is None
            else [np.dstack([image, target]) for image, target in zip(images, targets, strict=True)]
        )
        self._members = [np.flatnonzero(np.asarray(labels) == label) for label in (1, 0)]
        self.crop, self.half, self.augmentation = crop, max(1, batch // 2), augmentation
        self.steps = -(-len(self._planes) // (2 * self.half))

    def epoch(self, seed: int, number: int) -> Iterator[Batch]:
        """The batches of epoch ``number``: the same for the same seed, whatever came before."""
        rng = np.random.default_rng([seed, number])
        positive, negative = (_endless(members, rng) for members in self._members)
        for _ in range(self.steps):
            yield self._compose(self._draw(positive, rng), self._draw(negative, rng), rng)

    def _draw(self, members: Iterator[int], rng: Generator) -> Tensor:
        crops = [
            random_crop(self._planes[next(members)], self.crop, self.augmentation.zoom, rng) for _ in range(self.half)
        ]
        planes = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div_(255)
        images = degrade(jitter_stain(planes[:, :3], self.augmentation, rng), self.augmentation, rng)
        return torch.cat([images, planes[:, 3:]], 1)

    def _compose(self, positive: Tensor, negative: Tensor, rng: Generator) -> Batch:
        planes, image, label, inside = compose(positive, negative, self.augmentation.mosaic, rng)
        return Batch(planes[:, :3], image, label, inside, planes[:, 3] if self._has_targets else None)


def _endless(members: NDArray[np.intp], rng: Generator) -> Iterator[int]:
    while True:
        yield from map(int, rng.permutation(members))
