"""A small encoder for laptops and students, of the class of MobileNetV3-Small; there are no ImageNet weights for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import nn
from torch.nn import functional

from napari_histodistill.nets.encoders.base import BlockEncoder, initialise

if TYPE_CHECKING:
    from torch import Tensor

SQUEEZE = 32
"""Half-width in image px of the neighbourhood that squeeze-and-excite averages over."""


class _Block(NamedTuple):
    """A row of table 2 of Howard et al. 2019."""

    kernel: int
    hidden: int
    channels: int
    squeeze: bool
    activation: type[nn.Module]
    stride: int


_BLOCKS = (
    _Block(3, 16, 16, True, nn.ReLU, 2),
    _Block(3, 72, 24, False, nn.ReLU, 2),
    _Block(3, 88, 24, False, nn.ReLU, 1),
    _Block(5, 96, 40, True, nn.Hardswish, 2),
    _Block(5, 240, 40, True, nn.Hardswish, 1),
    _Block(5, 240, 40, True, nn.Hardswish, 1),
    _Block(5, 120, 48, True, nn.Hardswish, 1),
    _Block(5, 144, 48, True, nn.Hardswish, 1),
)


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class _SqueezeExcite(nn.Module):
    """Scale every channel by what all channels are in the neighbourhood (Hu et al. 2018, Howard et al. 2019).

    The published one averages over the whole image. A window cut from a slide is no image: its predictions would
    depend on where it was cut, and on its size. So the mean is over a neighbourhood of a fixed size.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        reduced = max(8, round(channels / 32) * 8)
        self.reach = SQUEEZE // stride
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean, size, reach = x, 2 * self.reach + 1, self.reach
        for kernel, padding in (((size, 1), (reach, 0)), ((1, size), (0, reach))):
            mean = functional.avg_pool2d(mean, kernel, 1, padding, count_include_pad=False)
        return x * functional.hardsigmoid(self.expand(functional.relu(self.reduce(mean))))


class _InvertedResidual(nn.Module):
    """Expand, filter each channel, excite, project; with a shortcut where the shape stays (figure 4)."""

    def __init__(self, inputs: int, block: _Block, stride: int) -> None:
        super().__init__()
        hidden = block.hidden
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers += [*_conv_bn(inputs, hidden, 1), block.activation(inplace=True)]
        layers += [*_conv_bn(hidden, hidden, block.kernel, block.stride, groups=hidden), block.activation(inplace=True)]
        if block.squeeze:
            layers.append(_SqueezeExcite(hidden, stride))
        layers += _conv_bn(hidden, block.channels, 1)
        self.layers = nn.Sequential(*layers)
        self.shortcut = block.stride == 1 and inputs == block.channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


class MobileNetV3Small(BlockEncoder):
    """MobileNetV3-Small (Howard et al. 2019, table 2) up to stride 16, with maps at strides 4, 8 and 16.

    Inverted residuals with hard-swish and squeeze-and-excite, which here looks at a neighbourhood of 64 px in place of
    the whole image.
    """

    channels = (16, 24, 48)
    strides = (4, 8, 16)
    offsets = (0.0, 0.0, 0.0)
    margin = 159 + 6 * SQUEEZE  # of the convolutions, and of six neighbourhoods
    period = 16
    taps = (0, 2, 7)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_bn(3, 16, 3, 2), nn.Hardswish(inplace=True))
        self.blocks, inputs, stride = nn.ModuleList(), 16, 2
        for block in _BLOCKS:
            stride *= block.stride
            self.blocks.append(_InvertedResidual(inputs, block, stride))
            inputs = block.channels
        initialise(self)
