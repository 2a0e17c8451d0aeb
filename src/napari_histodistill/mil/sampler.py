"""Training batches: pairs of a positive and a negative image, cropped, augmented and cut into bags."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_histodistill.mil.augment import (
    Batch,
    degrade,
    exchange_halves,
    jitter_stain,
    lay_glass,
    random_crop,
)

if TYPE_CHECKING:
    from collections.abc import Generator as Iter
    from collections.abc import Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_histodistill.mil.settings import Augmentation

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1
WEIGHT_UNIT = 16
"""Weight 1 of a pixel in a weight plane of bytes, so that 0 to 15 are in sixteenths."""


class Sampler:
    """Draws the batches of an epoch; an epoch passes once over as many images as there are.

    A batch is made of pairs. The first image of a pair holds tumour or may do so, the second does not; without
    negative images both are of the first kind. Every pair has random numbers of its own, so the batches of several
    processes together are those of one (see ``share``).

    Parameters
    ----------
    images : sequence of uint8 (h, w, 3)
        At the network's mpp.
    labels : sequence of int
        1 for positive bags, 0 for negative ones, -1 for bags that nobody labelled.
    crop, batch : int
        Side of the training images in px, and their number in a batch.
    augmentation : Augmentation
    targets : sequence of uint8 (h, w) or (h, w, k), optional
        Tumour probability x 255 of every pixel, or what each of k maps is to say.
    weights : sequence of uint8 (h, w), optional
        Weight of every pixel's target x `WEIGHT_UNIT`.
    share : (int, int)
        This process's number and how many there are: it draws that share of the pairs of every batch.
    workers : int
        Threads that make batches ahead.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.uint8]],
        labels: Sequence[int],
        crop: int,
        batch: int,
        augmentation: Augmentation,
        targets: Sequence[NDArray[np.uint8]] | None = None,
        weights: Sequence[NDArray[np.uint8]] | None = None,
        share: tuple[int, int] = (0, 1),
        workers: int = 1,
    ) -> None:
        self._planes = [planes for planes in (images, targets, weights) if planes is not None]
        self._weighted = weights is not None
        self._labels = np.asarray(labels)
        negative = np.flatnonzero(self._labels == NEGATIVE)
        other = np.flatnonzero(self._labels != NEGATIVE)
        self._members = (other if len(other) else negative, negative if len(negative) else other)
        self.crop, self.pairs, self.augmentation, self.workers = crop, max(1, batch // 2), augmentation, workers
        self.share = share
        self.steps = -(-len(self._labels) // (2 * self.pairs))

    def epoch(self, seed: int, number: int) -> Iter[Batch]:
        """The batches of epoch ``number``: the same for the same seed, whatever came before."""
        rng = np.random.default_rng([seed, number])
        first, second = (_endless(members, self.steps * self.pairs, rng) for members in self._members)
        rank, processes = self.share

        def make(step: int) -> Batch:
            places = range(rank, self.pairs, processes)
            return Batch.join(
                [
                    self._pair(first[i], second[i], place, np.random.default_rng([seed, number, i]))
                    for place in places
                    for i in [step * self.pairs + place]
                ]
            )

        with ThreadPoolExecutor(self.workers, "batch") as pool:
            ahead: deque[Future[Batch]] = deque()
            try:
                for step in range(self.steps):
                    ahead.append(pool.submit(make, step))
                    if len(ahead) > self.workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _pair(self, first: int, second: int, place: int, rng: Generator) -> Batch:
        """One pair, with halves exchanged where its place in the batch is among those that are."""
        settings = self.augmentation
        planes = torch.stack([self._draw(i, rng) for i in (first, second)])
        images = degrade(jitter_stain(planes[:, :3], settings, rng), settings, rng)
        planes = torch.cat([images, planes[:, 3:]], 1)
        exchanged = place < round(settings.mosaic * self.pairs) and self._labels[second] == NEGATIVE
        labels = (int(self._labels[first]), int(self._labels[second]))
        return lay_glass(
            exchange_halves(planes[:1], planes[1:], float(exchanged), rng, labels, weighted=self._weighted),
            settings.glass,
            rng,
        )

    def _draw(self, index: int, rng: Generator) -> Tensor:
        """A crop (3 or more, crop, crop): the image in [0, 1], its targets in [0, 1], its weights."""
        crop = random_crop(
            np.dstack([planes[index] for planes in self._planes]), self.crop, self.augmentation.zoom, rng
        )
        planes = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))).float()
        last = len(planes) - self._weighted
        planes[:last] /= 255
        planes[last:] /= WEIGHT_UNIT
        return planes


def _endless(members: NDArray[np.intp], count: int, rng: Generator) -> list[int]:
    """``count`` members, every one as often as every other, in random order."""
    rounds = -(-count // len(members))
    return [int(i) for _ in range(rounds) for i in rng.permutation(members)][:count]
