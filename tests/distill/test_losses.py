"""Each term of the student's loss equals its formula on tensors made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from napari_histodistill.distill.losses import (
    distillation_loss,
    semimetric_dissimilarity,
    student_loss,
    weighted_cross_entropy,
)
from napari_histodistill.distill.recipe import RECIPES
from napari_histodistill.mil.augment import Batch
from napari_histodistill.mil.losses import dice_dissimilarity, gm_loss
from napari_histodistill.nets.network import Maps

PAPER = RECIPES["paper"]
ONE = torch.ones(1, 1, 2)  # a bag of one row of two pixels


def maps_of(*planes: tuple[float, float]) -> torch.Tensor:
    """One bag whose maps are rows of two pixels: (1, m, 1, 2)."""
    return torch.tensor(planes)[None, :, None]


def dice(p: list[float], q: list[float]) -> float:
    return 1 - (2 * sum(a * b for a, b in zip(p, q, strict=True)) + 1) / (sum(p) + sum(q) + 1)


def test_a_positive_bag_is_compared_with_the_teacher_map_by_map():
    maps = maps_of((0.9, 0.2), (0.6, 0.4), (0.7, 0.3))
    loss = distillation_loss(maps, maps_of((0.8, 0.1)), torch.ones(1), ONE)
    expected = sum(dice(f, [0.8, 0.1]) for f in ([0.9, 0.2], [0.6, 0.4], [0.7, 0.3]))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_a_negative_bag_is_pushed_to_nothing_whatever_the_teacher_says():
    maps = maps_of((0.9, 0.2), (0.6, 0.4))
    loss = distillation_loss(maps, maps_of((0.8, 0.1)), torch.zeros(1), ONE)
    expected = dice([0.1, 0.8], [1, 1]) + dice([0.4, 0.6], [1, 1])
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_a_bag_that_nobody_labelled_is_never_forced_to_nothing():
    maps, targets = maps_of((0.9, 0.2)), maps_of((0.8, 0.1))
    loss = distillation_loss(maps, targets, -torch.ones(1), ONE)
    expected = (dice([0.9, 0.2], [0.8, 0.1]) + dice([0.1, 0.8], [0.2, 0.9])) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_without_fusion_every_map_has_its_own_target():
    maps, targets = maps_of((0.9, 0.2), (0.6, 0.4)), maps_of((1.0, 0.0), (0.5, 0.5))
    loss = distillation_loss(maps, targets, torch.ones(1), ONE)
    assert loss.item() == pytest.approx(dice([0.9, 0.2], [1, 0]) + dice([0.6, 0.4], [0.5, 0.5]), abs=1e-6)


def test_pixels_outside_the_bag_do_not_count():
    inside = torch.tensor([[[1.0, 0.0]]])
    loss = distillation_loss(maps_of((0.9, 0.2)), maps_of((0.8, 0.1)), torch.ones(1), inside)
    assert loss.item() == pytest.approx(dice([0.9], [0.8]), abs=1e-6)


def test_the_semimetric_is_least_at_a_soft_target_where_dice_is_least_beyond_it():
    soft = torch.full((1, 8, 8), 0.4)
    inside = torch.ones_like(soft)
    grid = [torch.full_like(soft, p / 20) for p in range(21)]
    best = {
        name: min(range(21), key=lambda i, d=distance: d(grid[i], soft, inside).item()) / 20
        for name, distance in (("dice", dice_dissimilarity), ("semimetric", semimetric_dissimilarity))
    }
    assert best == {"dice": 1.0, "semimetric": 0.4}
    hard = (torch.rand(1, 8, 8) > 0.5).float()
    p = torch.rand(1, 8, 8)
    torch.testing.assert_close(semimetric_dissimilarity(p, hard, inside), dice_dissimilarity(p, hard, inside))


def test_pixels_that_the_student_contradicts_are_trusted_less():
    fused, hard = torch.tensor([[[0.9, 0.2]]]), torch.tensor([[[1.0, 1.0]]])
    hard[..., 1] = 0.0
    fused[..., 1] = 0.8  # contradicts: l = -log 0.2
    losses = [-math.log(0.9), -math.log(0.2)]
    doubt = [0.9, 0.2]
    weights = [d / (sum(doubt) / 2) for d in doubt]
    expected = sum(w * e for w, e in zip(weights, losses, strict=True)) / 2
    value = weighted_cross_entropy(fused, hard, torch.ones_like(fused))
    assert value.item() == pytest.approx(expected, abs=1e-6)
    plain = weighted_cross_entropy(fused, hard, torch.ones_like(fused), trust=False)
    assert plain.item() == pytest.approx(sum(losses) / 2, abs=1e-6)


def test_a_target_of_one_class_is_trusted_everywhere():
    fused = torch.tensor([[[0.9, 0.2]]])
    value = weighted_cross_entropy(fused, torch.ones_like(fused), torch.ones_like(fused))
    assert value.item() == pytest.approx(-(math.log(0.9) + math.log(0.2)) / 2, abs=1e-6)


def test_the_trust_has_no_gradient():
    fused = torch.tensor([[[0.9, 0.6]]], requires_grad=True)
    weighted_cross_entropy(fused, torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 1, 2)).sum().backward()
    mean = (0.9 + 0.4) / 2
    expected = torch.tensor([[[-0.9 / mean / 0.9 / 2, 0.4 / mean / 0.4 / 2]]])
    torch.testing.assert_close(fused.grad, expected)


def test_what_a_person_set_is_trusted_in_full_and_ignored_pixels_cost_nothing():
    fused, hard = torch.tensor([[[0.1, 0.9, 0.3]]]), torch.tensor([[[1.0, 1.0, 0.0]]])
    weights = torch.tensor([[[5.0, 1.0, 0.0]]])
    entropy = [-math.log(0.1), -math.log(0.9)]
    value = weighted_cross_entropy(fused, hard, weights)  # of one class where it counts
    assert value.item() == pytest.approx((5 * entropy[0] + entropy[1]) / 6, abs=1e-6)
    two = weighted_cross_entropy(fused, torch.tensor([[[1.0, 0.0, 0.0]]]), weights)
    doubt = (5 * 0.1 + 0.1) / 6
    assert two.item() == pytest.approx((5 * entropy[0] + 0.1 / doubt * -math.log(0.1)) / 6, abs=1e-5)


def batch_of(targets: list[list[float]], labels: list[float], weights: list[list[float]] | None = None) -> Batch:
    n = len(targets)
    return Batch(
        images=torch.zeros(n, 3, 1, 2),
        bag_image=torch.arange(n),
        bag_label=torch.tensor(labels),
        bag_inside=torch.ones(n, 1, 2),
        targets=torch.tensor(targets)[:, None, None],
        weights=None if weights is None else torch.tensor(weights)[:, None],
    )


def student(*rows: tuple[float, float]) -> Maps:
    """A student with one side output, the same as its fusion."""
    fused = torch.tensor(rows)[:, None]
    return Maps(fused[:, None], fused)


def test_the_terms_are_means_over_images_and_the_cross_entropy_weighs_lambda():
    maps, batch = student((0.9, 0.2), (0.3, 0.1)), batch_of([[0.8, 0.1], [0.0, 0.0]], [1, 0])
    terms = student_loss(PAPER, gm_loss)(maps, batch)
    kd = (2 * dice([0.9, 0.2], [0.8, 0.1]) + 2 * dice([0.7, 0.9], [1, 1])) / 2
    assert terms["kd"].item() == pytest.approx(kd, abs=1e-6)
    first = weighted_cross_entropy(maps.fused[:1], torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 1, 2)).item()
    second = -(math.log(0.7) + math.log(0.9)) / 2
    assert terms["wce"].item() == pytest.approx(2.0 * (first + second) / 2, abs=1e-6)
    assert set(student_loss(replace(PAPER, wce=0.0), gm_loss)(maps, batch)) == {"kd"}


def test_an_empty_map_in_a_positive_bag_teaches_nothing_and_the_bag_loss_steps_in():
    maps, batch = student((0.3, 0.2)), batch_of([[0.2, 0.1]], [1])
    terms = student_loss(PAPER, gm_loss)(maps, batch)
    expected = gm_loss(maps.all(), torch.ones(1), torch.ones(1, 1, 2)).item()
    assert terms["kd"].item() == pytest.approx(expected, abs=1e-6)
    assert terms["wce"].item() == 0


def test_a_corrected_pixel_wins_over_a_pseudo_target():
    """With the same network output everywhere, the gradient of the corrected pixel points to the correction."""
    fused = torch.full((1, 1, 2), 0.5, requires_grad=True)
    maps = Maps(fused[:, None], fused)
    batch = batch_of([[1.0, 0.0]], [1], weights=[[1.0, 5.0]])
    terms = student_loss(PAPER, gm_loss)(maps, batch)
    sum(terms.values()).backward()
    pseudo, corrected = fused.grad.flatten().tolist()
    assert pseudo < 0 < corrected
    assert abs(corrected) > 2 * abs(pseudo)


def test_a_positive_bag_can_be_compared_by_its_background_too():
    maps, targets = maps_of((0.9, 0.2)), maps_of((0.8, 0.1))
    loss = distillation_loss(maps, targets, torch.ones(1), ONE, background=True)
    expected = (dice([0.9, 0.2], [0.8, 0.1]) + dice([0.1, 0.8], [0.2, 0.9])) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_cross_entropy_can_be_asked_of_every_side_output():
    maps, batch = student((0.9, 0.2)), batch_of([[1.0, 1.0]], [1])
    fusion, every = (
        student_loss(replace(PAPER, trust=False, wce_sides=sides), gm_loss)(maps, batch)["wce"].item()
        for sides in (False, True)
    )
    assert every == pytest.approx(2 * fusion)
