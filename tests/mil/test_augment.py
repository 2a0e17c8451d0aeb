"""Batches: sizes, ranges, bags that fit their images, and the same batches for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_histodistill.mil.augment import (
    degrade,
    dense_tissue,
    exchange_halves,
    jitter_stain,
    lay_glass,
    random_crop,
    random_halves,
)
from napari_histodistill.mil.sampler import Sampler
from napari_histodistill.mil.settings import Augmentation

NONE = Augmentation(stain=0.0, shift=0.0, blur=0.0, noise=0.0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("size", [(40, 50), (200, 90), (64, 64)])
def test_crops_have_one_size_whatever_the_image(rng, size):
    image = rng.integers(0, 256, (*size, 4), np.uint8)
    for _ in range(10):
        assert random_crop(image, 64, (0.7, 1.4), rng).shape == (64, 64, 4)


def test_image_and_target_stay_together_through_a_crop(rng):
    target = np.zeros((90, 90), np.uint8)
    target[20:50, 30:70] = 255
    image = np.dstack([target, target, target, target])
    for _ in range(10):
        crop = random_crop(image, 64, (0.7, 1.4), rng).astype(int)
        assert np.abs(crop[..., 0] - crop[..., 3]).mean() < 6


def test_no_stain_jitter_leaves_the_image(rng):
    images = torch.rand(4, 3, 16, 16) * 0.9 + 0.1
    torch.testing.assert_close(jitter_stain(images, NONE, rng), images, atol=1e-4, rtol=0)


def test_stain_jitter_changes_colour_and_stays_in_range(rng):
    images = torch.rand(8, 3, 16, 16)
    changed = jitter_stain(images, Augmentation(), rng)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert (changed - images).abs().mean() > 0.02


def test_blur_and_noise_stay_in_range_and_leave_the_input(rng):
    images = torch.rand(8, 3, 16, 16)
    before = images.clone()
    changed = degrade(images, Augmentation(), rng)
    assert torch.equal(images, before)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not torch.equal(changed, images)


def test_halves_hold_between_a_third_and_two_thirds(rng):
    shares = random_halves(50, 64, rng).mean((1, 2))
    assert 0.28 < shares.min() < 0.5 < shares.max() < 0.72


def test_mosaics_hold_positive_pixels_in_positive_bags_only(rng):
    positive, negative = torch.ones(6, 4, 32, 32), torch.zeros(6, 4, 32, 32)
    batch = exchange_halves(positive, negative, 0.5, rng)
    assert batch.images.shape == (12, 3, 32, 32)
    assert len(batch.bag_image) == len(batch.bag_label) == len(batch.bag_inside) == 18
    for image, label, inside in zip(batch.bag_image, batch.bag_label, batch.bag_inside, strict=True):
        assert (batch.images[image][:, inside > 0] == label).all()
    covered = torch.zeros(12, 32, 32).index_add(0, batch.bag_image, batch.bag_inside)
    assert (covered == 1).all()


def test_glass_is_a_negative_bag_and_leaves_the_other_bags(rng):
    batch = exchange_halves(torch.ones(6, 4, 32, 32) / 2, torch.ones(6, 4, 32, 32) / 2, 0.5, rng)
    batch = replace(batch, targets=torch.ones(12, 1, 32, 32))
    glass = lay_glass(batch, 1.0, rng)
    bright = glass.images.amin(1) > 0.6
    for image, label, inside in zip(glass.bag_image, glass.bag_label, glass.bag_inside, strict=True):
        if label:
            assert not (bright[image] & (inside > 0)).any()
    assert (glass.bag_label[-12:] == 0).all()
    assert (bright[glass.bag_image[-12:]] == (glass.bag_inside[-12:] > 0)).all()
    assert torch.equal(glass.targets[:, 0], (~bright).float())


def test_targets_come_through_the_exchange(rng):
    planes = torch.rand(2, 4, 16, 16)
    assert torch.equal(exchange_halves(planes[:1], planes[1:], 0.0, rng).targets, planes[:, 3:])


def test_dense_tissue_is_found_beside_pale_tissue_and_glass_at_any_resolution():
    for mpp in (1.0, 2.0):
        n = round(300 / mpp)
        image = np.full((n, n, 3), 250, np.uint8)
        image[:, n // 3 :] = (235, 190, 215)
        image[:, 2 * n // 3 :] = (120, 70, 150)
        dense = dense_tissue(image, mpp, 0.75)
        assert not dense[:, : 2 * n // 3 - round(20 / mpp)].any()
        assert dense[:, 2 * n // 3 + round(20 / mpp) :].all()
    assert dense_tissue(image, 1.0, 0.0).all()


def test_lumens_belong_to_the_dense_tissue_around_them_and_large_holes_do_not():
    y, x = np.mgrid[:400, :400]
    for radius, filled in ((30, True), (100, False)):
        image = np.full((400, 400, 3), (120, 70, 150), np.uint8)
        image[(y - 200) ** 2 + (x - 200) ** 2 < radius**2] = 250
        assert dense_tissue(image, 1.0, 0.75)[200, 200] == filled


def test_glass_alone_is_dense_everywhere_for_want_of_tissue():
    assert dense_tissue(np.full((8, 8, 3), 255, np.uint8), 1.0, 0.75).all()


def test_without_shares_there_are_no_mosaics_and_no_glass(rng):
    positive, negative = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)
    batch = lay_glass(exchange_halves(positive, negative, 0.0, rng), 0.0, rng)
    assert torch.equal(batch.images, torch.cat([positive, negative]))
    assert batch.bag_label.tolist() == [1, 1, 1, 0, 0, 0]
    assert (batch.bag_inside == 1).all()


def test_an_epoch_is_the_same_for_the_same_seed_and_number_only(rng):
    images = [rng.integers(0, 256, (40, 40, 3), np.uint8) for _ in range(10)]
    sampler = Sampler(images, [1, 0] * 5, crop=32, batch=4, augmentation=Augmentation())
    first, again, later = (list(sampler.epoch(0, n)) for n in (0, 0, 1))
    assert len(first) == sampler.steps == 3
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].images, later[0].images)
