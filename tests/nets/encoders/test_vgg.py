"""The truncated VGG16: the paper's layers, and torchvision's weights where there are any."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from napari_histodistill.nets.encoders.vgg import TruncatedVGG16


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


@pytest.fixture
def torchvision(monkeypatch):
    """A stand-in for torchvision, whose VGG16 is made by the function that a test gives."""

    def install(vgg16) -> None:
        models = ModuleType("torchvision.models")
        models.VGG16_Weights, models.vgg16 = SimpleNamespace(IMAGENET1K_V1="imagenet"), vgg16
        package = ModuleType("torchvision")
        package.models = models
        monkeypatch.setitem(sys.modules, "torchvision", package)
        monkeypatch.setitem(sys.modules, "torchvision.models", models)

    return install


def test_its_convolutions_are_the_papers():
    shapes = [(c.in_channels, c.out_channels) for c in convolutions(TruncatedVGG16())]
    assert shapes == [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]


def test_attention_comes_before_the_pooling():
    sizes = []

    def note(_depth: int, features: torch.Tensor) -> torch.Tensor:
        sizes.append(features.shape[-1])
        return features

    maps = TruncatedVGG16()(torch.zeros(1, 3, 32, 32), note)
    assert sizes == [32, 16, 8]
    assert [m.shape[-1] for m in maps] == [16, 8, 4]


def test_torchvisions_convolutions_are_copied_in_order(torchvision):
    widths = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512)]
    theirs = nn.Sequential(*[layer for i, o in widths for layer in (nn.Conv2d(i, o, 3, padding=1), nn.ReLU())])
    torchvision(lambda weights: SimpleNamespace(features=theirs))
    ours = TruncatedVGG16()
    assert "ImageNet" in ours.load_imagenet()
    for a, b in zip(convolutions(ours), convolutions(theirs)[:7], strict=True):
        assert torch.equal(a.weight, b.weight)
        assert torch.equal(a.bias, b.bias)


@pytest.mark.parametrize("error", [RuntimeError("operator torchvision::nms does not exist"), OSError("no network")])
def test_weights_that_cannot_be_had_leave_it_as_it_is_and_are_named(torchvision, error):
    def vgg16(weights):
        raise error

    torchvision(vgg16)
    network = TruncatedVGG16()
    before = convolutions(network)[0].weight.clone()
    said = network.load_imagenet()
    assert said.startswith("random weights")
    assert str(error) in said
    assert torch.equal(convolutions(network)[0].weight, before)


def test_without_torchvision_it_starts_from_scratch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert TruncatedVGG16().load_imagenet().startswith("random weights")
