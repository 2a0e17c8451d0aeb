"""Criss-cross attention: every pixel looks along its row and its column, twice, and so at the whole map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 2**24
"""Attention weights that are held at a time; longer maps are done some rows after others."""


class CrissCrossAttention(nn.Module):
    """Features plus gamma times what the pixels of the same row and column say, twice (Huang et al. 2019; SA-MIL).

    Both passes share their weights, and gamma starts at zero: at first nothing is changed. The pixel itself is one key,
    not two. A map of h x w px has h w (h + w - 1) weights, of which at most `AT_ONCE` (or a row's) are in memory: a map
    that is done in parts is computed again for its gradient.

    Parameters
    ----------
    channels : int
        Of the features. Queries and keys have an eighth of them, and 8 at least.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(8, channels // 8)
        self.query, self.key = nn.Conv2d(channels, narrow, 1), nn.Conv2d(channels, narrow, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, c, h, w), attended."""
        for _ in range(2):
            x = x + self.gamma * self._look(self.query(x), self.key(x), self.value(x))
        return x

    @staticmethod
    def _look(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        n, _, h, w = query.shape
        rows = max(1, AT_ONCE // (n * w * (h + w)))
        if rows >= h:
            return _look_from_rows(query, key, value, 0)
        parts = [
            checkpoint(_look_from_rows, part, key, value, i * rows, use_reentrant=False, preserve_rng_state=False)
            for i, part in enumerate(torch.split(query, rows, 2))
        ]
        return torch.cat(parts, 2)


def _look_from_rows(query: Tensor, key: Tensor, value: Tensor, first: int) -> Tensor:
    """What pixels see along their rows and columns, softmax over all keys: (n, c, rows, w).

    Parameters
    ----------
    query : Tensor (n, d, rows, w)
        Of the rows from ``first`` on.
    key, value : Tensor (n, d, h, w), (n, c, h, w)
        Of the whole map.
    """
    count, h, w = query.shape[2], key.shape[2], key.shape[3]
    own = slice(first, first + count)
    along_row = torch.einsum("ndyx,ndyz->nyxz", query, key[:, :, own])
    along_column = torch.einsum("ndyx,ndzx->nyxz", query, key)
    itself = torch.arange(first, first + count, device=query.device)[:, None] == torch.arange(h, device=query.device)
    along_column = along_column.masked_fill(itself[:, None], -torch.inf)  # it is among the keys of the row
    weights = torch.cat([along_row, along_column], -1).softmax(-1)
    in_row, in_column = torch.split(weights, [w, h], -1)
    seen = torch.einsum("nyxz,ncyz->ncyx", in_row, value[:, :, own])
    return seen + torch.einsum("nyxz,nczx->ncyx", in_column, value)
