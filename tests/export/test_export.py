"""Export files: where things land, that others can read them, and that nothing half-written stays."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree as ET

import geojson
import numpy as np
import openslide
import pytest
import shapely
import tifffile
import zarr
from ome_zarr_models.v05 import Image as OmeImage
from ome_zarr_models.v05 import ImageLabel, Labels
from PIL import Image

from napari_histodistill import __version__
from napari_histodistill.errors import HistodistillError
from napari_histodistill.export import FORMATS, ExportError, ExportOptions, export_slide, picture
from napari_histodistill.export.source import source_of
from napari_histodistill.jobs import InlineControl, JobCancelled
from napari_histodistill.slide.labels import IGNORE, NORMAL, TUMOUR
from napari_histodistill.study import NO_CORRECTION, StudyError, StudySlide

TUMOUR_BOX = (200, 360, 300, 500)
"""top, bottom, left, right in px of the working grid, which has 4 x 4 level-0 px each (see conftest)."""
HOLE_BOX = (240, 280, 350, 400)
IGNORE_BOX = (10, 20, 700, 730)


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
    assert list(written) == [
        "ome-zarr", "ome-tiff", "geojson", "asap-xml", "png", "png-mask", "png-probability", "csv", "csv-regions",
        "csv-provenance",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in written.values())
    assert written["png"].name == "boxes é-overlay.png"


def test_by_default_files_go_to_the_study_and_replace_their_predecessors(entry):
    for _ in range(2):
        written = export_slide(entry.folder, ["ome-zarr", "csv"])
    assert [path.parent for path in written.values()] == [entry.folder / "exports"] * 4


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
    entry.save_corrections_region(110, 210, np.full((20, 30), TUMOUR, np.uint8), tool="brush")
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
    assert (row["width_px"], row["height_px"], row["mpp_x"], row["model"]) == ("3200", "2400", "0.5", "m 0123456789ab")
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
    with pytest.raises(
        ExportError, match="no export format 'tiff': choose from ome-zarr, ome-tiff, geojson, asap-xml, png, csv"
    ):
        export_slide(entry, ["csv", "tiff"])
    assert not (entry.folder / "exports").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_slide_without_a_result_is_a_sentence(entry, name):
    for folder in entry.runs():
        (folder / "run.json").unlink()
    with pytest.raises(HistodistillError, match="run the teacher first"):
        export_slide(entry, [name])
    assert not (entry.folder / "exports").exists()


def test_a_folder_that_cannot_be_written_is_a_sentence(entry, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_slide(entry, ["csv"], tmp_path / "file")


def test_only_the_overlay_needs_the_slide(entry):
    entry.slide_path.unlink()
    moved = StudySlide.open(entry.folder)
    export_slide(moved, [name for name in FORMATS if name != "png"])
    with pytest.raises(HistodistillError, match="no longer there"):
        export_slide(moved, ["png"])


def test_ome_tiff_is_a_pyramid_in_place_for_tifffile_and_openslide(entry):
    path = export_slide(entry, ["ome-tiff"])["ome-tiff"]
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        assert file.is_ome
        assert [level.shape for level in series.levels] == [(600, 800), (300, 400)]
        page = file.pages[0]
        assert (page.is_tiled, page.compression.name, len(page.subifds)) == (True, "ADOBE_DEFLATE", 1)
        labels, half = series.levels[0].asarray(), series.levels[1].asarray()
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (2, "µm")
    stored = np.asarray(entry.pseudo_mask())
    np.testing.assert_array_equal(labels, stored)
    np.testing.assert_array_equal(half, stored[1::2, 1::2])
    slide = openslide.OpenSlide(path)
    assert slide.dimensions == (800, 600)
    assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(2, rel=1e-4)
    region = np.asarray(slide.read_region((300, 200), 0, (10, 10)))
    assert (region[..., :3] == (220, 20, 40)).all()


def test_ome_tiff_takes_any_size_of_mask(entry, with_result):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 4, entry.grid.shape).astype(np.uint8)
    with_result(entry, mask)
    np.testing.assert_array_equal(tifffile.imread(export_slide(entry, ["ome-tiff"])["ome-tiff"]), mask)


@pytest.mark.parametrize("tolerance", [None, 5.0, 40.0])
def test_geojson_is_valid_for_independent_readers_at_any_tolerance(hard, tolerance):
    options = ExportOptions(tolerance_um=tolerance)
    collection = geojson.loads(export_slide(hard, ["geojson"], options=options)["geojson"].read_text(encoding="utf-8"))
    assert collection.is_valid
    shapes = [shapely.geometry.shape(feature.geometry) for feature in collection.features]
    assert all(shape.is_valid for shape in shapes)
    mask = np.asarray(hard.pseudo_mask())
    assert sum(feature.properties["measurements"]["Area µm^2"] for feature in collection.features) == (
        pytest.approx(4 * np.isin(mask, (TUMOUR, IGNORE)).sum())
    )
    assert any(len(feature.geometry.coordinates) > 1 for feature in collection.features)


def test_simplification_takes_points_away(hard):
    def points(tolerance):
        written = export_slide(hard, ["geojson"], options=ExportOptions(tolerance_um=tolerance))
        return len(written["geojson"].read_text(encoding="utf-8"))

    assert points(20) < points(4) < points(None)


def test_geojson_measures_areas_and_mean_probability(entry):
    tumour = features(export_slide(entry, ["geojson"])["geojson"])["Tumor"]["properties"]["measurements"]
    assert tumour["Area µm^2"] == 4 * (160 * 200 - 40 * 50)
    assert tumour["Mean probability"] == pytest.approx(0.8, abs=1e-4)
    corners = 8 * (2 - np.sqrt(2))  # each of eight corners is cut by a pixel of 2 µm
    assert tumour["Perimeter µm"] == pytest.approx(2 * (2 * (160 + 200) + 2 * (40 + 50)) - corners, abs=0.1)


def test_regions_are_told_in_um_and_level_0_px(entry):
    rows = list(csv.DictReader(export_slide(entry, ["csv"])["csv-regions"].open(encoding="utf-8")))
    ignored, tumour = sorted(rows, key=lambda row: row["class"])
    assert (ignored["class"], tumour["class"]) == ("Ignore*", "Tumor")
    assert (float(ignored["centroid_y_px"]), float(ignored["centroid_x_px"])) == (60, 2860)
    assert (float(ignored["centroid_y_um"]), float(ignored["centroid_x_um"])) == (30, 1430)
    assert (tumour["holes"], float(tumour["area_um2"])) == ("1", 4 * (160 * 200 - 40 * 50))


def test_asap_holds_every_ring_as_a_polygon_of_a_group(entry):
    root = ET.parse(export_slide(entry, ["asap-xml"])["asap-xml"]).getroot()
    groups = {group.get("Name") for group in root.iter("Group")}
    found = [(annotation.get("PartOfGroup"), annotation) for annotation in root.iter("Annotation")]
    assert sorted(name for name, _ in found) == ["Exclude", "Ignore*", "Tumor"]
    assert {name for name, _ in found} <= groups
    for name, annotation in found:
        points = np.array([(float(c.get("X")), float(c.get("Y"))) for c in annotation.iter("Coordinate")])
        box = {"Tumor": TUMOUR_BOX, "Exclude": HOLE_BOX, "Ignore*": IGNORE_BOX}[name]
        assert box_of(points) == level0(box)


@pytest.mark.parametrize("mpp", [2, 5, 1.3])
def test_pictures_have_the_pixels_that_were_asked_for(entry, mpp):
    written = export_slide(entry, ["png"], options=ExportOptions(mpp=mpp))
    mask, probability = (Image.open(written[name]) for name in ("png-mask", "png-probability"))
    overlay = Image.open(written["png"])
    assert mask.size == probability.size == (round(1600 / mpp), round(1200 / mpp))
    assert overlay.width == mask.width
    assert mask.info["dpi"][0] == pytest.approx(25400 / mpp, rel=2e-3)
    top, bottom, left, right = (round(2 * value / mpp) for value in TUMOUR_BOX)
    tumour = np.asarray(mask) == TUMOUR
    assert np.flatnonzero(tumour.any(axis=1))[[0, -1]].tolist() == pytest.approx([top, bottom - 1], abs=1)
    assert np.flatnonzero(tumour.any(axis=0))[[0, -1]].tolist() == pytest.approx([left, right - 1], abs=1)
    assert set(np.unique(np.asarray(probability))) == {0, 51, 204}


def test_a_picture_too_large_to_make_is_refused_with_a_size_that_works(entry):
    with pytest.raises(ExportError, match=r"choose .* µm per pixel or more"):
        export_slide(entry, ["png"], options=ExportOptions(mpp=0.01))


def provenance_of(key, path):
    if key == "ome-zarr":
        return zarr.open_group(path, mode="r").attrs["histodistill"]
    if key == "ome-tiff":
        with tifffile.TiffFile(path) as file:
            return json.loads(tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Description"])
    if key == "geojson":
        return json.loads(path.read_text(encoding="utf-8"))["histodistill"]
    if key == "asap-xml":
        text = path.read_text(encoding="ascii")
        return json.loads(text[text.index("<!--") + 4 : text.index("-->")])
    if key.startswith("png"):
        return json.loads(Image.open(path).text["histodistill"])
    return json.loads(path.with_name("boxes é-provenance.json").read_text(encoding="ascii"))


def test_every_file_says_what_made_it(entry):
    written = export_slide(entry, FORMATS, options=ExportOptions(tolerance_um=3))
    for key, path in written.items():
        said = provenance_of(key, path)
        assert (said["software"], said["version"]) == ("napari-histodistill", __version__)
        assert (said["slide"], said["fingerprint"]) == ("boxes é.tiff", entry.fingerprint)
        assert (said["model"], said["threshold"], said["smoothing_um"]) == ("m 0123456789ab", 0.5, 0)
        assert (said["what"], said["round"], said["options"]["tolerance_um"]) == ("pseudo", None, 3)
        assert said["date"].startswith("20")


def test_corrections_leave_on_their_own(entry):
    entry.save_corrections_region(110, 210, np.full((20, 30), TUMOUR, np.uint8))
    entry.save_corrections_region(300, 310, np.full((10, 10), NORMAL, np.uint8))
    written = export_slide(entry, FORMATS, what="corrections")
    assert "png-probability" not in written
    assert written["geojson"].name == "boxes é-corrections.geojson"
    assert set(features(written["geojson"])) == {"Tumor", "Normal"}
    labels = tifffile.imread(written["ome-tiff"])
    assert (labels == NO_CORRECTION).sum() == labels.size - 700
    group = zarr.open_group(written["ome-zarr"], mode="r")
    ImageLabel.from_zarr(group)
    np.testing.assert_array_equal(group["0"][:], labels)
    (row,) = csv.DictReader(written["csv"].open(encoding="utf-8"))
    assert (float(row["tumour_mm2"]), float(row["normal_mm2"])) == pytest.approx((600 * 4e-6, 100 * 4e-6))
    assert provenance_of("ome-tiff", written["ome-tiff"])["model"] is None


@pytest.mark.parametrize(
    ("what", "number", "sentence"),
    [
        ("prediction", None, "holds no round"),
        ("corrections", None, "no corrections"),
        ("pseudo", 2, "leave it out"),
        ("everything", None, "choose from pseudo, corrections, prediction"),
    ],
)
def test_what_the_study_does_not_hold_is_a_sentence(entry, what, number, sentence):
    with pytest.raises(ExportError, match=sentence):
        export_slide(entry, ["csv"], what=what, round_number=number)


def test_a_mask_that_another_process_replaces_meanwhile_is_not_exported_as_empty(entry):
    source = source_of(entry)
    strips = source.strips(100)
    next(strips)
    shutil.rmtree(entry.run.folder)  # as `segment` does once it has a newer one
    with pytest.raises(StudyError, match="no longer there"):
        list(strips)
    with pytest.raises(ExportError, match="no longer there"):
        source.check()


def test_the_first_teacher_is_not_called_round_0(entry):
    for number in (0, 2):
        run = entry.new_prediction(f"0001-000{number}", {})
        with run.replace_pseudo_mask():
            pass
    with pytest.raises(ExportError, match=r"no prediction of round 1 .* choose from the first teacher and round 2\."):
        export_slide(entry, ["csv"], what="prediction", round_number=1)
    shutil.rmtree(entry.folder / "predictions" / "0001-0000")
    with pytest.raises(ExportError, match=r"no prediction of the first teacher .* choose from round 2\."):
        export_slide(entry, ["csv"], what="prediction", round_number=0)


def test_a_file_name_can_be_given(entry, tmp_path):
    assert export_slide(entry, ["geojson"], tmp_path / "a.geojson") == {"geojson": tmp_path / "a.geojson"}
    assert export_slide(entry, ["ome-tiff"], tmp_path / "b.tif")["ome-tiff"] == tmp_path / "b.tif"
    assert export_slide(entry, ["ome-zarr"], tmp_path / "c.zarr")["ome-zarr"] == tmp_path / "c.zarr"
    assert export_slide(entry, ["png"], tmp_path / "d.png")["png-mask"] == tmp_path / "d.png"
    assert export_slide(entry, ["geojson"], tmp_path / "folder")["geojson"].parent == tmp_path / "folder"


def test_no_export_takes_the_place_of_the_slide(entry):
    before = entry.slide_path.read_bytes()
    with pytest.raises(ExportError, match="is the slide itself"):
        export_slide(entry, ["ome-tiff"], entry.slide_path)
    link = entry.slide_path.with_name("link.tiff")
    link.symlink_to(entry.slide_path)
    with pytest.raises(ExportError, match="is the slide itself"):
        export_slide(entry, ["ome-tiff"], link)
    assert entry.slide_path.read_bytes() == before
    assert not list(entry.slide_path.parent.glob(".partial*"))


def test_hostile_slide_names_are_safe_in_file_names_and_in_files(entry, tmp_path):
    entry.known_path = entry.known_path.with_name("a\"\n<b>\u202e--&'..;gnp.tiff")
    written = export_slide(entry, [name for name in FORMATS if name != "png"], tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert path.name.isprintable()
        assert not set("\"<>\n'") & set(path.name)
    for key in ("ome-tiff", "geojson", "asap-xml", "ome-zarr"):
        assert provenance_of(key, written[key])["slide"] == entry.known_path.name
    assert "\n<" not in written["csv"].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["ome-tiff", "geojson", "ome-zarr"])
def test_a_cancelled_export_leaves_nothing(entry, name):
    control = InlineControl()
    control.cancel()
    with pytest.raises(JobCancelled):
        export_slide(entry, [name], control=control)
    assert list((entry.folder / "exports").iterdir()) == []
