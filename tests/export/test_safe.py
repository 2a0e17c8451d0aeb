"""What must not leave or come out: formulas, control characters, a patient's label, a connection."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely
import tifffile
import zarr
from click.testing import CliRunner
from ome_zarr_models.v05 import ImageLabel
from PIL import Image

from napari_histodistill.cli import main
from napari_histodistill.errors import HistodistillError
from napari_histodistill.export import FORMATS, export_slide
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import TUMOUR
from napari_histodistill.study import Study

HOSTILE = 'a"\n\x1b[2J\x9b<b>\u202e[red]gnp.tiff'


@pytest.mark.parametrize("name", ['=HYPERLINK("x")', "+1", "-1+cmd|' C calc'!A0", "@SUM(1)", "\t=1", "\r=1", " =1"])
def test_no_cell_of_a_csv_is_a_formula(entry, tmp_path, name):
    entry.known_path = entry.known_path.with_name(f"{name}.tiff")
    written = export_slide(entry, ["csv"], tmp_path)
    for key in ("csv", "csv-regions"):
        for row in csv.reader(written[key].open(encoding="utf-8", newline="")):
            numbers = [cell for cell in row if cell.lstrip("\t\r ").startswith(("=", "+", "@"))]
            assert not numbers
    (row,) = csv.DictReader(written["csv"].open(encoding="utf-8", newline=""))
    assert row["slide"].startswith("'")


def test_whatever_a_message_quotes_it_is_one_printable_line():
    assert str(HistodistillError(f"{HOSTILE} is no slide:\ntry another")).isprintable()


def test_nothing_on_a_terminal_obeys_a_name(entry, tmp_path):
    """A file whose name clears the screen, and says so in results, notes, progress and errors."""
    file = tmp_path / HOSTILE.replace(".tiff", ".geojson")
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9]]]}}
    file.write_text(json.dumps(feature | {"properties": {"classification": {"name": HOSTILE}}}))
    study = str(entry.folder.parent.parent)
    for arguments in (["import", study, str(file), "--as", "corrections"], ["info", str(file)]):
        for as_json in ([], ["--json"]):
            done = CliRunner().invoke(main, [*arguments, *as_json])
            assert not set(done.output) - {"\n"} & {"\x1b", "\x9b", "\u202e", "\r"}
            assert "Traceback" not in done.output
            assert done.exit_code in {0, 2}


def test_label_and_macro_pictures_are_never_read_for_a_study_or_an_export(
    slides_dir, with_result, tmp_path, monkeypatch
):
    path = slides_dir / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide:
        assert {"label", "macro"} <= set(slide.associated_images())
        entry = Study.create(tmp_path / "study").add_slide(slide, target_mpp=4.0)
        label = slide.associated_image("label")

    def refuse(*_arguments):
        raise AssertionError("a label or macro picture was read")

    monkeypatch.setattr("napari_histodistill.slide.sources.openslide_source.OpenSlideSource.associated_image", refuse)
    with_result(entry, np.full(entry.grid.shape, TUMOUR, np.uint8))
    for written in export_slide(entry, FORMATS).values():
        if written.suffix == ".png":
            assert Image.open(written).size != label.shape[1::-1]
    said = b"".join(
        f.read_bytes() for f in tmp_path.rglob("*") if f.is_file() and f.suffix in {".json", ".geojson", ".csv"}
    )
    assert b"macro" not in said


NO_NETWORK = """
import sys
def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname") or (
        event in ("socket.connect", "socket.bind", "socket.sendto") and isinstance(arguments[1], tuple)
    ):
        raise RuntimeError(f"the network was used: {event} {arguments[1:]}")
sys.addaudithook(refuse)
"""


def test_the_work_of_a_day_opens_no_connection(template, tmp_path):
    """Info, segmentation by the bundled model, export and import, in processes where any use of the network fails."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(NO_NETWORK)
    source = str(Path(sys.modules["napari_histodistill"].__file__).parents[1])
    paths = os.pathsep.join([str(tmp_path / "hook"), source])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    study, slide = str(tmp_path / "study"), str(template / "data" / "boxes é.tiff")

    def run(*arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], check=False, capture_output=True, text=True, env=environment, timeout=300
        )
        assert (done.returncode != 0) == fails, done.stderr[-2000:]
        return done.stderr

    probe = "import socket; socket.create_connection(('127.0.0.1', 9))"
    assert "the network was used" in run("-c", probe, fails=True)
    command = ("-m", "napari_histodistill")
    run(*command, "info", slide)
    run(*command, "segment", slide, "--study", study)
    run(*command, "export", study, "--format", ",".join(FORMATS), "--out", str(tmp_path / "out"))
    run(*command, "import", study, str(tmp_path / "out" / "boxes é.geojson"), "--as", "corrections")


def test_napari_ome_zarr_shows_the_labels_of_an_export(entry, tmp_path):
    reader = pytest.importorskip("napari_ome_zarr")
    folder = export_slide(entry, ["ome-zarr"], tmp_path)["ome-zarr"]
    layers = reader.napari_get_reader(str(folder))(str(folder))
    kinds = {kind: data for data, _, kind in layers}
    assert set(kinds) == {"image", "labels"}
    np.testing.assert_array_equal(np.asarray(kinds["labels"][0]).squeeze(), np.asarray(entry.pseudo_mask()))


def test_a_real_slides_exports_open_in_other_programs(slides_dir, with_result, tmp_path):
    with open_slide(slides_dir / "crc-section-pyramid.tiff") as slide:
        entry = Study.create(tmp_path / "study").add_slide(slide, target_mpp=8.0)
        darkness = 255 - slide.overview(entry.grid.shape).mean(axis=2)
    mask = np.where(darkness > 90, TUMOUR, np.where(darkness > 25, 2, 0)).astype(np.uint8)
    with_result(entry, mask)
    written = export_slide(entry, FORMATS, tmp_path / "out")
    np.testing.assert_array_equal(tifffile.imread(written["ome-tiff"]), mask)
    tiff = openslide.OpenSlide(written["ome-tiff"])
    assert tiff.dimensions == mask.shape[::-1]
    assert float(tiff.properties["openslide.mpp-x"]) == pytest.approx(entry.grid.pixel_size_um[1], rel=1e-3)
    group = zarr.open_group(written["ome-zarr"] / "labels" / "pseudo-mask", mode="r")
    ImageLabel.from_zarr(group)
    np.testing.assert_array_equal(group["0"][:], mask)
    collection = json.loads(written["geojson"].read_text(encoding="ascii"))
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in collection["features"]]
    assert all(shape.is_valid for shape in shapes)
    size_y, size_x = (s / m for s, m in zip(entry.grid.pixel_size_um, entry.mpp, strict=True))
    drawn = np.zeros(mask.shape, bool)
    for shape in shapes:
        left, top, right, bottom = shape.bounds
        y, x = slice(int(top / size_y), int(bottom / size_y) + 1), slice(int(left / size_x), int(right / size_x) + 1)
        rows, columns = np.mgrid[y, x]
        inside = shapely.contains_xy(shape, (columns + 0.5) * size_x, (rows + 0.5) * size_y)
        drawn[rows[inside], columns[inside]] = True
    assert np.count_nonzero(drawn & (mask == TUMOUR)) >= 0.99 * np.count_nonzero(drawn | (mask == TUMOUR))
    np.testing.assert_array_equal(np.asarray(Image.open(written["png-mask"])), mask)
    assert Image.open(written["png"]).mode == "RGB"
