"""Export files: where things land, that others can read them, and that nothing half-written stays."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models.v05 import Image as OmeImage
from ome_zarr_models.v05 import ImageLabel, Labels
from PIL import Image

from napari_histodistill.errors import HistodistillError
from napari_histodistill.export import FORMATS, ExportError, export_slide, picture
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study import Study, StudySlide

MPP = 0.5
TUMOUR_BOX = (200, 360, 300, 500)
"""top, bottom, left, right in px of the working grid, which has 4 x 4 level-0 px each."""
HOLE_BOX = (240, 280, 350, 400)
IGNORE_BOX = (10, 20, 700, 730)


@pytest.fixture
def entry(tmp_path: Path) -> StudySlide:
    """Glass, a box of tissue in it, a box of tumour with a hole in that, and an ignored box."""
    image = np.full((2400, 3200, 3), 240, np.uint8)
    image[400:2000, 800:2800] = (200, 120, 170)
    path = tmp_path / "data" / "boxes é.tiff"
    path.parent.mkdir()
    options = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", **options)
    with open_slide(path) as slide:
        entry = Study.create(tmp_path / "study").add_slide(slide, target_mpp=2.0)
    assert entry.grid.shape == (600, 800)
    mask = np.full((600, 800), OUTSIDE, np.uint8)
    mask[100:500, 200:700] = NORMAL
    for (top, bottom, left, right), value in [(TUMOUR_BOX, TUMOUR), (HOLE_BOX, NORMAL), (IGNORE_BOX, IGNORE)]:
        mask[top:bottom, left:right] = value
    run = entry.new_run({"model": "m"})
    run.probability.write(0, 0, np.where(mask == TUMOUR, 204, np.where(mask == NORMAL, 51, 0)).astype(np.uint8))
    with run.replace_pseudo_mask() as target:
        target.write(0, 0, mask)
    entry.complete_run(run, {"model": "m", "threshold": 0.5, "smoothing_um": 0.0, "unreadable": 0})
    return entry


def features(path):
    collection = json.loads(path.read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    return {feature["properties"]["classification"]["name"]: feature for feature in collection["features"]}


def box_of(ring):
    """top, bottom, left, right of a ring of (x, y)."""
    points = np.array(ring)
    return (points[:, 1].min(), points[:, 1].max(), points[:, 0].min(), points[:, 0].max())


def level0(box):
    return tuple(4 * value for value in box)


def test_every_format_is_written_under_the_slides_name(entry, tmp_path):
    written = export_slide(entry, FORMATS, tmp_path / "out")
    assert list(written) == ["ome-zarr", "geojson", "png", "png-mask", "csv"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in written.values())
    assert written["png"].name == "boxes é-overlay.png"


def test_by_default_files_go_to_the_study_and_replace_their_predecessors(entry):
    for _ in range(2):
        written = export_slide(entry.folder, ["ome-zarr", "csv"])
    assert [path.parent for path in written.values()] == [entry.folder / "exports"] * 2


def test_geojson_has_its_edges_where_the_mask_has_them_in_level_0_px(entry):
    found = features(export_slide(entry, ["geojson"])["geojson"])
    assert set(found) == {"Tumor", "Ignore*"}
    outer, hole = found["Tumor"]["geometry"]["coordinates"]
    assert box_of(outer) == level0(TUMOUR_BOX)
    assert box_of(hole) == level0(HOLE_BOX)
    (ignored,) = found["Ignore*"]["geometry"]["coordinates"]
    assert box_of(ignored) == level0(IGNORE_BOX)
    for ring in (outer, hole, ignored):
        assert ring[0] == ring[-1]
    assert found["Tumor"]["properties"]["objectType"] == "annotation"


def test_geojson_counts_from_the_scanned_area_as_qupath_does(entry):
    entry.origin = (40, 1000)
    found = features(export_slide(entry, ["geojson"])["geojson"])
    top, bottom, left, right = level0(TUMOUR_BOX)
    assert box_of(found["Tumor"]["geometry"]["coordinates"][0]) == (top - 40, bottom - 40, left - 1000, right - 1000)


def test_corrections_are_in_every_export(entry):
    entry.save_pseudo_mask_region(110, 210, np.full((20, 30), TUMOUR, np.uint8))
    written = export_slide(entry, FORMATS)
    collection = json.loads(written["geojson"].read_text(encoding="utf-8"))
    boxes = [box_of(feature["geometry"]["coordinates"][0]) for feature in collection["features"]]
    assert level0((110, 130, 210, 240)) in boxes
    assert zarr.open_group(written["ome-zarr"], mode="r")["labels/pseudo-mask/0"][120, 220] == TUMOUR
    assert np.asarray(Image.open(written["png-mask"]))[120, 220] == TUMOUR
    tumour_px = 160 * 200 - 40 * 50 + 20 * 30
    (row,) = csv.DictReader(written["csv"].open(encoding="utf-8"))
    assert float(row["tumour_mm2"]) == pytest.approx(tumour_px * 4e-6)


def test_csv_holds_the_figures(entry):
    (row,) = csv.DictReader(export_slide(entry, ["csv"])["csv"].open(encoding="utf-8"))
    assert row["slide"] == "boxes é.tiff"
    assert (row["width_px"], row["height_px"], row["mpp_x"], row["model"]) == ("3200", "2400", "0.5", "m")
    tumour, tissue = 160 * 200 - 40 * 50, 400 * 500
    assert float(row["tissue_mm2"]) == pytest.approx(tissue * 4e-6)
    assert float(row["tumour_percent"]) == pytest.approx(100 * tumour / tissue)
    assert float(row["mean_probability"]) == pytest.approx((0.8 * tumour + 0.2 * (tissue - tumour)) / tissue)


def test_ome_zarr_is_valid_with_labels_in_place(entry):
    path = export_slide(entry, ["ome-zarr"])["ome-zarr"]
    group = zarr.open_group(path, mode="r")
    OmeImage.from_zarr(group)
    assert Labels.from_zarr(group["labels"]).attributes.ome.labels == ["pseudo-mask"]
    ImageLabel.from_zarr(group["labels/pseudo-mask"])
    (dataset, *_) = group["labels/pseudo-mask"].attrs["ome"]["multiscales"][0]["datasets"]
    scale, translation = (part[part["type"]] for part in dataset["coordinateTransformations"])
    assert (scale, translation) == ([2.0, 2.0], [0.75, 0.75])
    top, bottom, left, right = TUMOUR_BOX
    labels = group["labels/pseudo-mask/0"][:]
    assert (labels[top, left], labels[bottom - 1, right - 1]) == (TUMOUR, TUMOUR)
    assert (labels[top - 1, left], labels[bottom, right - 1]) == (NORMAL, NORMAL)
    assert group["0"][top, left] == 204


def test_the_mask_png_holds_label_values(entry):
    mask = Image.open(export_slide(entry, ["png"])["png-mask"])
    assert mask.mode == "P"
    values = np.asarray(mask)
    assert values.shape == (600, 800)
    assert np.unique(values).tolist() == [0, 1, 2, 3]
    assert values[15, 715] == IGNORE


def test_the_overlay_paints_tumour_red_in_place_and_leaves_the_rest(entry):
    page = np.asarray(Image.open(export_slide(entry, ["png"])["png"])).astype(int)
    scale = 2048 / 800
    assert page.shape[1] == 2048
    assert page.shape[0] > 600 * scale  # the legend is below, not over the slide

    def at(y, x):
        return page[round(y * scale), round(x * scale)]

    assert np.abs(at(150, 250) - (200, 120, 170)).max() <= 2
    assert np.abs(at(50, 50) - 240).max() <= 2
    inside = at(220, 450)
    assert inside[1] < 100 < 195 < inside[0]
    row = page[round(220 * scale)]
    outlined = np.flatnonzero(np.abs(row - picture.OUTLINE[TUMOUR]).max(axis=1) < 3)
    assert abs(outlined[0] - 300 * scale) <= 1
    assert abs(outlined[-1] + 1 - 500 * scale) <= 1
    legend = page[round(600 * scale) + 1 :]
    assert (legend.sum(axis=2) < 60).any()


@pytest.mark.parametrize(
    ("longest", "length", "label"),
    [(2600, 2000, "2 mm"), (1000, 1000, "1 mm"), (999, 500, "500 microns"), (7, 5, "5 microns")],
)
def test_scale_bars_are_round(longest, length, label):
    assert picture.scale_bar(longest) == (length, label)


def test_an_unknown_format_is_refused_before_anything_is_written(entry):
    with pytest.raises(ExportError, match="no export format 'tiff': choose from ome-zarr, geojson, png, csv"):
        export_slide(entry, ["csv", "tiff"])
    assert not (entry.folder / "exports").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_slide_without_a_result_is_a_sentence(entry, name):
    for folder in entry.runs():
        (folder / "run.json").unlink()
    with pytest.raises(HistodistillError, match="run the teacher first"):
        export_slide(entry, [name])
    assert list((entry.folder / "exports").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_sentence(entry, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_slide(entry, ["csv"], tmp_path / "file")


def test_only_the_overlay_needs_the_slide(entry):
    entry.slide_path.unlink()
    moved = StudySlide.open(entry.folder)
    assert len(export_slide(moved, ["ome-zarr", "geojson", "csv"])) == 3
    with pytest.raises(HistodistillError, match="no longer there"):
        export_slide(moved, ["png"])
