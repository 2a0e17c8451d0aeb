"""Random training batches: geometry, stain, blur and noise, and mosaics of two bags.

The stain changes are wide on purpose: a teacher that saw one laboratory must work on the next one's colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_histodistill.mil.settings import Augmentation

# Optical densities of haematoxylin, eosin and the residual (Ruifrok and Johnston 2001), rows of unit length.
_HED = torch.tensor([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
_HED = _HED / _HED.norm(dim=1, keepdim=True)
_RGB_TO_HED = torch.linalg.inv(_HED)


def dense_tissue(image: NDArray[np.uint8], mpp: float, share: float) -> NDArray[np.bool_]:
    """Where an image (h, w, 3) is stained densely enough for epithelium, bool (h, w).

    Tumour is made of crowded cells, so the pale tissue beside it (fibres, oedema, muscle, glass) is hardly tumour,
    though no image-level label says so. Dense is where the optical density, smoothed at the scale of a cell (sigma
    9 µm), is at least ``share`` of its mean over the image's tissue; holes up to 0.01 mm², lumens mostly, belong to
    what surrounds them.
    """
    density = -np.log(np.maximum(image, 1) / 255.0).mean(2)
    tissue = density > 0.15
    mean = density[tissue].mean() if tissue.any() else 0.0
    return fill_holes(ndimage.gaussian_filter(density, 9 / mpp) >= share * mean, 0.01, mpp)


def fill_holes(mask: NDArray[np.bool_], up_to_mm2: float, mpp: float) -> NDArray[np.bool_]:
    """A mask (h, w) at ``mpp`` µm per pixel whose holes up to an area, lumens mostly, belong to it."""
    holes, _ = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    small = np.bincount(holes.ravel()) <= up_to_mm2 * 1e6 / mpp**2
    small[0] = False
    filled: NDArray[np.bool_] = mask | small[holes]
    return filled


def random_crop(image: NDArray[np.uint8], size: int, zoom: tuple[float, float], rng: Generator) -> NDArray[np.uint8]:
    """A ``size`` px square window of an image (h, w, c), randomly placed, magnified, turned and flipped.

    Windows that do not fit take the image's mirrored surroundings.
    """
    low, high = zoom
    side = round(size / math.exp(rng.uniform(math.log(low), math.log(high))))
    pad = [(max(0, side - n) // 2, -(-max(0, side - n) // 2)) for n in image.shape[:2]]
    if any(map(any, pad)):
        image = np.pad(image, [*pad, (0, 0)], mode="symmetric")
    y, x = (int(rng.integers(n - side + 1)) for n in image.shape[:2])
    window = np.rot90(image[y : y + side, x : x + side], int(rng.integers(4)))
    if rng.integers(2):
        window = window[:, ::-1]
    planes = [_resize(window[..., :3], size, Image.Resampling.BICUBIC)]
    planes += [_resize(window[..., c], size, Image.Resampling.BILINEAR)[..., None] for c in range(3, window.shape[2])]
    return np.concatenate(planes, 2)


def _resize(plane: NDArray[np.uint8], size: int, how: Image.Resampling) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((size, size), how))


def _uniform(rng: Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))


def jitter_stain(images: Tensor, settings: Augmentation, rng: Generator) -> Tensor:
    """Images (n, 3, h, w) in [0, 1] with other amounts of each stain and other colour channels, gamma included."""
    n, spread = len(images), settings.stain
    density = -images.clamp(min=1 / 255).log()
    amounts = torch.einsum("nchw,cs->nshw", density, _RGB_TO_HED)
    amounts = amounts * _uniform(rng, 1 - spread, 1 + spread, n, 3, 1, 1)
    amounts = amounts + _uniform(rng, -settings.shift, settings.shift, n, 3, 1, 1)
    density = torch.einsum("nshw,sc->nchw", amounts, _HED)
    density = density * _uniform(rng, 1 - spread, 1 + spread, n, 1, 1, 1)
    density = density * _uniform(rng, 1 - spread / 2, 1 + spread / 2, n, 3, 1, 1)
    return (-density).exp().clamp(0, 1)


def degrade(images: Tensor, settings: Augmentation, rng: Generator) -> Tensor:
    """Images (n, 3, h, w) in [0, 1], a third of them blurred and a third with noise."""
    images = images.clone()
    for i in range(len(images)):
        if settings.blur and rng.random() < 1 / 3:
            images[i] = _blur(images[i], rng.uniform(0.3, settings.blur))
        if settings.noise and rng.random() < 1 / 3:
            white = torch.from_numpy(rng.standard_normal(images[i].shape, dtype=np.float32))
            images[i] = (images[i] + rng.uniform(0, settings.noise) * white).clamp(0, 1)
    return images


def _blur(image: Tensor, sigma: float) -> Tensor:
    x = torch.arange(-3, 4, dtype=image.dtype)
    kernel = (-0.5 * (x / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, 7)
    padded = functional.pad(image[None], (3, 3, 3, 3), mode="reflect")
    return functional.conv2d(functional.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)[0]


def random_halves(n: int, size: int, rng: Generator) -> NDArray[np.bool_]:
    """Masks (n, size, size) of one side of a line at any angle, which cuts off between a third and two thirds."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    masks = np.empty((n, size, size), bool)
    for i in range(n):
        angle, share = rng.uniform(0, 2 * math.pi), rng.uniform(1 / 3, 2 / 3)
        height = math.cos(angle) * y + math.sin(angle) * x
        masks[i] = height < np.quantile(height[::4, ::4], share)
    return masks


