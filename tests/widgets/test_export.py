"""The Export dock and napari's own save dialog, as a user meets them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
import tifffile
import zarr
from ome_zarr_models.v05 import ImageLabel
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget

from napari_histodistill.export import ExportOptions
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study import NO_CORRECTION, Study
from napari_histodistill.viewer.export import ExportState
from napari_histodistill.viewer.layers import Role
from napari_histodistill.widgets.session import session_of

pytestmark = pytest.mark.viewer
PLUGIN = "napari-histodistill"
BOX = (slice(60, 120), slice(100, 180))
"""Tumour, in px of the working grid: 3 µm, 6 level-0 px."""


@pytest.fixture
def slide_path(tmp_path):
    path = tmp_path / "plain.tiff"
    tifffile.imwrite(
        path, np.full((1200, 1800, 3), 200, np.uint8), tile=(256, 256), photometric="rgb", resolution=(2e4, 2e4),
        resolutionunit=3,
    )  # fmt: skip
    return path


@pytest.fixture
def entry(slide_path, tmp_path):
    """A study whose result is a box of tumour in tissue."""
    with open_slide(slide_path) as slide:
        entry = Study.create(tmp_path / "study").add_slide(slide, target_mpp=3.0)
    mask = np.full(entry.grid.shape, NORMAL, np.uint8)
    mask[:20] = OUTSIDE
    mask[BOX] = TUMOUR
    entry.save_tissue((mask != OUTSIDE).astype(np.uint8), settings={}, edited=True)
    run = entry.new_run({"model": "m 0123"})
    run.probability.write(0, 0, np.where(mask == TUMOUR, 255, 0).astype(np.uint8))
    with run.replace_pseudo_mask() as target:
        target.write(0, 0, mask)
    entry.complete_run(run, {"model": "m", "threshold": 0.5, "smoothing_um": 0.0, "unreadable": 0})
    return entry


@pytest.fixture
def widget(window, slide_path):
    """The dock, with a slide that has no study yet."""
    for name in ("Slide", "Teacher", "Export"):
        docked = window.viewer.window.add_plugin_dock_widget(PLUGIN, name)[1]
    window.viewer.open(slide_path, plugin=PLUGIN)
    window.settle()
    return docked


@pytest.fixture
def ready(window, widget, entry):
    """The dock, with the result on screen."""
    widget.view.teacher.choose_study(entry.folder.parents[1])
    window.wait(lambda: widget.view.teacher.result is not None)
    window.wait(lambda: shown(widget)[BOX].min() == TUMOUR)
    return widget


def shown(widget):
    """The mask on screen."""
    return np.asarray(widget.view.layer(Role.PSEUDO_MASK).data)


def test_three_panels_share_one_place_on_a_small_laptop(window, ready):
    main = window.viewer.window._qt_window
    main.resize(1366, 768)
    window.settle(0.3)
    (dock,) = [dock for dock in main.findChildren(QDockWidget) if dock.isAncestorOf(ready)]
    assert len(main.tabifiedDockWidgets(dock)) == 2
    assert ready.body.width() <= ready.viewport().width(), "something is cut off at the right"
    assert (main.width(), main.height()) <= (1366, 768)


def test_without_a_result_the_dock_says_what_to_do_first(widget):
    assert "run the teacher first" in widget.problem.message
    assert not widget.export_button.isEnabled()
    assert not widget.import_button.isEnabled()
    assert widget.hint.text()


def test_a_stroke_and_a_new_threshold_of_a_moment_ago_are_in_the_file(window, ready, tmp_path):
    view = ready.view
    layer = view.layer(Role.PSEUDO_MASK)
    layer.brush_size = 9
    layer.paint((150, 250), TUMOUR)
    view.teacher.set_mask(threshold=0.7)
    ready.formats.setCurrentIndex(ready.formats.findData("ome-tiff"))
    view.export.choose_folder(tmp_path / "out")
    ready.export_button.click()
    window.wait(lambda: view.export.written)
    assert "Written: plain.ome.tiff" in ready.status.text()
    with tifffile.TiffFile(tmp_path / "out" / "plain.ome.tiff") as file:
        labels = file.asarray()
        said = json.loads(tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Description"])
    assert labels[150, 250] == TUMOUR
    assert (said["threshold"], said["model"]) == (0.7, "m 0123")
    assert ready.show_button.isEnabled()


def test_the_options_that_a_format_has_are_the_ones_that_are_shown(ready):
    shown = {}
    for format_ in ("geojson", "ome-tiff", "png"):
        ready.formats.setCurrentIndex(ready.formats.findData(format_))
        shown[format_] = (not ready.tolerance.isHidden(), not ready.mpp.isHidden())
    assert shown == {"geojson": (True, False), "ome-tiff": (False, False), "png": (False, True)}
    ready.tolerance.setValue(2.5)
    assert ready.control.options == ExportOptions(tolerance_um=2.5)
    ready.tolerance.setValue(0)
    assert ready.control.options.tolerance_um is None


def test_a_file_is_shown_before_it_is_applied_and_is_then_a_correction(window, ready, entry, tmp_path):
    mask = np.zeros((1200, 1800), np.uint8)
    mask[600:900, 300:900] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    ready._read(str(tmp_path / "mask.png"))
    window.wait(lambda: ready.control.state is ExportState.PREVIEW)
    preview = ready.view.layer(Role.IMPORT)
    assert (preview.data[100:150, 50:150] == TUMOUR).all()
    assert "tumour 0.045 mm²" in ready.status.text()
    assert entry.corrections() is None
    ready.discard_button.click()
    assert ready.view.layer(Role.IMPORT) is None
    assert ready.apply_button.isHidden()

    ready._read(str(tmp_path / "mask.png"))
    window.wait(lambda: ready.control.state is ExportState.PREVIEW)
    ready.apply_button.click()
    window.wait(lambda: ready.view.teacher.result is not None and ready.control.state is ExportState.READY)
    window.wait(lambda: set(np.unique(shown(ready)[100:150, 50:150])) == {TUMOUR})
    assert (shown(ready)[BOX] == TUMOUR).all()
    assert np.count_nonzero(entry.corrections().read(0, 0, *entry.grid.shape) != NO_CORRECTION) == 5000
    assert "is in the study" in ready.status.text()


def test_a_mask_that_comes_in_as_pseudo_mask_is_on_screen_as_it_came(window, ready, entry, tmp_path):
    mask = np.full(entry.grid.shape, NORMAL, np.uint8)
    mask[:40], mask[100:150, 50:150] = OUTSIDE, TUMOUR
    Image.fromarray(mask).save(tmp_path / "mask.png")
    ready.kind.setCurrentIndex(ready.kind.findData("pseudo"))
    ready._read(str(tmp_path / "mask.png"))
    window.wait(lambda: ready.control.state is ExportState.PREVIEW)
    assert "replaced" in ready.status.text()
    ready.apply_button.click()
    window.wait(lambda: ready.view.teacher.result is not None and ready.control.state is ExportState.READY)
    window.wait(lambda: np.array_equal(shown(ready), mask))


def test_a_file_that_cannot_be_read_is_told_in_a_sentence(window, ready, tmp_path):
    from napari.utils.notifications import notification_manager

    (tmp_path / "a.geojson").write_text("{")
    ready._read(str(tmp_path / "a.geojson"))
    window.wait(lambda: ready.control.state is ExportState.READY)
    assert "no GeoJSON" in notification_manager.records[-1].message
    assert ready.import_button.isEnabled()


@pytest.mark.parametrize("mpp", [0, 10])
def test_a_copy_is_a_plain_layer_in_place(window, ready, mpp):
    ready.copy_mpp.setValue(mpp)
    ready.copy_button.click()
    window.wait(lambda: "pseudo-mask copy" in window.viewer.layers)
    copy, mask = window.viewer.layers["pseudo-mask copy"], ready.view.layer(Role.PSEUDO_MASK)
    for layer in (copy, mask):
        inside = np.argwhere(np.asarray(layer.data) == TUMOUR)
        edges = [layer.data_to_world(inside.min(0) - 0.5), layer.data_to_world(inside.max(0) + 0.5)]
        np.testing.assert_allclose(edges, [[179.75, 299.75], [359.75, 539.75]], atol=max(0.01, mpp / 2))
    assert session_of(window.viewer).current is ready.view
    assert copy.metadata["histodistill"]["model"] == "m 0123"
    copy.data[BOX] = NORMAL
    assert (mask.data[BOX] == TUMOUR).all()


def test_only_what_is_on_screen_can_be_copied_and_keeps_its_place_in_files(window, ready, tmp_path):
    window.look((270.0, 420.0), 1.2)
    ready.visible_only.setChecked(True)
    ready.copy_button.click()
    window.wait(lambda: "pseudo-mask copy" in window.viewer.layers)
    copy = window.viewer.layers["pseudo-mask copy"]
    assert copy.data.shape[1] < 600
    copy.save(str(tmp_path / "part.geojson"))
    (feature,) = json.loads((tmp_path / "part.geojson").read_text())["features"]
    assert shapely.geometry.shape(feature["geometry"]).bounds == pytest.approx((600, 360, 1080, 720))


def test_the_pseudo_mask_is_saved_through_naparis_dialog_with_what_made_it(window, ready, tmp_path):
    layer = ready.view.layer(Role.PSEUDO_MASK)
    for name in ("a.ome.tiff", "a.ome.zarr", "a.geojson", "a.mask.png"):
        (path,) = layer.save(str(tmp_path / name))
        assert path == str(tmp_path / name)
    with tifffile.TiffFile(tmp_path / "a.ome.tiff") as file:
        np.testing.assert_array_equal(file.asarray(), layer.data)
        assert json.loads(tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Description"])["model"] == "m 0123"
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    ImageLabel.from_zarr(group)
    np.testing.assert_array_equal(group["0"][:], layer.data)
    steps = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert [step[step["type"]] for step in steps] == [[3.0, 3.0], [1.25, 1.25]]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.mask.png")), layer.data)
    assert json.loads((tmp_path / "a.geojson").read_text())["histodistill"]["threshold"] == 0.5


def test_layers_of_others_are_refused_with_a_sentence_and_their_own_writers_are_untouched(window, ready, tmp_path):
    other = window.viewer.add_labels(np.ones((20, 20), np.int32), name="other")
    with pytest.raises(Exception, match="Only HistoDistill's pseudo-mask"):
        other.save(str(tmp_path / "a.geojson"), plugin=PLUGIN)
    (path,) = other.save(str(tmp_path / "other.tif"))
    np.testing.assert_array_equal(tifffile.imread(path), other.data)


def square_of(name):
    ring = [[300, 600], [900, 600], [900, 900], [300, 900], [300, 600]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return json.dumps({"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}})


def test_classes_can_be_given_a_meaning_and_an_import_is_one_step_that_can_be_undone(window, ready, entry, tmp_path):
    (tmp_path / "a.geojson").write_text(square_of("Gland"))
    ready.classes.setText("Gland=tumour, Stroma = normal")
    ready._read(str(tmp_path / "a.geojson"))
    window.wait(lambda: ready.control.state is ExportState.PREVIEW)
    assert ready.undo_button.isHidden()
    ready.apply_button.click()
    window.wait(lambda: ready.view.teacher.result is not None and ready.control.state is ExportState.READY)
    window.wait(lambda: not ready.undo_button.isHidden())
    assert [step.tool for step in entry.corrections().entries().entries] == ["import of a.geojson"]
    assert "import of a.geojson" in ready.undo_button.toolTip()
    ready.undo_button.click()
    window.wait(ready.undo_button.isHidden)
    ready.view.teacher.result.flush()
    assert (entry.corrections().read(0, 0, *entry.grid.shape) == NO_CORRECTION).all()


def test_an_import_by_another_program_shows_up_by_itself(window, ready, entry):
    entry.save_corrections_region(150, 100, np.full((30, 30), TUMOUR, np.uint8), tool="import of b.geojson")
    window.wait(lambda: set(np.unique(shown(ready)[150:180, 100:130])) == {TUMOUR}, seconds=30)
    window.wait(lambda: not ready.undo_button.isHidden())


def test_tags_and_marks_in_names_are_shown_as_text(window, ready, tmp_path):
    name = '<img src="x"><b>a\u202e.geojson'
    (tmp_path / name).write_text("[]")
    ready._read(str(tmp_path / name))
    window.wait(lambda: "says nothing" in ready.status.text())
    assert ready.status.textFormat() == Qt.TextFormat.PlainText
    assert "<b>a\ufffd.geojson" in ready.status.text()
    ready.control.choose_folder(tmp_path / "<h1>x<")
    assert "&lt;h1&gt;" in ready.folder.toolTip()
