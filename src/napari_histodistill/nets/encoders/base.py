"""What an encoder is, and what several of them are built from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_histodistill.errors import HistodistillError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Refine = Callable[[int, Tensor], Tensor]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FROM_SCRATCH = "random weights"


class MissingWeightsError(HistodistillError):
    """The package with the ImageNet weights, needed for training only, is not installed."""


def keep(_depth: int, features: Tensor) -> Tensor:
    """Features as they are: what `Encoder.forward` does to them if it is told nothing else."""
    return features


class Encoder(nn.Module):
    """A network whose ``forward`` gives one feature map per depth, finest first.

    Pixel ``j`` of a map is centred on image pixel ``j * stride + offset``, along both axes. The offset is 0 where
    strided convolutions pad symmetrically (pixel 0 of every map lies on pixel 0 of the image), and ``(stride - 1) / 2``
    where disjoint blocks are pooled (all grids share their outer edges).

    Attributes
    ----------
    channels, strides : tuple of int
        Of the feature maps. Every stride divides the next one. The sides of an image must be multiples of the last.
    offsets : tuple of float
        Image pixel that pixel 0 of each map is centred on.
    margin : int
        Image pixels between a feature's centre and the farthest pixel that it depends on: half the receptive field.
    period : int
        Windows of an image that are shifted by a multiple of this many pixels have the same features beyond the
        margin. The last stride for convolutions.
    mixed_on_cpu : bool
        Whether training in bfloat16 is faster on CPUs that multiply in it. Not measured to be so for convolutions.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    offsets: tuple[float, ...]
    margin: int
    period: int
    mixed_on_cpu: bool = False

    def forward(self, x: Tensor, refine: Refine = keep) -> list[Tensor]:
        """Feature maps (n, c, h / stride, w / stride) of images (n, 3, h, w) normalised with ImageNet's statistics.

        Parameters
        ----------
        refine : callable
            Called once a depth with its number, 0 for the finest, and its features, before they are pooled, read out or
            passed on; its result, of the same shape, takes their place. Attention comes in here.
        """
        raise NotImplementedError

    def load_imagenet(self) -> str:
        """Take pretrained weights if this encoder has any here, else leave the weights as they were initialised.

        Returns
        -------
        str
            What the training starts from, for its record and the model's card.

        Raises
        ------
        MissingWeightsError
            If the encoder has weights that can be installed, and they are not.
        """
        return FROM_SCRATCH


class BlockEncoder(Encoder):
    """An encoder that is a stem and a row of blocks, after some of which a map is taken.

    Attributes
    ----------
    taps : tuple of int
        Those blocks.
    """

    taps: tuple[int, ...]
    stem: nn.Module
    blocks: nn.ModuleList

    def forward(self, x: Tensor, refine: Refine = keep) -> list[Tensor]:
        """As `Encoder.forward`."""
        maps: list[Tensor] = []
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                x = refine(len(maps), x)
                maps.append(x)
        return maps


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Draw the weights of all convolutions and linear layers anew, for training from scratch.

    Convolutions: normal, variance 2 / fan-in (He et al. 2015); fan-in, since it is right for depthwise ones too. Linear
    layers: truncated normal of 0.02, as is usual in transformers. Biases are zero.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
