"""Squeeze-and-excite looks at a neighbourhood: an image that is cut elsewhere is not judged otherwise."""

from __future__ import annotations

import pytest
import torch

from napari_histodistill.nets.encoders.mobilenet import SQUEEZE, MobileNetV3Small, _SqueezeExcite


@pytest.mark.parametrize(("size", "stride"), [((5, 9), 4), ((12, 12), 16)])
def test_the_squeeze_is_the_mean_of_the_neighbourhood_inside_the_image(size, stride):
    torch.manual_seed(0)
    layer, reach = _SqueezeExcite(16, stride), SQUEEZE // stride
    x = torch.randn(1, 16, *size)
    y = layer(x)
    for row, column in ((0, 0), (2, 4), (size[0] - 1, size[1] - 1)):
        near = x[..., max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        mean = near.mean((2, 3), keepdim=True)
        gate = torch.nn.functional.hardsigmoid(layer.expand(layer.reduce(mean).relu()))
        torch.testing.assert_close(y[..., row, column], (x[..., row, column] * gate[..., 0, 0]))


def test_it_is_small():
    assert sum(p.numel() for p in MobileNetV3Small().parameters()) < 250_000
