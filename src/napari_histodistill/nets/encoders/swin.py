"""The encoder of Swin-MIL: a transformer that attends within windows, which shift from block to block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from napari_histodistill.nets.encoders.base import Encoder, initialise, keep

if TYPE_CHECKING:
    from torch import Tensor

    from napari_histodistill.nets.encoders.base import Refine

WINDOW = 7
_STAGES = ((96, 2, 3), (192, 2, 6), (384, 6, 12))  # channels, blocks and heads of Swin-T, as far as stride 16


class _WindowAttention(nn.Module):
    """Self-attention among the tokens of a window, with a bias for their relative position (Liu et al. 2021, eq. 4)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        place = torch.cartesian_prod(torch.arange(WINDOW), torch.arange(WINDOW))
        apart = place[:, None] - place + WINDOW - 1
        self.relative: Tensor
        self.register_buffer("relative", apart[..., 0] * (2 * WINDOW - 1) + apart[..., 1], persistent=False)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Tokens (n, windows, WINDOW**2, c); those where ``real`` (windows, WINDOW**2) is false are not attended to."""
        n, windows, tokens, channels = x.shape
        q, k, v = self.qkv(x).view(n, windows, tokens, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5)
        energy = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + self.bias[self.relative].permute(2, 0, 1)
        energy = energy.masked_fill(~real[:, None, None], -torch.inf)
        mixed: Tensor = (energy.softmax(-1) @ v).transpose(2, 3).reshape(n, windows, tokens, channels)
        result: Tensor = self.project(mixed)
        return result


class _Block(nn.Module):
    """Attention in windows and a two-layer perceptron, each normalised before and added (Liu et al. 2021, eq. 3)."""

    def __init__(self, channels: int, heads: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.before_attention, self.before_mlp = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = _WindowAttention(channels, heads)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, h, w, c) of any size."""
        x = x + self._attend(self.before_attention(x))
        result: Tensor = x + self.mlp(self.before_mlp(x))
        return result

    def _attend(self, x: Tensor) -> Tensor:
        """Pad to whole windows, attend within each of them to the tokens that are real, and cut the padding off.

        A shift of the windows is padding at the front. At the edges this is what the paper's cyclic shift does with its
        mask: a window that the edge cuts attends within itself. Where one window spans a map it is not shifted.
        """
        n, h, w, channels = x.shape
        (top, bottom), (left, right) = self._padding(h), self._padding(w)
        real = functional.pad(torch.ones(h, w, dtype=torch.bool, device=x.device), (left, right, top, bottom))
        x = functional.pad(x, (0, 0, left, right, top, bottom))
        rows, columns = real.shape[0] // WINDOW, real.shape[1] // WINDOW
        windows = x.view(n, rows, WINDOW, columns, WINDOW, channels).transpose(2, 3)
        inside = real.view(rows, WINDOW, columns, WINDOW).transpose(1, 2)
        tokens = WINDOW * WINDOW
        y: Tensor = self.attention(windows.reshape(n, -1, tokens, channels), inside.reshape(-1, tokens))
        y = y.view(n, rows, columns, WINDOW, WINDOW, channels).transpose(2, 3).reshape(x.shape)
        return y[:, top : top + h, left : left + w]

    def _padding(self, length: int) -> tuple[int, int]:
        front = WINDOW - self.shift if self.shift and length > WINDOW else 0
        return front, -(length + front) % WINDOW


class _Merging(nn.Module):
    """Every 2 x 2 tokens become one with twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        quarters = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        result: Tensor = self.reduce(self.norm(torch.cat(quarters, -1)))
        return result


class SwinTiny(Encoder):
    """Swin-T up to stride 16, with maps at strides 4, 8 and 16: the encoder of Swin-MIL (Qian et al. 2022).

    Shifted-window transformer (Liu et al. 2021), window 7, without stochastic depth; the maps are normalised before
    they are read out. Windows lie on a raster of 7 tokens, so features repeat under shifts by 7 * 16 = 112 px, not by
    16. The published teacher starts from ImageNet weights; this one has none and starts from scratch.
    """

    channels = tuple(channels for channels, _, _ in _STAGES)
    strides = (4, 8, 16)
    offsets = (1.5, 3.5, 7.5)
    margin = 476  # two blocks reach 7 tokens at strides 4 and 8, six reach 24 at stride 16
    period = 16 * WINDOW
    mixed_on_cpu = True  # a step on an AMD EPYC with AVX512-BF16 takes half the time

    def __init__(self) -> None:
        super().__init__()
        first = self.channels[0]
        self.embed, self.embed_norm = nn.Conv2d(3, first, 4, 4), nn.LayerNorm(first)
        self.stages, self.norms, self.mergings = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for channels, blocks, heads in _STAGES:
            shifts = [(i % 2) * (WINDOW // 2) for i in range(blocks)]
            self.stages.append(nn.Sequential(*[_Block(channels, heads, shift) for shift in shifts]))
            self.norms.append(nn.LayerNorm(channels))
            self.mergings.append(_Merging(channels) if channels < self.channels[-1] else nn.Identity())
        initialise(self)

    def forward(self, x: Tensor, refine: Refine = keep) -> list[Tensor]:
        """As `Encoder.forward`."""
        x, maps = self.embed_norm(self.embed(x).permute(0, 2, 3, 1)), []
        for depth, (stage, norm, merge) in enumerate(zip(self.stages, self.norms, self.mergings, strict=True)):
            x = refine(depth, stage(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            maps.append(norm(x).permute(0, 3, 1, 2))
            x = merge(x)
        return maps
