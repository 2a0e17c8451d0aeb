"""The segmentation network: an encoder, side outputs at several depths, and their fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_histodistill.nets.attention import CrissCrossAttention
from napari_histodistill.nets.registry import ENCODERS

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
    offset : float
        Image pixel that pixel 0 of the grid is centred on.
    """

    sides: Tensor
    fused: Tensor
    offset: float = 0.0

    def all(self) -> Tensor:
        """Sides and fusion together, (n, s + 1, h, w): a bag loss treats them alike."""
        return torch.cat([self.sides, self.fused[:, None]], 1)

    def sample(self, pixels: Tensor) -> Tensor:
        """Of something given for image pixels (..., H, W), the values at the centres of the grid's: (..., h, w)."""
        stride, first = pixels.shape[-1] // self.fused.shape[-1], int(self.offset)
        return pixels[..., first::stride, first::stride]


def upsample(maps: Tensor, factor: int, shift: float = 0.0) -> Tensor:
    """Linear samples of maps (n, c, h, w) at ``j / factor + shift``: (n, c, h * factor, w * factor).

    A grid that is finer by ``factor`` and whose pixel 0 is centred on pixel ``shift`` of the maps. Past the first and
    the last pixel the edge is repeated.
    """
    if factor == 1 and shift == 0:
        return maps
    columns = _upsample_rows(maps.mT.contiguous(), factor, shift).mT.contiguous()
    return _upsample_rows(columns, factor, shift)  # whole rows are mixed, which is seven times faster than matrices


def _upsample_rows(maps: Tensor, factor: int, shift: float) -> Tensor:
    """As `upsample`, along the last axis but one."""
    samples = []
    for phase in range(factor):
        whole, part = divmod(phase / factor + shift, 1)
        samples.append(torch.lerp(_moved(maps, int(whole)), _moved(maps, int(whole) + 1), part))
    return torch.stack(samples, -2).flatten(-3, -2)


def _moved(maps: Tensor, rows: int) -> Tensor:
    """Row ``i + rows`` at row ``i``; past the edges they are repeated. Its gradient is the same in every run."""
    if rows == 0:
        return maps
    kept, edge = (maps[..., rows:, :], maps[..., -1:, :]) if rows > 0 else (maps[..., :rows, :], maps[..., :1, :])
    repeated = edge.expand(*edge.shape[:-2], maps.shape[-2] - kept.shape[-2], -1)
    return torch.cat([kept, repeated] if rows > 0 else [repeated, kept], -2)


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
    attention : bool
        Criss-cross attention on the features of every depth (SA-MIL, Li et al. 2023).

    Raises
    ------
    RegistryError
        If there is no such encoder here.
    """

    def __init__(self, encoder: str, weights: Sequence[float], attention: bool = False) -> None:
        super().__init__()
        self.encoder = ENCODERS.load(encoder)()
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)
        channels = self.encoder.channels
        self.heads = nn.ModuleList(_head(count) for count in channels)
        self.attention = nn.ModuleList(CrissCrossAttention(count) for count in channels if attention)

    @property
    def stride(self) -> int:
        """Image pixels per pixel of the maps."""
        return self.encoder.strides[0]

    @property
    def offset(self) -> float:
        """Image pixel that pixel 0 of the maps is centred on."""
        return self.encoder.offsets[0]

    @property
    def multiple(self) -> int:
        """Image sides must be a multiple of this."""
        return self.encoder.strides[-1]

    @property
    def period(self) -> int:
        """Two windows agree away from their edges if they are shifted by a multiple of this."""
        return self.encoder.period

    @property
    def margin(self) -> int:
        """Image pixels from an edge within which the maps depend on where the image was cut.

        With attention that is the whole image; the margin is what it is without.
        """
        return self.encoder.margin + self.encoder.strides[-1]

    def forward(self, x: Tensor) -> Maps:
        """Maps of images (n, 3, h, w) normalised as the encoder wants; h and w are multiples of `multiple`."""
        encoder, stride, offset = self.encoder, self.stride, self.offset
        features = zip(self.heads, encoder(x, self._refine), encoder.strides, encoder.offsets, strict=True)
        logits = [upsample(head(f), s // stride, (offset - o) / s) for head, f, s, o in features]
        sides = torch.sigmoid(torch.cat(logits, 1).float())
        fused = (sides * self.weights[:, None, None]).sum(1)
        return Maps(sides, fused, offset)

    def _refine(self, depth: int, features: Tensor) -> Tensor:
        refined: Tensor = self.attention[depth](features) if len(self.attention) else features
        return refined
