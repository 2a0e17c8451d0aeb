"""The families: what each one is, and what fits a network with other depths."""

from __future__ import annotations

import pytest

from napari_histodistill.mil import TEACHERS, Family, methods
from napari_histodistill.mil.families import family_of
from napari_histodistill.mil.losses import dice_loss, gm_loss
from napari_histodistill.nets.registry import ENCODERS, RegistryError


@pytest.mark.parametrize(
    ("name", "loss", "weights", "encoder", "attention"),
    [
        ("dice", dice_loss, (0.3, 0.3, 0.4), "efficientnet-lite0", False),
        ("gm", gm_loss, (0.2, 0.35, 0.45), "efficientnet-lite0", False),
        ("attention", gm_loss, (0.2, 0.35, 0.45), "efficientnet-lite0", True),
        ("swin", gm_loss, (0.3, 0.4, 0.3), "swin-t", False),
        ("masks", gm_loss, (0.2, 0.35, 0.45), "efficientnet-lite0", False),
    ],
)
def test_the_families_are_the_designs(name, loss, weights, encoder, attention):
    assert family_of(name) == Family(loss, weights, encoder, attention)
    assert sum(weights) == pytest.approx(1)
    assert encoder in ENCODERS.names()


def test_the_methods_are_the_families_and_full_masks():
    assert methods()[:4] == ("dice", "gm", "attention", "swin")
    assert methods()[-1] == "masks"
    with pytest.raises(RegistryError, match="magic"):
        TEACHERS.load("magic")


def test_other_depths_than_the_familys_count_alike():
    family = family_of("gm")
    assert family.fusion_weights(3) == family.weights
    assert family.fusion_weights(4) == (0.25,) * 4
