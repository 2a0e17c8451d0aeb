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


class TopDown(nn.Module):
    """Joins feature maps from the deepest to the finest: each is projected, added to the coarser one, and filtered."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.filter = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                nn.Conv2d(width, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for _ in channels
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps of ``width`` channels on the grids of ``features``, finest first."""
        coarser, joined = None, []
        for feature, project, smooth in zip(
            reversed(features), reversed(self.project), reversed(self.filter), strict=True
        ):
            x = project(feature)
            if coarser is not None:
                x = x + upsample(coarser, x.shape[-1] // coarser.shape[-1])
            coarser = smooth(x)
            joined.append(coarser)
        return joined[::-1]


class SideNetwork(nn.Module):
    """Side outputs on an encoder and their fusion f_w = sum w_i f_i (He, Li and Zemp 2024, section 2).

    Parameters
    ----------
    encoder : str
        A name in `ENCODERS`.
    weights : sequence of float
        Fusion weight of every side output, shallowest first; they sum to one.
    width : int
        With a width above zero the features of a depth are joined with those of the next deeper one before its side
        output, top down in ``width`` channels (Lin et al. 2017), so that fine maps know what coarse ones saw.
    context_um, mpp : float
        With ``context_um`` above zero every side output also sees the mean of the deepest features over a square
        window of about that side, so that a pixel knows what kind of tissue it lies in.
    """

    def __init__(
        self, encoder: str, weights: Sequence[float], width: int = 0, context_um: float = 0.0, mpp: float = 1.0
    ) -> None:
        super().__init__()
        self.encoder = ENCODERS[encoder]()
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)
        channels, stride = self.encoder.channels, self.encoder.strides[-1]
        self.decoder = TopDown(channels, width) if width else None
        self.heads = nn.ModuleList(nn.Conv2d(width or c, 1, 1) for c in channels)
        self.window = 2 * round(context_um / (2 * mpp * stride)) + 1 if context_um > 0 else 0
        self.context = nn.Conv2d(channels[-1], len(weights), 1) if self.window else None
        for head in [*self.heads, *([self.context] if self.context else [])]:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

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
        return self.encoder.margin + self.window // 2 * self.encoder.strides[-1]

    def forward(self, x: Tensor) -> Maps:
        """Maps of images (n, 3, h, w) normalised as the encoder wants; h and w are multiples of `multiple`."""
        features = self.encoder(x)
        deepest, context = features[-1], None
        if self.decoder is not None:
            features = self.decoder(features)
        if self.context is not None:
            deepest = functional.avg_pool2d(deepest, self.window, 1, self.window // 2, count_include_pad=False)
            context = upsample(self.context(deepest), self.multiple // self.stride)
        logits = []
        for i, (head, feature) in enumerate(zip(self.heads, features, strict=True)):
            logit = upsample(head(feature), self.encoder.strides[i] // self.stride)
            logits.append(logit if context is None else logit + context[:, i : i + 1])
        sides = torch.sigmoid(torch.cat(logits, 1))
        fused = (sides * self.weights[:, None, None]).sum(1)
        return Maps(sides, fused)
