"""Published layouts of slides: which slide has what truth, patient and split; a sentence for what is missing."""

from __future__ import annotations

import pytest

from napari_histodistill.mil.data import DatasetError, load_dataset, split_of
from napari_histodistill.mil.data.slides import digestpath_patient, find_slides


@pytest.fixture
def touch(tmp_path):
    """Makes empty files: the layout is read from names alone."""

    def make(*names: str, text: str = ""):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize("drawn", ["lesion_annotations", "annotations", "tumor"])
def test_camelyon_finds_annotations_where_copies_of_it_have_them(touch, drawn):
    folder = touch("training/tumor/tumor_001.tif", "training/normal/normal_001.tif", f"training/{drawn}/tumor_001.xml")
    name, slides = find_slides(folder)
    assert name == "Camelyon16"
    assert {slide.name: slide.truth and slide.truth.name for slide in slides} == {
        "tumor_001": "tumor_001.xml",
        "normal_001": None,
    }


def test_camelyon_keeps_test_slides_apart_and_some_training_slides_for_validation(touch):
    names = [f"training/normal/normal_{i:03d}.tif" for i in range(60)]
    _, slides = find_slides(touch(*names, "testing/images/test_001.tif"))
    assert [slide.name for slide in slides if slide.split == "test"] == ["test_001"]
    validation = {slide.name for slide in slides if slide.split == "val"}
    assert validation == {slide.name for slide in slides if split_of(slide.name) == "val"} - {"test_001"}
    assert 2 <= len(validation) <= 20


def test_the_reference_says_which_test_slides_hold_tumour(touch):
    folder = touch("training/normal/n.tif", "testing/images/test_001.tif", "testing/images/test_002.tif")
    touch("testing/lesion_annotations/test_001.xml")
    truth = {slide.name: slide.truth is not None for slide in find_slides(folder)[1]}
    assert truth == {"n": False, "test_001": True, "test_002": False}
    touch("testing/reference.csv", text="test_001,Tumor,IDC,Macro\ntest_002,Tumor,IDC,Micro\n")
    with pytest.raises(DatasetError, match=r"test_002\.tif has no annotation test_002\.xml"):
        find_slides(folder)
    touch("testing/reference.csv", text="test_001,Tumor,IDC,Macro\n")
    with pytest.raises(DatasetError, match=r"does not say what test_002\.tif is"):
        find_slides(folder)


def test_a_tumour_slide_without_annotation_is_named(touch):
    with pytest.raises(DatasetError, match=r"tumor_001\.tif has no annotation"):
        find_slides(touch("training/tumor/tumor_001.tif"))


@pytest.mark.parametrize("positive", ["tissue-train-pos-v1", "tissue-train-pos"])
def test_digestpath_pairs_pictures_with_the_masks_beside_them(touch, positive):
    folder = touch(f"{positive}/1-1A_x.jpg", f"{positive}/1-1A_x_mask.jpg", "tissue-train-neg/2-2_x.jpg")
    name, slides = find_slides(folder)
    assert name == "DigestPath2019"
    assert [(s.name, s.patient, s.truth and s.truth.name, s.split) for s in slides] == [
        ("1-1A_x", "1-1", "1-1A_x_mask.jpg", split_of("1-1")),
        ("2-2_x", "2-2", None, split_of("2-2")),
    ]
    (folder / positive / "1-1A_x_mask.jpg").unlink()
    with pytest.raises(DatasetError, match=r"1-1A_x\.jpg lacks its mask"):
        find_slides(folder)


@pytest.mark.parametrize(
    ("stem", "patient"),
    [
        ("18-06380B_2019-05-07 23_23_07-lv1-43078-17060-4105-4420", "18-06380"),
        ("18-06380A_2019-05-07 23_25_11-lv1-1-2-3-4", "18-06380"),
        ("D201802307_2019-05-14", "D201802307"),
        ("case", "case"),
    ],
)
def test_blocks_of_a_case_are_one_patient(stem, patient):
    assert digestpath_patient(stem) == patient


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((), "neither Camelyon16"),
        (("tissue-train-neg/readme.txt",), "hold no slides"),
        (("tissue-train-neg/a.jpg", "tissue-train-pos/a.jpg", "tissue-train-pos/a_mask.jpg"), "two slides named a"),
    ],
)
def test_folders_that_cannot_be_cut_are_refused(touch, names, says):
    touch("something.txt")
    with pytest.raises(DatasetError, match=says):
        find_slides(touch(*names))


def test_slides_are_not_read_as_images_but_the_way_to_them_is_told(touch):
    with pytest.raises(DatasetError, match="histodistill cut"):
        load_dataset(touch("training/normal/normal_001.tif"))
