"""What every encoder promises: sizes, where its maps lie, how far it looks, when windows agree, and how it starts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_histodistill.nets.encoders.swin import SwinTiny
from napari_histodistill.nets.registry import ENCODERS

NAMES = ("efficientnet-lite0", "vgg16", "mobilenet-v3-small", "swin-t")
CONVOLUTIONAL = NAMES[:3]


def build(name: str, seed: int = 0):
    torch.manual_seed(seed)
    return ENCODERS.load(name)().eval()


def strip(height: int, length: int) -> torch.Tensor:
    return torch.randn(1, 3, height, length, generator=torch.Generator().manual_seed(1))


def seen_from(encoder, depth: int, height: int, length: int) -> tuple[int, int, int]:
    """The map column in the middle of an image strip, and the first and the last image column that it depends on."""
    x = strip(height, length).double().requires_grad_()
    feature = encoder.double()(x)[depth]
    column = feature.shape[-1] // 2
    noise = torch.randn(feature.shape[:-1], generator=torch.Generator().manual_seed(2), dtype=torch.double)
    (feature[..., column] * noise).sum().backward()
    columns = x.grad.abs().sum((0, 1, 2)).nonzero()[:, 0]
    return column, int(columns[0]), int(columns[-1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(16, 16), (48, 96), (144, 144)])
def test_there_is_one_map_per_depth(name, size):
    encoder = build(name)
    with torch.inference_mode():
        maps = encoder(torch.zeros(2, 3, *size))
    sizes = [(2, c, size[0] // s, size[1] // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)]
    assert [tuple(m.shape) for m in maps] == sizes


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_every_map_lies_where_it_says_and_looks_no_farther_than_the_margin(name, depth):
    encoder = build(name)
    column, first, last = seen_from(encoder, depth, 64, 2 * encoder.margin // 16 * 16 + 96)
    centre = column * encoder.strides[depth] + encoder.offsets[depth]
    assert (first + last) / 2 == centre
    assert last - centre <= encoder.margin
    if depth == 2:
        assert last - centre > encoder.margin - 1


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_transformers_tokens_lie_where_they_say(depth):
    """Without what windows add, a token depends on nothing but its own square."""
    encoder = build("swin-t")
    for name, parameter in encoder.named_parameters():
        if ".attention.project." in name:
            nn.init.zeros_(parameter)
    column, first, last = seen_from(encoder, depth, 16, 160)
    stride = encoder.strides[depth]
    assert (first, last) == (column * stride, column * stride + stride - 1)
    assert (first + last) / 2 == column * stride + encoder.offsets[depth]


def test_the_transformer_looks_no_farther_than_the_margin():
    encoder = build("swin-t")
    x = strip(16, 1344)
    column = 36  # the farthest look is from one end of a shifted window: 36 = 7 * 5 - 6 + 7
    centre = [(token * 16 + 7.5) for token in range(column, column + 7)]
    with torch.inference_mode():
        maps = encoder(x)[2][..., column : column + 7]
        reach = []
        for distance in (encoder.margin, encoder.margin - 16):
            changed = []
            for i, c in enumerate(centre):
                other = x.clone()
                other[..., int(c + distance + 1) :] += 3
                changed.append(not torch.equal(encoder(other)[2][..., column + i], maps[..., i]))
            reach.append(any(changed))
    assert reach == [False, True]


@pytest.mark.parametrize("name", NAMES)
def test_windows_shifted_by_the_period_have_the_same_features_beyond_the_margin(name):
    encoder = build(name)
    shift, stride, margin = encoder.period, encoder.strides[-1], encoder.margin
    length = -(-(2 * margin + 2 * stride + shift) // encoder.period) * encoder.period
    x = strip(64, length + shift)
    with torch.inference_mode():
        a, b = encoder(x[..., :length]), encoder(x[..., shift:])
    for first, second, s in zip(a, b, encoder.strides, strict=True):
        inner = -(-margin // s)
        left = first[..., inner + shift // s : length // s - inner]
        right = second[..., inner : (length - shift) // s - inner]
        assert left.shape[-1] > 0
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


def test_the_transformers_windows_do_not_agree_under_smaller_shifts():
    """Why its period is 112 px: windows lie on a raster of seven tokens."""
    encoder = build("swin-t")
    x = strip(16, 1248)
    with torch.inference_mode():
        a, b = encoder(x[..., :1232])[2], encoder(x[..., 16:])[2]
    assert (a[..., 31:46] - b[..., 30:45]).abs().max() > 0.05


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_network_from_scratch_keeps_the_size_of_its_features_and_gradients(name):
    encoder = build(name).train()
    x = torch.randn(4, 3, 112, 112, generator=torch.Generator().manual_seed(3))
    maps = encoder(x)
    assert all(0.1 < m.std() < 10 for m in maps)
    sum(m.pow(2).mean() for m in maps).backward()
    norms = {n: p.grad.norm() for n, p in encoder.named_parameters() if p.grad is not None and p.dim() > 1}
    assert all(torch.isfinite(norm) for norm in norms.values())
    assert sum(norm > 0 for norm in norms.values()) == len(norms)


@pytest.mark.parametrize("name", ["mobilenet-v3-small", "swin-t"])
def test_an_encoder_without_pretrained_weights_says_so_and_stays_as_it_is(name):
    encoder = build(name)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    assert encoder.load_imagenet() == "random weights"
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_what_refines_the_features_is_called_once_a_depth_and_its_result_is_used(name):
    encoder, depths = build(name), []

    def blank(depth: int, features: torch.Tensor) -> torch.Tensor:
        depths.append((depth, features.shape[1]))
        return torch.zeros_like(features)

    with torch.inference_mode():
        maps = encoder(strip(32, 32), blank)
    assert depths == list(enumerate(encoder.channels))
    assert all(m.abs().max() == 0 for m in maps)


def test_the_transformer_has_the_widths_of_swin_t():
    assert SwinTiny.channels == (96, 192, 384)
    assert sum(p.numel() for p in SwinTiny().parameters()) == pytest.approx(12.2e6, rel=0.02)
