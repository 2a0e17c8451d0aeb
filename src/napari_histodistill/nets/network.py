"""The segmentation network: an encoder, side outputs at several depths, and their fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from napari_histodistill.nets.encoder import ENCODERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Maps:
    """What the network says: tumour probabilities on the grid of its finest side output.

    Attributes
    ----------
    sides : Tensor (n, s, h, w)
        Side outputs f_1..f_s in [0, 1], shallowest first, all on the finest one's grid.
    fused : Tensor (n, h, w)
        Their weighted sum f_w.
    """

    sides: Tensor
    fused: Tensor

    def all(self) -> Tensor:
        """Sides and fusion together, (n, s + 1, h, w): a bag loss treats them alike."""
        return torch.cat([self.sides, self.fused[:, None]], 1)


def upsample(maps: Tensor, factor: int) -> Tensor:
    """Bilinear samples of maps (n, c, h, w) at ``j / factor``: (n, c, h * factor, w * factor).

    Pixel 0 stays where it is, as the symmetric padding of the encoders wants it (see `encoder`); past the last pixel
    the edge is repeated.
    """
    if factor == 1:
        return maps
    h, w = maps.shape[-2:]
    grown = functional.pad(maps, (0, 1, 0, 1), mode="replicate")
    grown = functional.interpolate(grown, (h * factor + 1, w * factor + 1), mode="bilinear", align_corners=True)
    return grown[..., :-1, :-1]


def _head(channels: int) -> nn.Conv2d:
    """A side output that starts near one half everywhere."""
    head = nn.Conv2d(channels, 1, 1)
    nn.init.normal_(head.weight, std=0.01)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return head


class SideNetwork(nn.Module):
    """Side outputs on an encoder and their fusion f_w = sum w_i f_i (He, Li and Zemp 2024, section 2).

    Parameters
    ----------
    encoder : str
        A name in `ENCODERS`.
    weights : sequence of float
        Fusion weight of every side output, shallowest first; they sum to one.
    """

    def __init__(self, encoder: str, weights: Sequence[float]) -> None:
        super().__init__()
        self.encoder = ENCODERS[encoder]()
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)
        self.heads = nn.ModuleList(_head(channels) for channels in self.encoder.channels)

    @property
    def stride(self) -> int:
        """Image pixels per pixel of the maps."""
        return self.encoder.strides[0]

    @property
    def multiple(self) -> int:
        """Image sides must be a multiple of this, and two windows agree if they are shifted by a multiple of it."""
        return self.encoder.strides[-1]

    @property
    def margin(self) -> int:
        """Image pixels from an edge within which the maps depend on where the image was cut."""
        return self.encoder.margin

    def forward(self, x: Tensor) -> Maps:
        """Maps of images (n, 3, h, w) normalised as the encoder wants; h and w are multiples of `multiple`."""
        features = zip(self.heads, self.encoder(x), self.encoder.strides, strict=True)
        logits = [upsample(head(feature), stride // self.stride) for head, feature, stride in features]
        sides = torch.sigmoid(torch.cat(logits, 1).float())
        fused = (sides * self.weights[:, None, None]).sum(1)
        return Maps(sides, fused)
