"""Families of teachers by name: bag loss, fusion weights and network. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_histodistill.nets.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    BagLoss = Callable[[Tensor, Tensor, Tensor, float], Tensor]

MASKS = "masks"


@dataclass(frozen=True)
class Family:
    """A kind of teacher.

    Attributes
    ----------
    loss : callable
        Bag loss: maps (n, m, h, w), labels (n,), inside (n, h, w) and ``enough`` give (n,), as `losses.dice_loss` says.
    weights : tuple of float
        Fusion weights of its side outputs, shallowest first; they sum to one.
    encoder : str
        Of its network, where the user names no other.
    attention : bool
        Whether its network has criss-cross attention at every depth.
    """

    loss: BagLoss
    weights: tuple[float, ...]
    encoder: str = "efficientnet-lite0"
    attention: bool = False

    def fusion_weights(self, sides: int) -> tuple[float, ...]:
        """Of a network with so many side outputs: the family's if they are as many, else equal ones."""
        return self.weights if len(self.weights) == sides else (1 / sides,) * sides


TEACHERS: Registry[Family] = Registry(
    "histodistill.teachers",
    "method",
    {name: f"napari_histodistill.mil.losses:{name.upper()}" for name in ("dice", "gm", "attention", "swin")},
    lambda loaded: isinstance(loaded, Family),
)


def methods() -> tuple[str, ...]:
    """What a teacher can be trained with: the families, and full masks as their ceiling."""
    return (*TEACHERS.names(), MASKS)


def family_of(method: str) -> Family:
    """The family of a method; for full masks that of ``gm``, whose network they train.

    Raises
    ------
    RegistryError
        If there is no such family, or the package that adds it is broken.
    """
    return TEACHERS.load("gm" if method == MASKS else method)
