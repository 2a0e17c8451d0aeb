"""Criss-cross attention against its definition with a full matrix, in parts as in one, and its memory."""

from __future__ import annotations

import pytest
import torch

from napari_histodistill.nets import attention
from napari_histodistill.nets.attention import CrissCrossAttention


@pytest.fixture
def layer() -> CrissCrossAttention:
    torch.manual_seed(0)
    made = CrissCrossAttention(16)
    made.gamma.data.fill_(0.7)
    return made


def by_definition(layer: CrissCrossAttention, x: torch.Tensor) -> torch.Tensor:
    """One pass with a (hw) x (hw) matrix: keys in the same row or column, the pixel itself once."""
    n, c, h, w = x.shape
    q, k, v = (f(x).flatten(2) for f in (layer.query, layer.key, layer.value))
    row, column = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)
    crossing = (row[:, None] == row) | (column[:, None] == column)
    energy = (q.transpose(1, 2) @ k).masked_fill(~crossing, -torch.inf)
    return x + layer.gamma * (energy.softmax(-1) @ v.transpose(1, 2)).transpose(1, 2).view(n, c, h, w)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (6, 9)])
def test_two_passes_are_the_definition_applied_twice(layer, size):
    x = torch.randn(2, 16, *size)
    torch.testing.assert_close(layer(x), by_definition(layer, by_definition(layer, x)), atol=1e-5, rtol=1e-5)


def test_at_first_nothing_is_changed_and_gamma_can_learn():
    layer, x = CrissCrossAttention(24), torch.randn(1, 24, 5, 7)
    y = layer(x)
    assert torch.equal(y, x)
    y.pow(2).sum().backward()
    assert layer.gamma.grad != 0


def test_two_passes_see_the_whole_map(layer):
    x = torch.randn(1, 16, 6, 8, requires_grad=True)
    layer(x)[..., 1, 2].sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()


def test_in_parts_it_is_the_same_and_has_the_same_gradient(layer, monkeypatch):
    x = torch.randn(2, 16, 11, 8)
    results = []
    for limit in (attention.AT_ONCE, 2 * 8 * 19 * 3):
        monkeypatch.setattr(attention, "AT_ONCE", limit)
        layer.zero_grad()
        y = layer(x)
        y.pow(3).sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in layer.parameters())])
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-3, rtol=1e-4)


def test_a_prediction_in_parts_is_the_same(layer, monkeypatch):
    x = torch.randn(1, 16, 9, 7)
    with torch.inference_mode():
        whole = layer(x)
        monkeypatch.setattr(attention, "AT_ONCE", 1)
        torch.testing.assert_close(layer(x), whole)


def test_what_is_kept_for_the_gradient_stays_small(layer, monkeypatch):
    """Never a matrix of all pixels by all pixels, nor all rows and columns of a map that is done in parts."""
    sizes = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    x = torch.randn(1, 16, 48, 48, requires_grad=True)
    for limit, most in ((2**24, 48 * 48 * 96), (48 * 96 * 4, 48 * 48 * 16)):
        monkeypatch.setattr(attention, "AT_ONCE", limit)
        sizes.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            layer(x)
        assert 0 < max(sizes) <= most
