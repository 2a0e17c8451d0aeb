"""Cutting: labels, masks and pixels are those of the known outlines, whatever the resolution; stopped, it goes on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from skimage.draw import polygon

from napari_histodistill.cli import main
from napari_histodistill.jobs import InlineControl, JobCancelled
from napari_histodistill.mil.data import CutRequest, DatasetError, cut_dataset, load_dataset
from napari_histodistill.slide.errors import AnnotationError

from .conftest import HOLE, MPP, OUTLINE, SECOND, SHAPE, TISSUE_WIDTH, area

SIZE = 256


def cut(drawn, out, **changes):
    request = CutRequest(drawn.folder, out, mpp=1.1, min_tissue=0.0, min_tumour=0.0)
    return cut_dataset(replace(request, **changes), InlineControl())


def corner(bag) -> tuple[int, int]:
    y, x = bag.image.stem.split("-")
    return int(y[1:]), int(x[1:])


def of_slide(dataset, name):
    return [bag for bag in dataset.bags if bag.image.parent.name == name]


@pytest.fixture(scope="module")
def everything(camelyon, tmp_path_factory):
    """Every cut of the Camelyon slides with tissue, at 1.1 µm: a ratio of grids that is no integer."""
    out = tmp_path_factory.mktemp("cuts") / "all"
    return cut(camelyon, out), load_dataset(out)


def test_masks_are_the_outlines_without_their_holes_to_the_rounding_of_pixels(everything):
    _, dataset = everything
    grid = np.round(np.array(SHAPE) * MPP / 1.1)
    found = sum(bag.read_truth().sum() for bag in of_slide(dataset, "tumor_001"))
    expected = (area(OUTLINE) - area(HOLE) + area(SECOND)) * np.prod(grid / SHAPE)
    assert found == pytest.approx(expected, rel=0.002)


def test_each_mask_pixel_is_tumour_exactly_where_its_centre_is(everything):
    _, dataset = everything
    shape = tuple(round(side * MPP / 1.1) for side in SHAPE)
    expected = np.zeros(shape, bool)
    for corners, value in ((OUTLINE, True), (SECOND, True), (HOLE, False)):
        expected[polygon(*(corners * shape / SHAPE - 0.5).T, shape=shape)] = value
    bags = of_slide(dataset, "tumor_001")
    assert sum(bag.label for bag in bags) > 5
    for bag in bags:
        y, x = corner(bag)
        np.testing.assert_array_equal(bag.read_truth(), expected[y : y + SIZE, x : x + SIZE])


def test_the_picture_and_the_mask_of_a_cut_lie_on_each_other(everything, training, tmp_path):
    _, dataset = everything
    cut(training, tmp_path / "coarse", mpp=1.7)
    for bag in of_slide(dataset, "tumor_001") + of_slide(load_dataset(tmp_path / "coarse"), "tumor_001"):
        dark = bag.read_image()[..., 1] < 105  # halfway between the green of stroma and tumour
        assert (dark != bag.read_truth()).mean() < 0.004


def test_labels_say_whether_a_cut_holds_tumour_and_splits_follow_the_published_ones(everything):
    result, dataset = everything
    assert all(bag.read_truth().any() == bool(bag.label) for bag in dataset.bags)
    assert {bag.split for bag in of_slide(dataset, "test_001") + of_slide(dataset, "test_002")} == {"test"}
    assert {bag.split for bag in of_slide(dataset, "tumor_001")} <= {"train", "val"}
    assert not any(bag.label for bag in of_slide(dataset, "normal_001"))
    assert {bag.patient for bag in dataset.bags} == {"tumor_001", "normal_001", "test_001", "test_002"}
    assert (result.cuts["positive"], result.cuts["negative"]) == (
        sum(bag.label for bag in dataset.bags),
        sum(not bag.label for bag in dataset.bags),
    )
    assert all(bag.mpp == pytest.approx(1.1, rel=0.001) for bag in dataset.bags)


def test_glass_is_left_out(training, tmp_path):
    result = cut(training, tmp_path / "out", min_tissue=0.9)
    right = TISSUE_WIDTH * MPP / 1.1
    corners = [corner(bag) for bag in load_dataset(tmp_path / "out").bags]
    assert max(x for _, x in corners) + SIZE < right + 0.1 * SIZE + 8
    assert result.cuts["little_tissue"] > 0


def test_cuts_with_some_tumour_but_too_little_are_left_out(camelyon, everything, tmp_path):
    result = cut(camelyon, tmp_path / "out", min_tumour=0.4)
    least = min(bag.read_truth().mean() for bag in load_dataset(tmp_path / "out").bags if bag.label)
    assert least > 0.3
    assert result.cuts["little_tumour"] > 0
    before, _ = everything
    assert result.cuts["little_tumour"] + result.cuts["positive"] == before.cuts["positive"]
    assert result.cuts["negative"] == before.cuts["negative"]


def test_negatives_can_be_had_from_normal_slides_only(training, tmp_path):
    result = cut(training, tmp_path / "out", negatives="normal")
    negative = {bag.patient for bag in load_dataset(tmp_path / "out").bags if not bag.label}
    assert negative == {"normal_001"}
    assert result.cuts["not_wanted"] > 0


def test_a_draw_is_the_same_under_a_seed_and_another_under_another(training, tmp_path):
    def drawn(name, seed):
        result = cut(training, tmp_path / name, per_slide=2, seed=seed)
        assert result.cuts["not_drawn"] > 0
        rows = list(csv.DictReader(result.manifest.open()))
        assert max(sum(row["patient"] == p for row in rows) for p in {row["patient"] for row in rows}) <= 4
        return rows

    first = drawn("a", 0)
    assert drawn("b", 0) == first
    assert any(drawn(str(seed), seed) != first for seed in (1, 2, 3))


def test_cuts_of_512_px_hold_four_of_256(training, everything, tmp_path):
    cut(training, tmp_path / "out", size=512)
    _, small = everything
    large = of_slide(load_dataset(tmp_path / "out"), "tumor_001")
    quarters = {corner(bag): bag for bag in of_slide(small, "tumor_001")}
    (bag,) = [bag for bag in large if corner(bag) == (0, 0)]
    truth, image = bag.read_truth(), bag.read_image().astype(int)
    for y, x in ((0, 0), (0, SIZE), (SIZE, 0), (SIZE, SIZE)):
        part = np.s_[y : y + SIZE, x : x + SIZE]
        np.testing.assert_array_equal(truth[part], quarters[y, x].read_truth())
        assert abs(image[part] - quarters[y, x].read_image()).max() <= 1


def test_digestpath_takes_tumour_from_the_mask_picture(digestpath, tmp_path):
    result = cut(digestpath, tmp_path / "out", mpp=2.0, source_mpp=1.0)
    dataset = load_dataset(tmp_path / "out")
    assert result.cuts["positive"] > 0
    assert {bag.patient for bag in dataset.bags} == {"18-01", "18-02"}
    for bag in dataset.bags:
        y, x = corner(bag)
        whole = digestpath.tumour[2 * y : 2 * (y + SIZE), 2 * x : 2 * (x + SIZE)]
        mean = whole.reshape(SIZE, 2, SIZE, 2).mean((1, 3)) if bag.patient == "18-01" else np.zeros((SIZE, SIZE))
        differs = bag.read_truth() != (mean >= 0.5)
        assert not (differs & ((mean == 0) | (mean == 1))).sum() > 0.002 * SIZE**2
        assert differs.mean() < 0.01


def test_pictures_that_do_not_say_their_pixel_size_are_refused_with_the_option(digestpath, tmp_path):
    with pytest.raises(DatasetError, match="--source-mpp"):
        cut(digestpath, tmp_path / "out")


def test_a_mask_of_another_size_is_refused(digestpath, tmp_path):
    folder = tmp_path / "data" / "tissue-train-pos-v1"
    folder.mkdir(parents=True)
    source = next(digestpath.folder.glob("tissue-train-pos-v1/*1050.jpg"))
    (folder / "a.jpg").write_bytes(source.read_bytes())
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(folder / "a_mask.jpg")
    with pytest.raises(DatasetError, match="50 x 50 px but its slide 1350 x 1050"):
        cut(replace(digestpath, folder=tmp_path / "data"), tmp_path / "out", source_mpp=1.0)


def test_slides_cannot_be_cut_finer_than_they_are(training, tmp_path):
    with pytest.raises(DatasetError, match=r"cannot be cut at 0\.25"):
        cut(training, tmp_path / "out", mpp=0.25)


def test_an_unknown_group_of_outlines_is_refused(camelyon, tmp_path):
    folder = tmp_path / "data"
    for name in ("training/tumor", "training/lesion_annotations"):
        (folder / name).mkdir(parents=True)
    (folder / "training/tumor/tumor_001.tif").symlink_to(camelyon.folder / "training/tumor/tumor_001.tif")
    text = (camelyon.folder / "training/lesion_annotations/tumor_001.xml").read_text()
    (folder / "training/lesion_annotations/tumor_001.xml").write_text(
        text.replace('PartOfGroup="_1"', 'PartOfGroup="?"')
    )
    with pytest.raises(AnnotationError, match=r"group '\?'.*rename"):
        cut(replace(camelyon, folder=folder), tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_refused(training, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"cannot be written.*another folder"):
        cut(training, tmp_path / "file" / "out")


class StopAfter(InlineControl):
    """Cancels itself at its n-th checkpoint."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self.left = checks

    def checkpoint(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise JobCancelled
        super().checkpoint()


def test_a_cutting_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(camelyon, everything, tmp_path):
    request = CutRequest(camelyon.folder, tmp_path / "out", mpp=1.1, min_tissue=0.0, min_tumour=0.0)
    with pytest.raises(JobCancelled):
        cut_dataset(request, StopAfter(50))
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "slides").glob("*.json")}
    assert 0 < len(finished) < 4
    assert not (tmp_path / "out" / "manifest.csv").exists()
    with pytest.raises(DatasetError, match="--resume"):
        cut_dataset(request, InlineControl())
    with pytest.raises(DatasetError, match="other settings"):
        cut_dataset(replace(request, resume=True, size=512), InlineControl())
    result = cut_dataset(replace(request, resume=True), InlineControl())
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())
    whole, dataset = everything
    assert result.manifest.read_text() == whole.manifest.read_text()
    for bag, other in zip(load_dataset(tmp_path / "out").bags, dataset.bags, strict=True):
        assert bag.image.read_bytes() == other.image.read_bytes()


def test_the_command_says_what_it_left_and_its_folder_is_a_data_set(training, tmp_path):
    out = tmp_path / "out"
    result = CliRunner().invoke(
        main, ["cut", str(training.folder), "--out", str(out), "--mpp", "2", "--per-slide", "1", "--json"]
    )
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["slides"] == 2
    assert said["positive"] + said["negative"] == len(load_dataset(out)) > 0
    refused = CliRunner().invoke(main, ["cut", str(training.folder), "--out", str(out), "--mpp", "2"])
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
