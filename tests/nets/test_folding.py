"""A folded network says the same as the one that it was made of, and leaves that one alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_histodistill.nets.encoders.base import initialise
from napari_histodistill.nets.folding import folded
from napari_histodistill.nets.network import SideNetwork
from napari_histodistill.nets.registry import ENCODERS


def used_network(encoder: str) -> SideNetwork:
    """A network whose normalisations have seen something: with fresh statistics they would change nothing."""
    torch.manual_seed(0)
    sides = len(ENCODERS.load(encoder).channels)
    network = SideNetwork(encoder, (1 / sides,) * sides)
    initialise(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return network.eval()


@pytest.mark.parametrize("encoder", ["efficientnet-lite0", "vgg16", "mobilenet-v3-small", "swin-t"])
def test_a_folded_network_predicts_the_same(encoder):
    network = used_network(encoder)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(folded(network)(images).sides, network(images).sides, atol=1e-4, rtol=1e-4)


def test_no_normalisation_is_left_and_the_network_keeps_its_own():
    network = used_network("efficientnet-lite0")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded(network).modules())
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
