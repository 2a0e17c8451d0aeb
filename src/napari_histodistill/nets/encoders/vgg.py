"""The paper's encoder: VGG16 cut after its third stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from napari_histodistill.nets.encoders.base import FROM_SCRATCH, Encoder, initialise, keep

if TYPE_CHECKING:
    from torch import Tensor

    from napari_histodistill.nets.encoders.base import Refine

_STAGES = ((64, 2), (128, 2), (256, 3))  # channels and convolutions


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class TruncatedVGG16(Encoder):
    """The first three stages of VGG16 (Simonyan and Zisserman 2015, configuration D) with batch normalisation.

    The network of DWS-MIL (Jia et al. 2017), SA-MIL (Li et al. 2023) and IFKD (He, Li and Zemp 2024). A stage ends with
    max pooling of 2 x 2 px, after which its side output is read, at strides 2, 4 and 8; what ``refine`` does comes
    before the pooling, at strides 1, 2 and 4.
    """

    channels = (64, 128, 256)
    strides = (2, 4, 8)
    offsets = (0.5, 1.5, 3.5)
    margin = 22
    period = 8

    def __init__(self) -> None:
        super().__init__()
        self.stages, inputs = nn.ModuleList(), 3
        for channels, count in _STAGES:
            layers = []
            for _ in range(count):
                layers += _convolution(inputs, channels)
                inputs = channels
            self.stages.append(nn.Sequential(*layers))
        self.pool = nn.MaxPool2d(2)
        initialise(self)

    def forward(self, x: Tensor, refine: Refine = keep) -> list[Tensor]:
        """As `Encoder.forward`."""
        maps = []
        for depth, stage in enumerate(self.stages):
            x = self.pool(refine(depth, stage(x)))
            maps.append(x)
        return maps

    def load_imagenet(self) -> str:
        """Copy the convolutions of torchvision's VGG16 if it can be imported and has or can download the weights.

        Batch normalisation, which that network lacks, stays as it is. Without the weights nothing is changed: the
        sentence that is returned says why.
        """
        try:
            from torchvision.models import VGG16_Weights, vgg16

            theirs = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).features
        except (ImportError, RuntimeError, OSError) as error:  # not there; not made for this torch; no network
            reason = str(error).strip().split("\n", maxsplit=1)[0]
            return f"{FROM_SCRATCH}, since torchvision's ImageNet weights of VGG16 are not to be had here ({reason})"
        ours = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        for layer, source in zip(ours, (m for m in theirs if isinstance(m, nn.Conv2d)), strict=False):
            layer.load_state_dict(source.state_dict())
        return "ImageNet weights of torchvision's VGG16 (BSD-3-Clause)"
