"""Targets: averaged over views, cut as asked, nothing in negative bags, a person's word over the model's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.distill.material import Material
from napari_histodistill.distill.recipe import Targets
from napari_histodistill.distill.targets import averaged, make_targets, pixel_weights, shaped

PLAIN = Targets(views=1, threshold=0.5, density=0.0)


def red(images: np.ndarray) -> np.ndarray:
    """A predictor whose map is the red channel."""
    return images[..., :1].astype(np.float32) / 255


@pytest.mark.parametrize("views", [1, 4, 8])
def test_maps_come_back_in_place_from_every_view(views):
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    np.testing.assert_allclose(averaged(red, image, views), red(image[None])[0], atol=1e-6)


def test_a_predictor_that_favours_one_side_is_evened_out():
    def lopsided(images: np.ndarray) -> np.ndarray:
        n, h, w = images.shape[:3]
        return np.broadcast_to(np.linspace(0, 1, w, dtype=np.float32)[None, None, :, None], (n, h, w, 1))

    image = np.zeros((9, 9, 3), np.uint8)
    assert np.ptp(averaged(lopsided, image, 1)) == 1
    assert np.allclose(averaged(lopsided, image, 4), 0.5)


def test_targets_are_soft_cut_in_the_middle_or_where_each_image_parts():
    maps = np.r_[np.full(50, 0.1), np.full(50, 0.4)].reshape(10, 10, 1).astype(np.float32)
    assert np.array_equal(shaped(maps, Targets(cut="soft"), 1.0), maps)
    assert not shaped(maps, Targets(threshold=0.5), 1.0).any()
    assert shaped(maps, Targets(threshold=0.3), 1.0).sum() == 50
    assert shaped(maps, Targets(cut="otsu"), 1.0).sum() == 50


def test_a_faint_map_of_a_positive_bag_is_cut_below_what_it_says_of_the_bag():
    maps = np.r_[np.full(60, 0.02), np.full(40, 0.2)].reshape(10, 10, 1).astype(np.float32)
    faint = Targets(cut="relative", threshold=0.3)
    assert shaped(maps, faint, 1.0).sum() == 40, "0.3 of (0.4 * 0.2^4)^(1/4) = 0.16 is 0.05"
    assert not shaped(maps, faint, 1.0, positive=False).any(), "of an unknown bag nothing is claimed"
    loud = np.clip(maps * 5, 0, 1)
    assert np.array_equal(shaped(loud, faint, 1.0), shaped(loud, Targets(threshold=0.3 * 0.7953), 1.0))


def test_temperature_sharpens_and_softens_about_one_half():
    maps = np.array([[[0.2], [0.5], [0.9]]], np.float32)
    sharp, flat = (shaped(maps, Targets(cut="soft", temperature=t), 1.0) for t in (0.5, 2.0))
    assert sharp[0, 0, 0] < 0.2 < flat[0, 0, 0] < 0.5 < flat[0, 2, 0] < 0.9 < sharp[0, 2, 0]
    assert sharp[0, 1, 0] == pytest.approx(0.5)


def test_holes_up_to_an_area_are_filled_whatever_the_resolution():
    for mpp in (1.0, 2.0):
        n = round(200 / mpp)
        y, x = np.mgrid[:n, :n] * mpp
        maps = np.ones((n, n, 1), np.float32)
        maps[np.hypot(y - 50, x - 50) < 20] = 0  # 0.0013 mm²
        maps[np.hypot(y - 130, x - 130) < 45] = 0  # 0.0064 mm²
        target = shaped(maps, Targets(holes_mm2=0.002), mpp)
        assert target[round(50 / mpp), round(50 / mpp)] == 1
        assert target[round(130 / mpp), round(130 / mpp)] == 0


class Teacher:
    """Looks like a model: its fusion is the red channel, its two sides red and green."""

    class network:  # noqa: N801
        weights = __import__("torch").tensor([0.25, 0.75])

    def __init__(self) -> None:
        self.looked_at = 0

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.looked_at += len(images)
        return red(images)[..., 0]

    def predict_sides(self, images: np.ndarray) -> np.ndarray:
        return images[..., :2].astype(np.float32) / 255


@pytest.fixture
def material() -> Material:
    images = [np.full((4, 6, 3), (255, 51, 0), np.uint8) for _ in range(3)]
    none = np.full((4, 6), 255, np.uint8)
    by_hand = none.copy()
    by_hand[0, 0], by_hand[0, 1] = 2, 3
    normal = none.copy()
    normal[1, 1] = 1
    return Material(1.0, images, [1, 0, -1], images, [0, 1, 2], [by_hand, none, normal])


def test_nothing_is_predicted_for_negative_places(material, recorder):
    teacher = Teacher()
    targets = list(make_targets(teacher, material, PLAIN, recorder))
    assert teacher.looked_at == 2
    assert not targets[1].any()
    assert targets[2].all()


def test_what_a_person_set_is_the_target(material, recorder):
    first = next(iter(make_targets(Teacher(), material, PLAIN, recorder)))
    assert first[0, 0] == 0  # set to normal, predicted tumour
    assert first[0, 1] == 255  # ignored: stays, at weight 0
    weights = pixel_weights(material.set_by_hand[0], 5.0)
    assert weights[0, 0] == 80
    assert weights[0, 1] == 0
    assert weights[2, 2] == 16


def test_every_side_can_have_its_own_target(material, recorder):
    first = next(iter(make_targets(Teacher(), material, replace(PLAIN, cut="soft", per_side=True), recorder)))
    assert first[2, 2].tolist() == [255, 51, round(0.25 * 255 + 0.75 * 51)]


def test_pale_tissue_is_no_target_of_tumour_whatever_the_teacher_says(recorder):
    image = np.full((200, 200, 3), (255, 190, 215), np.uint8)
    image[:, 100:] = (255, 70, 150)  # densely stained; the teacher calls both tumour
    material = Material(1.0, [image], [1], [image], [0])
    target = next(iter(make_targets(Teacher(), material, replace(PLAIN, density=0.85), recorder)))[..., 0]
    assert not target[:, :60].any()
    assert target[:, 140:].all()
    assert next(iter(make_targets(Teacher(), material, PLAIN, recorder))).all()
