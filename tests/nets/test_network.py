"""The side network: fusion, alignment, attention, and tiles that agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_histodistill.nets.network import Maps, SideNetwork, upsample
from napari_histodistill.nets.registry import ENCODERS, RegistryError

WEIGHTS = (0.2, 0.35, 0.45)


@pytest.fixture(scope="module")
def network() -> SideNetwork:
    torch.manual_seed(0)
    return SideNetwork("efficientnet-lite0", WEIGHTS).eval()


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(1))


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


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_upsampling_between_grids_that_share_their_edges_keeps_a_ramp_where_it_is(factor):
    coarse = torch.arange(8.0) * factor + (factor - 1) / 2  # where pixels of the coarse grid are, in fine pixels
    got = upsample(coarse.expand(1, 1, 8, 8), factor, -(factor - 1) / (2 * factor))
    expected = torch.arange(8.0 * factor).clamp(min=coarse[0], max=coarse[-1])
    torch.testing.assert_close(got, expected.expand(1, 1, 8 * factor, 8 * factor))


@pytest.mark.parametrize(("offset", "first"), [(0.0, 0), (0.5, 0), (1.5, 1)])
def test_pixel_values_are_taken_at_the_centres_of_the_maps(offset, first):
    maps = Maps(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4), offset)
    pixels = torch.arange(16.0).expand(1, 16, 16)
    assert maps.sample(pixels)[0, 0].tolist() == [first, first + 4, first + 8, first + 12]


@pytest.mark.parametrize("name", ["vgg16", "swin-t"])
def test_a_mirrored_image_gives_the_mirrored_fusion_where_pixels_are_pooled_in_blocks(name):
    """With mirror-symmetric filters; half a pixel of shift between maps, or from image to map, would show."""
    torch.manual_seed(0)
    network = SideNetwork(name, WEIGHTS).eval()
    mirror_symmetric(network)
    x = torch.randn(1, 3, 16, 96)
    with torch.inference_mode():
        a, b = network(x), network(x.flip(-1))
    torch.testing.assert_close(a.sides.flip(-1), b.sides, atol=1e-5, rtol=0)
    assert a.sides.std() > 1e-3


def mirror_symmetric(network: SideNetwork) -> None:
    with torch.no_grad():
        for head in network.heads:
            head.weight.mul_(30)
        for name, module in network.encoder.named_modules():
            if isinstance(module, nn.Conv2d):
                module.weight.add_(module.weight.flip(-1)).div_(2)
            elif name.endswith("attention.project"):
                module.weight.zero_()  # windows are not symmetric
            elif name.endswith("reduce"):
                upper, lower = (module.weight.chunk(4, 1)[i] for i in (0, 1))
                module.weight.copy_(torch.cat([upper, lower, upper, lower], 1))


def test_attention_is_at_every_depth_and_changes_nothing_at_first(noise):
    networks = []
    for attention in (False, True):
        torch.manual_seed(0)
        networks.append(SideNetwork("efficientnet-lite0", WEIGHTS, attention).eval())
    plain, attended = networks
    assert [layer.value.in_channels for layer in attended.attention] == [24, 40, 112]
    with torch.inference_mode():
        a, b = plain(noise[..., :64, :64]), attended(noise[..., :64, :64])
    torch.testing.assert_close(a.fused, b.fused)
    for layer in attended.attention:
        layer.gamma.data.fill_(1.0)
    with torch.inference_mode():
        assert not torch.allclose(a.fused, attended(noise[..., :64, :64]).fused, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS.names()[:4])
@pytest.mark.parametrize("attention", [False, True])
def test_every_encoder_trains_one_step_with_and_without_attention(name, attention):
    torch.manual_seed(0)
    network = SideNetwork(name, WEIGHTS, attention)
    maps = network(torch.randn(2, 3, 48, 64))
    h, w = 48 // network.stride, 64 // network.stride
    assert maps.all().shape == (2, 4, h, w)
    maps.fused.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert all(head.weight.grad.abs().sum() > 0 for head in network.heads)


def test_an_unknown_encoder_is_refused():
    with pytest.raises(RegistryError, match="resnet"):
        SideNetwork("resnet", WEIGHTS)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "vgg16"])
def test_no_pixel_depends_on_anything_beyond_the_margin_and_some_on_what_lies_just_within(name):
    torch.manual_seed(0)
    network = SideNetwork(name, WEIGHTS).double().eval()
    x = torch.randn(1, 3, 32, 448, dtype=torch.double, requires_grad=True)
    fused, stride, reach = network(x).fused, network.stride, []
    middle = fused.shape[-1] // 2
    for column in range(middle, middle + network.multiple // stride):
        x.grad = None
        noise = torch.randn(fused.shape[1], dtype=torch.double)
        (fused[0, :, column] * noise).sum().backward(retain_graph=True)
        seen = x.grad.abs().sum((0, 1, 2)).nonzero()[:, 0]
        position = column * stride + network.offset
        reach += [seen[-1] - position, position - seen[0]]
    assert network.margin - stride - 1 <= max(reach) <= network.margin


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
