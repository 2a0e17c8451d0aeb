"""Manifests and adapters: what is read, and a sentence for everything that can be wrong."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.mil import DatasetError, load_dataset
from napari_histodistill.mil.data import SPLITS, split_of


def test_a_manifest_gives_bags_with_everything_in_it(write_manifest):
    path = write_manifest("image,label,mask,patient,split,mpp\na.png,1,m.png,P7,test,0.5\na.png,0,,P8,train,2\n")
    positive, negative = load_dataset(path).bags
    assert (positive.label, positive.patient, positive.split, positive.mpp) == (1, "P7", "test", 0.5)
    assert positive.read_truth().all()
    assert positive.read_image().shape == (8, 10, 3)
    assert positive.read_image(1.0).shape == (4, 5, 3)
    assert negative.read_truth().shape == (8, 10)
    assert not negative.read_truth().any()


def test_optional_columns_may_be_absent_when_mpp_is_given(write_manifest):
    (bag,) = load_dataset(write_manifest("label,image\n1,a.png\n"), mpp=0.5).bags
    assert (bag.mask, bag.split, bag.mpp, bag.patient, bag.has_truth) == (None, None, 0.5, "a", False)


def test_a_byte_order_mark_and_spaces_do_not_matter(write_manifest):
    assert len(load_dataset(write_manifest("\ufeffimage,label,mpp\n a.png , 1 , 0.5 \n"))) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,mpp\na.png,1\n", "lacks the column label"),
        ("image,label,mpp\nb.png,1,1\n", r"b\.png does not exist"),
        ("image,label,mask,mpp\na.png,1,b.png,1\n", r"mask .*b\.png does not exist"),
        ("image,label,mpp\na.png,tumour,1\n", "line 2: the label is 'tumour'"),
        ("image,label,mpp\na.png,1,1\na.png,2,1\n", "line 3: the label is '2'"),
        ("image,label,mpp\n,1,1\n", "line 2: the image is missing"),
        ("image,label\na.png,1\n", "mpp is missing.*--mpp"),
        ("image,label,mpp\na.png,1,40\n", "mpp is '40'"),
        ("image,label,mpp\na.png,1,fine\n", "mpp is 'fine'"),
        ("image,label,split,mpp\na.png,1,holdout,1\n", "split is 'holdout'"),
        ("image,label,mpp\n", "no images"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_line(write_manifest, text, says):
    with pytest.raises(DatasetError, match=says) as error:
        load_dataset(write_manifest(text))
    assert "\n" not in str(error.value)


def test_a_path_that_is_nothing_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="There is no data set"):
        load_dataset(tmp_path / "nothing")


def test_an_unknown_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="neither EBHI-Seg nor GlaS"):
        load_dataset(tmp_path)


def test_an_absurd_mpp_for_all_is_refused(write_manifest):
    with pytest.raises(DatasetError, match="no resolution"):
        load_dataset(write_manifest("image,label\na.png,1\n"), mpp=0.001)


def test_a_damaged_image_is_named_when_it_is_read(write_manifest, tmp_path):
    (bag,) = load_dataset(write_manifest("image,label,mpp\na.png,1,1\n")).bags
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"a\.png cannot be read"):
        bag.read_image()


def test_resampling_keeps_the_mean_colour_and_removes_fine_detail(write_manifest, tmp_path):
    checks = (np.indices((200, 200)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(np.dstack([checks] * 3)).save(tmp_path / "a.png")
    (bag,) = load_dataset(write_manifest("image,label,mpp\na.png,1,0.25\n")).bags
    image = bag.read_image(1.0)
    assert image.shape == (50, 50, 3)
    assert abs(image.astype(float) - 127.5).max() < 3


def test_a_manifest_that_changes_gets_another_name(write_manifest):
    first = load_dataset(write_manifest("image,label,mpp\na.png,1,1\n")).name
    second = load_dataset(write_manifest("image,label,mpp\na.png,0,1\n")).name
    assert first != second
    assert first.startswith("manifest-")


def test_a_split_keeps_patients_together_and_does_not_depend_on_the_others(write_manifest):
    rows = "".join(f"a.png,1,P{i},1\n" for i in range(60) for _ in range(2))
    dataset = load_dataset(write_manifest("image,label,patient,mpp\n" + rows)).with_splits()
    assert {bag.split for bag in dataset.bags} == set(SPLITS)
    assert all(bag.split == split_of(bag.patient) for bag in dataset.bags)
    parts = [set(dataset.part(split).patients()) for split in SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 60


def test_a_declared_split_is_kept(write_manifest):
    text = "image,label,patient,split,mpp\na.png,1,x,val,1\na.png,0,y,test,1\n"
    assert [bag.split for bag in load_dataset(write_manifest(text)).with_splits().bags] == ["val", "test"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [("a.png,1,x,val,1\na.png,0,y,,1\n", "others none"), ("a.png,1,x,val,1\na.png,0,x,test,1\n", "several splits")],
)
def test_a_split_that_leaks_or_has_gaps_is_refused(write_manifest, rows, says):
    dataset = load_dataset(write_manifest("image,label,patient,split,mpp\n" + rows))
    with pytest.raises(DatasetError, match=says):
        dataset.with_splits()


def test_ebhi_seg_holds_the_four_classes_of_the_task(data_dir):
    dataset = load_dataset(data_dir / "ebhi-seg")
    assert dataset.name == "ebhi-seg"
    labels = {(bag.image.parent.parent.name, bag.label) for bag in dataset.bags}
    assert labels == {("adenocarcinoma", 1), ("high_grade_in", 1), ("normal", 0), ("polyp", 0)}
    assert len(dataset) == 1179
    assert all(bag.has_truth and bag.mpp == 1.1 for bag in dataset.bags)
    assert not any(bag.read_truth().any() for bag in dataset.bags if bag.label == 0)


def test_glas_takes_tumour_from_the_glands_of_malignant_images(data_dir):
    dataset = load_dataset(data_dir / "glas")
    assert (dataset.name, len(dataset)) == ("glas", 131)
    assert sum(bag.label for bag in dataset.bags) == 73
    positive = next(bag for bag in dataset.bags if bag.label)
    truth = positive.read_truth()
    assert truth.shape == positive.read_image().shape[:2]
    assert 0.05 < truth.mean() < 0.95


def test_a_folder_whose_table_is_no_text_says_so(tmp_path):
    (tmp_path / "images.csv").write_bytes("class,name,patient\nKrebs,größe.png,1\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"images\.csv cannot be read as a CSV file"):
        load_dataset(tmp_path)