@dataclass(frozen=True)
class Batch:
    """Images and the bags in them.

    Attributes
    ----------
    images : Tensor (n, 3, h, h) in [0, 1]
    bag_image, bag_label : Tensor (b,)
        The image that each bag lies in, and whether it holds tumour: 1 if so, 0 if not, -1 if nobody knows.
    bag_inside : Tensor (b, h, h)
        1 where the image belongs to the bag.
    targets : Tensor (n, k, h, h) or None
        Tumour probability of every pixel, for training with pixel targets; k is 1 unless every side output has its own.
    weights : Tensor (n, h, h) or None
        How much each pixel's target counts: 0 to ignore it, 1 for a pseudo-target, more for a correction.
    """

    images: Tensor
    bag_image: Tensor
    bag_label: Tensor
    bag_inside: Tensor
    targets: Tensor | None = None
    weights: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        return Batch(*(None if t is None else t.to(device, non_blocking=True) for t in self.tensors()))  # type: ignore[arg-type]

    @classmethod
    def join(cls, batches: Sequence[Batch]) -> Batch:
        """One batch of the images and bags of several, in their order."""
        starts = np.cumsum([0, *(len(b.images) for b in batches[:-1])])
        moved = [replace(b, bag_image=b.bag_image + int(start)) for b, start in zip(batches, starts, strict=True)]
        columns = zip(*(b.tensors() for b in moved), strict=True)
        return cls(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]

    def tensors(self) -> tuple[Tensor | None, ...]:
        """All of it, in the order of the attributes."""
        return (self.images, self.bag_image, self.bag_label, self.bag_inside, self.targets, self.weights)


def exchange_halves(
    first: Tensor,
    second: Tensor,
    share: float,
    rng: Generator,
    labels: tuple[int, int] = (1, 0),
    *,
    weighted: bool = False,
) -> Batch:
    """Exchange halves of some pairs of a positive and a negative image: mosaics of two bags each.

    A mosaic's negative half is known to be free of tumour whatever lies beside it, which its whole positive image
    could not say: the network has to find the tumour by what is there, not by what is near.

    Parameters
    ----------
    first, second : Tensor (n, 3 or more, h, h)
        Images, with targets as further planes if there are any, and weights as the last one.
    share : float
        Share of the pairs that are exchanged.
    labels : (int, int)
        Bag labels of the first and of the second images.
    weighted : bool
        Whether the last plane holds weights.

    Returns
    -------
    Batch
        2n images; a bag for every whole image and every half.
    """
    n, size = len(first), first.shape[-1]
    cut = round(share * n)
    half = torch.from_numpy(random_halves(cut, size, rng))
    mixed, other_mixed = first.clone(), second.clone()
    mixed[:cut] = torch.where(half[:, None], first[:cut], second[:cut])
    other_mixed[:cut] = torch.where(half[:, None], second[:cut], first[:cut])
    mine, other, whole = half.float(), 1 - half.float(), torch.ones(n - cut, size, size)
    i, j = torch.arange(n), torch.arange(n, 2 * n)
    planes = torch.cat([mixed, other_mixed])
    one, two = (float(label) for label in labels)
    return Batch(
        images=planes[:, :3],
        bag_image=torch.cat([i, i[:cut], j[:cut], j]),
        bag_label=torch.cat([torch.full((m,), v) for m, v in ((n, one), (cut, two), (cut, one), (n, two))]),
        bag_inside=torch.cat([mine, whole, other, other, mine, whole]),
        targets=planes[:, 3 : planes.shape[1] - weighted] if planes.shape[1] > 3 + weighted else None,
        weights=planes[:, -1] if weighted else None,
    )


def lay_glass(batch: Batch, share: float, rng: Generator) -> Batch:
    """Cover a half of some images with empty glass, a negative bag of its own.

    Pieces of tissue on a slide lie in glass of a near-white that the images of a data set need not hold, or hold in
    positive images only.
    """
    n, size = len(batch.images), batch.images.shape[-1]
    chosen = torch.from_numpy(np.flatnonzero(rng.random(n) < share))
    if not len(chosen):
        return batch
    half = torch.from_numpy(random_halves(len(chosen), size, rng)).float()
    colour = _uniform(rng, 0.75, 1, len(chosen), 1, 1, 1) + _uniform(rng, -0.03, 0.03, len(chosen), 3, 1, 1)
    grain = torch.from_numpy(rng.standard_normal((len(chosen), 3, size, size), dtype=np.float32))
    covered = torch.zeros(n, size, size)
    covered[chosen] = half
    images = batch.images.clone()
    images[chosen] = torch.where(half[:, None] > 0, (colour + 0.01 * grain).clamp(0, 1), images[chosen])
    inside = batch.bag_inside * (1 - covered[batch.bag_image])
    left = inside.mean((1, 2)) > 0.1
    return replace(
        batch,
        images=images,
        bag_image=torch.cat([batch.bag_image[left], chosen]),
        bag_label=torch.cat([batch.bag_label[left], torch.zeros(len(chosen))]),
        bag_inside=torch.cat([inside[left], half]),
        targets=None if batch.targets is None else batch.targets * (1 - covered[:, None]),
        weights=None if batch.weights is None else torch.where(covered > 0, torch.ones_like(covered), batch.weights),
    )
