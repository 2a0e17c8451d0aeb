"""Shifted windows by padding are the paper's: a cyclic shift, with a mask between what did not lie side by side."""

from __future__ import annotations

import pytest
import torch

from napari_histodistill.nets.encoders.swin import WINDOW, _Block


@pytest.fixture
def block() -> _Block:
    torch.manual_seed(0)
    return _Block(12, 3, WINDOW // 2)


def cyclic(block: _Block, x: torch.Tensor) -> torch.Tensor:
    """Attention of a block (n, h, w, c), h and w multiples of the window, as Liu et al. (2021, figure 4) do it."""
    n, h, w, c = x.shape
    shift, tokens = WINDOW // 2, WINDOW**2
    part = torch.zeros(h, dtype=torch.long), torch.zeros(w, dtype=torch.long)
    for p in part:
        p[-WINDOW:-shift], p[-shift:] = 1, 2
    region = 3 * part[0][:, None] + part[1]

    def windows(m: torch.Tensor) -> torch.Tensor:
        m = m.view(-1, h // WINDOW, WINDOW, w // WINDOW, WINDOW, m.shape[-1])
        return m.transpose(2, 3).reshape(len(m), -1, tokens, m.shape[-1])

    rolled, regions = windows(x.roll((-shift, -shift), (1, 2))), windows(region[None, :, :, None])[0, ..., 0]
    attention, result = block.attention, torch.empty_like(rolled)
    bias = attention.bias[attention.relative].permute(2, 0, 1)
    for i, labels in enumerate(regions):
        q, k, v = attention.qkv(rolled[:, i]).view(n, tokens, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
        energy = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5 + bias
        energy = energy + (labels[:, None] != labels) * -1e9
        result[:, i] = attention.project((energy.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, c))
    result = result.view(n, h // WINDOW, w // WINDOW, WINDOW, WINDOW, c).transpose(2, 3).reshape(n, h, w, c)
    return result.roll((shift, shift), (1, 2))


def test_padding_in_front_is_the_masked_cyclic_shift(block):
    x = torch.randn(2, 14, 21, 12)
    torch.testing.assert_close(block._attend(x), cyclic(block, x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shift", [0, WINDOW // 2])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (9, 16), (20, 8)])
def test_padding_is_never_looked_at(block, shift, size):
    """Tokens of ones whose values are themselves mix to ones: any share of the padding, zeros, would show."""
    block.shift, attention = shift, block.attention
    with torch.no_grad():
        for layer in (attention.qkv, attention.project):
            layer.weight.copy_(torch.eye(12).repeat(layer.out_features // 12, 1))
            layer.bias.zero_()
    ones = torch.ones(1, *size, 12)
    torch.testing.assert_close(block._attend(ones), ones)
