"""Bag losses against the design's formulas, written out by hand, and their gradients where they are delicate."""

from __future__ import annotations

import math

import pytest
import torch

from napari_histodistill.mil.families import TEACHERS
from napari_histodistill.mil.losses import (
    dice_dissimilarity,
    dice_loss,
    generalised_mean,
    gm_loss,
    pixel_loss,
)

MAPS = torch.tensor([[[[0.9, 0.1], [0.5, 0.3]], [[0.2, 0.8], [0.6, 0.4]]]])  # one bag, one side and the fusion
WHOLE = torch.ones(1, 2, 2)
FAMILIES = {name: TEACHERS.load(name) for name in ("dice", "gm", "attention", "swin")}


def by_hand_d(p: list[float], q: list[float]) -> float:
    return 1 - (2 * sum(a * b for a, b in zip(p, q, strict=True)) + 1) / (sum(p) + sum(q) + 1)


def by_hand_mean(p: list[float], r: float) -> float:
    return (sum(v**r for v in p) / len(p)) ** (1 / r)


def values(channel: int) -> list[float]:
    return MAPS[0, channel].flatten().tolist()


def test_the_dice_dissimilarity_is_the_designs():
    p, q = MAPS[0, 0], MAPS[0, 1]
    assert dice_dissimilarity(p, q, WHOLE[0]).item() == pytest.approx(by_hand_d(values(0), values(1)))


def test_dice_of_a_positive_bag_sums_sides_and_fusion_against_all_ones():
    expected = sum(by_hand_d(values(c), [1.0] * 4) for c in (0, 1))
    assert dice_loss(MAPS, torch.ones(1), WHOLE).item() == pytest.approx(expected)


def test_dice_of_a_negative_bag_is_the_same_on_one_minus_f():
    expected = sum(by_hand_d([1 - v for v in values(c)], [1.0] * 4) for c in (0, 1))
    assert dice_loss(MAPS, torch.zeros(1), WHOLE).item() == pytest.approx(expected)


def test_gm_of_a_positive_bag_is_the_cross_entropy_of_the_generalised_mean():
    expected = sum(-math.log(by_hand_mean(values(c), 4)) for c in (0, 1))
    assert gm_loss(MAPS, torch.ones(1), WHOLE).item() == pytest.approx(expected)


def test_gm_of_a_negative_bag_is_the_cross_entropy_of_its_complement():
    expected = sum(-math.log(1 - by_hand_mean(values(c), 4)) for c in (0, 1))
    assert gm_loss(MAPS, torch.zeros(1), WHOLE).item() == pytest.approx(expected)


def test_the_generalised_mean_lies_between_mean_and_maximum():
    mean = generalised_mean(MAPS[0, 0], WHOLE[0], 4).item()
    assert 0.45 < mean < 0.9
    assert generalised_mean(MAPS[0, 0], WHOLE[0], 1).item() == pytest.approx(0.45)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("value", [0.0, 1e-30, 0.5, 1.0])
def test_loss_and_gradient_are_finite_where_maps_are_constant(name, label, value):
    maps = torch.full((1, 4, 8, 8), value, requires_grad=True)
    loss = FAMILIES[name].loss(maps, torch.tensor([label]), torch.ones(1, 8, 8), 0.8)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(maps.grad).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_pixels_outside_a_bag_change_nothing(name):
    inside = torch.zeros(1, 8, 8)
    inside[:, :4] = 1
    maps = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    other = maps.clone()
    other[:, :, 4:] = 0.99
    for label in (torch.zeros(1), torch.ones(1)):
        same = [FAMILIES[name].loss(m, label, inside, 1.0) for m in (maps, other)]
        inner = FAMILIES[name].loss(maps[:, :, :4], label, torch.ones(1, 4, 8), 1.0)
        torch.testing.assert_close(same[0], same[1])
        torch.testing.assert_close(same[0], inner)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_better_map_costs_less(name):
    good, bad = torch.full((1, 4, 8, 8), 0.9), torch.full((1, 4, 8, 8), 0.1)
    loss, whole = FAMILIES[name].loss, torch.ones(1, 8, 8)
    assert loss(good, torch.ones(1), whole, 1.0) < loss(bad, torch.ones(1), whole, 1.0)
    assert loss(bad, torch.zeros(1), whole, 1.0) < loss(good, torch.zeros(1), whole, 1.0)


def test_a_positive_bag_that_is_found_well_enough_costs_nothing_and_pulls_no_further():
    half = torch.zeros(1, 2, 8, 8)
    half[..., :4] = 1
    half.requires_grad_()
    for loss, enough in ((gm_loss, 0.8), (dice_loss, 0.6)):
        value = loss(half, torch.ones(1), torch.ones(1, 8, 8), enough)
        assert value.item() == 0
        assert loss(half, torch.ones(1), torch.ones(1, 8, 8)).item() > 0.1
        assert torch.equal(torch.autograd.grad(value.sum(), half)[0], torch.zeros_like(half))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_loss_and_gradient_are_finite_where_a_map_holds_exact_zeros_and_ones(name, label):
    maps = torch.zeros(1, 4, 8, 8)
    maps[:, :2, :, ::2], maps[:, 2, :4] = 1.0, 0.3
    maps.requires_grad_()
    loss = FAMILIES[name].loss(maps, torch.tensor([label]), torch.ones(1, 8, 8), 0.8)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(maps.grad).all()


def test_the_pixel_loss_is_cross_entropy_and_both_dice_terms():
    target = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    t = target.flatten().tolist()
    expected = 0.0
    for c in (0, 1):
        p = values(c)
        entropy = -sum(math.log(a if b else 1 - a) for a, b in zip(p, t, strict=True)) / 4
        flipped = by_hand_d([1 - a for a in p], [1 - b for b in t])
        expected += entropy + (by_hand_d(p, t) + flipped) / 2
    assert pixel_loss(MAPS, target).item() == pytest.approx(expected, rel=1e-5)
