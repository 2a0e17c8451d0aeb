"""The authors' folders of IFKD: labels, masks by name, splits, and a sentence for what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.mil.data import Bag, DatasetError, load_dataset, read_mask


def picture(path, value=0, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (16, 20, 3) if mode == "RGB" else (16, 20)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)


def tumour_mask(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((16, 20), np.uint8)
    mask[4:12, 5:15] = 255
    Image.fromarray(mask).save(path)


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 40), ("test", 2)):
        for i in range(count):
            picture(tmp_path / part / "pos" / f"p{i}.png", 90)
            picture(tmp_path / part / "neg" / f"n{i}.jpg", 200)
            tumour_mask(tmp_path / part / "gt" / f"p{i}.png")
    return tmp_path


def test_folders_give_labels_masks_and_splits(folder):
    dataset = load_dataset(folder, mpp=0.5)
    assert dataset.name == folder.name
    assert len(dataset) == 84
    assert all(bag.label == (bag.image.parent.name == "pos") for bag in dataset.bags)
    assert all(bag.read_truth().sum() == 80 * bag.label for bag in dataset.bags)
    assert {bag.image.parent.parent.name for bag in dataset.part("test").bags} == {"test"}
    assert 4 <= len(dataset.part("val")) <= 24
    assert len(dataset.part("train")) + len(dataset.part("val")) == 80
    assert dataset.with_splits() is dataset


def test_equal_names_in_pos_neg_and_test_are_not_the_same_patient(folder):
    for part in ("train/neg", "test/neg", "test/pos", "train/pos"):
        picture(folder / part / "same.png")
    for part in ("train", "test"):
        tumour_mask(folder / part / "gt" / "same.png")
    dataset = load_dataset(folder, mpp=0.5)
    assert len(dataset.patients()) == len(dataset)


def test_a_mask_may_be_of_another_kind_of_file_or_end_in_mask(folder):
    (folder / "train/gt/p0.png").unlink()
    tumour_mask(folder / "train/gt/p0_mask.jpg")
    bag = next(b for b in load_dataset(folder, mpp=0.5).bags if b.image.name == "p0.png" and b.split != "test")
    assert bag.mask.name == "p0_mask.jpg"
    assert bag.read_truth().sum() == 80


def test_a_flat_test_folder_takes_its_labels_from_its_masks(folder):
    for kind in ("pos", "neg", "gt"):
        (folder / "test" / kind).rename(folder / kind)
    picture(folder / "test" / "a.png")
    picture(folder / "test" / "b.png")
    tumour_mask(folder / "test" / "gt" / "a.png")
    picture(folder / "test" / "gt" / "b.png", 0, "L")
    test = load_dataset(folder, mpp=0.5).part("test")
    assert {bag.image.stem: bag.label for bag in test.bags} == {"a": 1, "b": 0}
    assert [int(bag.read_truth().sum()) for bag in test.bags] == [80, 0]
    (folder / "test" / "gt" / "b.png").unlink()
    with pytest.raises(DatasetError, match=r"no mask of the name of .*b\.png"):
        load_dataset(folder, mpp=0.5)


def test_without_masks_positive_images_can_be_trained_on_but_not_measured(folder):
    for mask in (folder / "train" / "gt").iterdir():
        mask.unlink()
    train = load_dataset(folder, mpp=0.5).where(lambda bag: bag.split != "test")
    assert [bag.has_truth for bag in train.bags] == [bag.label == 0 for bag in train.bags]


def test_a_positive_image_without_its_mask_is_named(folder):
    (folder / "train/gt/p3.png").unlink()
    with pytest.raises(DatasetError, match=r"no mask of the name of .*p3\.png"):
        load_dataset(folder, mpp=0.5)


def test_the_pixel_size_must_be_given(folder):
    with pytest.raises(DatasetError, match="--mpp"):
        load_dataset(folder)


def test_masks_of_every_kind_of_file_say_the_same(tmp_path):
    truth = np.zeros((32, 48), bool)
    truth[8:24, 16:40] = True
    grey = Image.fromarray(truth.astype(np.uint8) * 255)
    files = {"grey.png": grey, "bits.png": grey.convert("1"), "rgb.png": grey.convert("RGB"), "lossy.jpg": grey}
    files["ids.png"] = Image.fromarray(truth.astype(np.uint8) * 3)
    for name, image in files.items():
        image.save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name), truth, err_msg=name)


def test_a_mask_that_shows_none_of_the_tumour_that_is_said_to_be_there_is_refused(tmp_path):
    """Such as one of a colour that is dark: a model would be measured as if there were nothing to find."""
    red = np.zeros((8, 10, 3), np.uint8)
    red[2:4, 2:4, 0] = 255
    Image.fromarray(red).save(tmp_path / "red.png")
    bag = Bag(tmp_path / "image.png", 1, "p", 1.0, tmp_path / "red.png")
    with pytest.raises(DatasetError, match=r"red.png shows no tumour.*half bright"):
        bag.read_truth()
