"""What leaves comes back the same: through every format, through other libraries, at other pixel sizes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
import tifffile
import zarr
from PIL import Image
from scipy import ndimage

from napari_histodistill.export import ExportOptions, ImportRequest, apply_import, export_slide, preview_import
from napari_histodistill.jobs import InlineControl
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study import NO_CORRECTION, RunState, Study

RASTER = {"ome-zarr": "ome-zarr", "ome-tiff": "ome-tiff", "png": "png-mask"}
POLYGONS = {"geojson": "geojson", "asap-xml": "asap-xml"}


def iou(one, other):
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def bring(entry, file, kind="pseudo", **options):
    preview = preview_import(ImportRequest(entry.folder, file, kind, **options), InlineControl())
    apply_import(preview, InlineControl())
    return preview


@pytest.mark.parametrize("name", RASTER)
def test_a_mask_comes_back_pixel_by_pixel(hard, hard_mask, with_result, tmp_path, name):
    file = export_slide(hard, [name], tmp_path)[RASTER[name]]
    with_result(hard, np.full_like(hard_mask, NORMAL))
    bring(hard, file)
    np.testing.assert_array_equal(np.asarray(hard.pseudo_mask()), hard_mask)
    np.testing.assert_array_equal(np.asarray(hard.probability()), np.where(hard_mask == TUMOUR, 255, 0))
    assert hard.run.record.state is RunState.COMPLETE
    assert hard.run.record.settings["model"].startswith(f"imported {file.name} ")


@pytest.mark.parametrize("name", POLYGONS)
def test_polygons_bring_the_very_mask_back_at_the_default_tolerance(hard, hard_mask, with_result, tmp_path, name):
    hard.origin = (40, 1000)
    hard.save()
    hard.save_tissue((hard_mask != OUTSIDE).astype(np.uint8), settings={})
    file = export_slide(hard, [name], tmp_path)[POLYGONS[name]]
    with_result(hard, np.full_like(hard_mask, NORMAL))
    preview = bring(hard, file)
    assert not [note for note in preview.notes if "Left out" in note or "off the slide" in note]
    back = np.asarray(hard.pseudo_mask())
    np.testing.assert_array_equal(back == TUMOUR, hard_mask == TUMOUR)
    np.testing.assert_array_equal(back == IGNORE, hard_mask == IGNORE)


@pytest.mark.parametrize(("tolerance", "least"), [(None, 1.0), (1.0, 0.985), (4.0, 0.9)])
def test_another_library_rasterises_the_polygons_to_the_mask(hard, hard_mask, tmp_path, tolerance, least):
    options = ExportOptions(tolerance_um=tolerance)
    collection = json.loads(export_slide(hard, ["geojson"], tmp_path, options=options)["geojson"].read_text())
    shapes = [
        shapely.affinity.scale(shapely.geometry.shape(feature["geometry"]), 0.25, 0.25, origin=(0, 0))
        for feature in collection["features"]
        if feature["properties"]["classification"]["name"] == "Tumor"
    ]
    drawn = np.zeros(hard_mask.shape, bool)
    for shape in shapes:
        left, top, right, bottom = (int(value) for value in shape.bounds)
        rows, columns = np.mgrid[top : bottom + 1, left : right + 1]
        inside = shapely.contains_xy(shape, columns + 0.5, rows + 0.5)
        drawn[rows[inside], columns[inside]] = True
    assert iou(drawn, hard_mask == TUMOUR) >= least


@pytest.mark.parametrize("name", [*RASTER, *POLYGONS])
def test_corrections_come_back_and_lie_over_those_that_are_there(entry, tmp_path, name):
    said = np.full((60, 80), NO_CORRECTION, np.uint8)
    said[:20], said[20:30, 10:40], said[40:50], said[55, 5] = TUMOUR, IGNORE, NORMAL, OUTSIDE
    entry.save_corrections_region(110, 210, said)
    file = export_slide(entry, [name], tmp_path, what="corrections")[{**RASTER, **POLYGONS}[name]]
    entry.save_corrections_region(110, 210, np.full((60, 80), NO_CORRECTION, np.uint8))
    entry.save_corrections_region(400, 300, np.full((5, 5), NORMAL, np.uint8))
    preview = bring(entry, file, "corrections")
    assert preview.window[:2] == (110, 210)
    back = entry.corrections()
    np.testing.assert_array_equal(back.read(110, 210, 60, 80), said)
    assert (back.read(400, 300, 5, 5) == NORMAL).all()
    assert (back.read(0, 0, 100, 800) == NO_CORRECTION).all()


@pytest.mark.parametrize("side", [0.5, 1.0, 8.0, 3.3])
@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_masks_of_other_programs_come_in_at_any_pixel_size(entry, tmp_path, side, ending):
    """A black and white mask, white being tumour, that says nothing of pixels: it is laid over the slide."""
    wanted = (round(1200 / side), round(1600 / side))
    y, x = np.mgrid[: wanted[0], : wanted[1]]
    disc = np.hypot((y + 0.5) * 1200 / wanted[0] - 600, (x + 0.5) * 1600 / wanted[1] - 700) < 300
    file = tmp_path / f"disc.{ending}"
    Image.fromarray(np.where(disc, 255, 0).astype(np.uint8)).save(file)
    preview = bring(entry, file)
    assert any("over the whole slide" in note for note in preview.notes)
    y, x = np.mgrid[:600, :800]
    expected = np.hypot(2 * y + 1 - 600, 2 * x + 1 - 700) < 300
    back = np.asarray(entry.pseudo_mask())
    assert iou(back == TUMOUR, expected) > (0.995 if side <= 1 else 0.95)
    assert set(np.unique(back[~expected])) <= {OUTSIDE, NORMAL, IGNORE, TUMOUR}
    assert back[15, 715] == IGNORE  # what the mask does not say is taken from the tissue
    assert back[0, 0] == OUTSIDE


def test_a_given_pixel_size_puts_a_mask_at_the_slides_corner(entry, tmp_path):
    file = tmp_path / "part.png"
    Image.fromarray(np.full((100, 100), 255, np.uint8)).save(file)
    with pytest.raises(Exception, match="give it in µm per pixel"):
        preview_import(ImportRequest(entry.folder, file, "pseudo"), InlineControl())
    preview = bring(entry, file, "corrections", mpp=4.0)
    assert preview.window == (0, 0, 200, 200)
    assert any("covers" in note for note in preview.notes)
    assert preview.areas_mm2 == {"tumour": pytest.approx(0.16)}


def test_a_plain_tiff_with_resolution_is_placed_by_it(entry, tmp_path):
    file = tmp_path / "part.tiff"
    tifffile.imwrite(file, np.ones((70, 300), np.uint8), resolution=(1e4 / 2, 1e4 / 2), resolutionunit="CENTIMETER")
    preview = bring(entry, file, "corrections")
    assert preview.window == (0, 0, 70, 300)


def test_an_ome_zarr_of_another_program_without_translation_begins_at_the_corner(entry, tmp_path):
    group = zarr.create_group(tmp_path / "labels.zarr", zarr_format=3)
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    scale = [{"type": "scale", "scale": [4.0, 4.0]}]
    group.create_array("s0", data=np.ones((1, 1, 50, 60), np.int32)[0, 0])
    datasets = [{"path": "s0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}], "image-label": {}}
    assert bring(entry, tmp_path / "labels.zarr", "corrections").window == (0, 0, 100, 120)


def test_a_preview_writes_nothing(entry, tmp_path):
    file = export_slide(entry, ["geojson"], tmp_path)["geojson"]
    before = sorted((path, path.stat().st_mtime_ns) for path in entry.folder.rglob("*"))
    preview = preview_import(ImportRequest(entry.folder, file, "corrections"), InlineControl())
    assert preview.window == (10, 300, 350, 430)
    assert max(preview.thumbnail.shape) == 512
    assert set(np.unique(preview.thumbnail)) == {TUMOUR, IGNORE, NO_CORRECTION}
    assert sorted((path, path.stat().st_mtime_ns) for path in entry.folder.rglob("*")) == before


def test_classes_of_other_programs_are_told_and_can_be_given_a_meaning(entry, tmp_path):
    square = [[[100, 100], [300, 100], [300, 300], [100, 300], [100, 100]]]
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}, "properties": properties}
        for properties in ({"classification": {"name": "Stroma"}}, {"classification": {"names": ["A", "B"]}}, {}, None)
    ]
    features.append({"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}, "properties": {}})
    file = tmp_path / "classes.geojson"
    file.write_text(json.dumps(features))
    preview = preview_import(ImportRequest(entry.folder, file, "corrections"), InlineControl())
    assert preview.window is None
    assert "Stroma (1), A: B (1), without a class (2)" in preview.notes[0]
    assert "no area, were left out: 1" in preview.notes[1]
    meaning = {"stroma": "normal"}
    preview = preview_import(ImportRequest(entry.folder, file, "corrections", classes=meaning), InlineControl())
    assert preview.window == (25, 25, 50, 50)
    assert list(preview.areas_mm2) == ["normal tissue"]


def square(left, top, side):
    """Corners (y, x)."""
    return [(top, left), (top, left + side), (top + side, left + side), (top + side, left)]


def test_camelyons_cut_outs_are_holes_wherever_they_stand_in_the_file(entry, tmp_path, asap_xml):
    file = tmp_path / "camelyon.xml"
    squares = [("_2", 80, 80, 40), ("_0", 0, 0, 400), ("_0", 500, 0, 40), ("_2", 200, 200, 80), ("_0", 220, 220, 40)]
    file.write_text(asap_xml(*((group, square(*where)) for group, *where in squares)))
    labels = preview_import(ImportRequest(entry.folder, file, "corrections"), InlineControl()).labels
    expected = np.zeros((100, 150), bool)
    expected[:100, :100] = expected[:10, 125:135] = True
    expected[20:30, 20:30] = expected[50:70, 50:70] = False
    expected[55:65, 55:65] = True
    np.testing.assert_array_equal(labels[:100, :150] == TUMOUR, expected)


def test_a_ring_that_crosses_itself_is_filled_by_the_even_odd_rule(entry, tmp_path):
    bow = [[0, 0], [400, 400], [400, 0], [0, 400], [0, 0]]
    geometry = {"type": "MultiPolygon", "coordinates": [[bow]]}
    file = tmp_path / "bow.geojson"
    feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": "tumour"}}}
    file.write_text(json.dumps(feature))
    labels = preview_import(ImportRequest(entry.folder, file, "corrections"), InlineControl()).labels
    expected = shapely.make_valid(shapely.Polygon(bow))
    y, x = np.mgrid[:100, :100]
    inside = shapely.contains_xy(expected, 4 * x + 2, 4 * y + 2)
    edge = shapely.distance(expected.boundary, shapely.points(4 * x + 2, 4 * y + 2)) < 1e-6
    assert ((labels[:100, :100] == TUMOUR) == inside)[~edge].all()


def test_a_pseudo_mask_that_comes_in_is_shown_as_it_came(hard, hard_mask, tmp_path):
    """The viewer computes masks anew from probability and tissue: they must give the mask that came in."""
    from napari_histodistill.nets.masking import MaskSettings
    from napari_histodistill.predict import mask_from_probability

    file = tmp_path / "mask.png"
    Image.fromarray(hard_mask).save(file)
    bring(hard, file)
    tissue = hard.tissue_on_grid()[0:600, 0:800]
    settings = MaskSettings.of_record(hard.run.record.summary)
    shown = mask_from_probability(np.asarray(hard.probability()), tissue, settings, hard.grid.pixel_size_um)
    np.testing.assert_array_equal(shown, hard_mask)


@pytest.fixture(scope="module")
def real(slides_dir, tmp_path_factory):
    """A real slide with a mask that follows its structures: dark tissue as tumour."""
    with open_slide(slides_dir / "crc-section-pyramid.tiff") as slide:
        entry = Study.create(tmp_path_factory.mktemp("real") / "study").add_slide(slide, target_mpp=3.0)
        darkness = ndimage.gaussian_filter(255 - slide.overview(entry.grid.shape).mean(axis=2), 2)
    mask = np.where(darkness > 90, TUMOUR, np.where(darkness > 25, NORMAL, OUTSIDE)).astype(np.uint8)
    entry.save_tissue((mask != OUTSIDE).astype(np.uint8), settings={})
    return entry, mask


@pytest.mark.parametrize("name", [*RASTER, *POLYGONS])
def test_a_real_slides_mask_comes_back(real, with_result, tmp_path, name):
    entry, mask = real
    with_result(entry, mask)
    file = export_slide(entry, [name], tmp_path)[{**RASTER, **POLYGONS}[name]]
    back = preview_import(ImportRequest(entry.folder, file, "pseudo"), InlineControl()).labels
    assert iou(back == TUMOUR, mask == TUMOUR) >= (0.999 if name in RASTER else 0.99)
