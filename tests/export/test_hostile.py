"""Files that somebody made to hurt, or that broke: refused with one sentence, in bounded memory."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_histodistill.errors import HistodistillError
from napari_histodistill.export import ImportRequest, preview_import, rasterise, read_geojson
from napari_histodistill.jobs import InlineControl
from napari_histodistill.slide import annotations, zarr_guard


@pytest.fixture
def refusal(entry) -> Callable[..., str]:
    """The sentence with which a file is refused."""

    def refuse(file, kind="corrections") -> str:
        with pytest.raises(HistodistillError) as caught:
            preview_import(ImportRequest(entry.folder, file, kind), InlineControl())
        sentence = str(caught.value)
        assert "\n" not in sentence
        assert len(sentence) < 500
        return sentence

    return refuse


def feature(coordinates: str, name: str = '"Tumor"', kind: str = "Polygon") -> str:
    return (
        '{"type":"Feature","properties":{"classification":{"name":' + name + '}},"geometry":{"type":"' + kind + '",'
        '"coordinates":' + coordinates + "}}"
    )


BROKEN_JSON = {
    "empty": ("", "is no GeoJSON"),
    "cut off": ('{"type": "FeatureCollection", "features": [' + feature("[[[0,0],[9,0],[9,9]]]")[:-9], "is no GeoJSON"),
    "not JSON": ("<html>", "is no GeoJSON"),
    "a number": ("17", "is no GeoJSON"),
    "deep": ("[" * 200_000, "nested too deeply"),
    "deep in coordinates": (feature("[" * 100_000 + "]" * 100_000), "nested too deeply"),
    "NaN": (feature("[[[0,0],[NaN,0],[9,9]]]"), "NaN is no number"),
    "infinite": (feature("[[[0,0],[1e999,0],[9,9]]]"), "no number"),
    "huge": (feature("[[[0,0],[1e300,0],[9,9]]]"), "no number"),
    "far": (feature("[[[0,0],[1e9,0],[9,9]]]"), "far outside"),
    "text": (feature('[[["a","b"],[0,0],[9,9]]]'), "no number"),
    "one number": (feature("[[[0],[1],[2]]]"), "is no GeoJSON"),
    "an integer of many digits": (feature("[[[0,0],[" + "9" * 5000 + ",0],[9,9]]]"), "is no GeoJSON"),
    "no geometry": ('{"type":"Feature","properties":{}}', "is no GeoJSON"),
    "items that are no features": ("[1,2,3]", "is no GeoJSON"),
    "bytes": ("\udcff", "is no GeoJSON"),
}


@pytest.mark.parametrize("case", BROKEN_JSON)
def test_broken_geojson_is_a_sentence(refusal, tmp_path, case):
    text, sentence = BROKEN_JSON[case]
    file = tmp_path / "a.geojson"
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert sentence in refusal(file)


@pytest.mark.parametrize("ending", ["geojson", "xml", "png", "txt"])
def test_hostile_file_names_do_not_reach_the_terminal(refusal, tmp_path, ending):
    file = tmp_path / f"a\n\x1b[2J\u202e.{ending}"
    file.write_text("{")
    assert refusal(file).isprintable()


def test_rings_of_too_few_points_are_counted_not_drawn(entry, tmp_path):
    file = tmp_path / "a.geojson"
    file.write_text("[" + ",".join(feature(rings) for rings in ("[]", "[[]]", "[[[1,1]]]", "[[[1,1],[90,90]]]")) + "]")
    preview = preview_import(ImportRequest(entry.folder, file, "corrections"), InlineControl())
    assert preview.window is None
    assert preview.notes


def test_one_endless_feature_is_refused_and_many_features_take_no_memory(refusal, tmp_path, monkeypatch):
    monkeypatch.setattr(read_geojson, "LARGEST_FEATURE", 1_000_000)
    file = tmp_path / "a.geojson"
    with file.open("w") as out:
        out.write('{"features": [')
        for _ in range(5_000):
            out.write(feature("[[[0,0],[9,0],[9,9],[0,9]]]") + ",")
        out.write(feature("[[" + "[0,0]," * 300_000 + "[0,0]]]") + "]}")
    shapes = read_geojson.read_geojson(file)
    tracemalloc.start()
    for _ in range(5_000):
        next(shapes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
    with pytest.raises(HistodistillError, match="more than 1 million characters"):
        next(shapes)


def test_a_ring_that_runs_up_and_down_a_million_times_is_refused(refusal, tmp_path, monkeypatch):
    monkeypatch.setattr(rasterise, "_MOST_CROSSINGS", 1_000_000)
    file = tmp_path / "a.geojson"
    file.write_text(feature("[[" + ",".join(f"[{i % 7},{2400 * (i % 2)}]" for i in range(3000)) + "]]"))
    assert "too intricate" in refusal(file)


def test_hostile_class_names_do_not_reach_the_terminal(entry, tmp_path):
    file = tmp_path / "a.geojson"
    name = json.dumps("\x1b[2J\u202e\n" + "x" * 10_000)
    file.write_text(feature("[[[0,0],[9,0],[9,9]]]", name))
    preview = preview_import(ImportRequest(entry.folder, file, "corrections"), InlineControl())
    assert all(note.isprintable() and len(note) < 400 for note in preview.notes)


ASAP = "<ASAP_Annotations><Annotations>{}</Annotations></ASAP_Annotations>"
BROKEN_XML = {
    "entities": (
        '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + ASAP.format("&b;"),
        "declares entities or refers to other files",
    ),
    "a file of the system": (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + ASAP.format("&x;"),
        "declares entities or refers to other files",
    ),
    "an external DTD": ('<!DOCTYPE a SYSTEM "http://localhost/a.dtd">' + ASAP.format(""), "declares entities"),
    "cut off": (ASAP.format("<Annotation>")[:40], "is no ASAP XML"),
    "another root": ("<html></html>", "does not begin with ASAP_Annotations"),
    "deep": (ASAP.format("<a>" * 5000 + "</a>" * 5000), "nested too deeply"),
    "no coordinate": (ASAP.format('<Annotation Type="Polygon"><Coordinate X="1"/></Annotation>'), "has no 'Order'"),
    "NaN": (ASAP.format('<Annotation Type="Polygon"><Coordinate Order="0" X="nan" Y="1"/></Annotation>'), "no number"),
    "text": (ASAP.format('<Annotation Type="Polygon"><Coordinate Order="0" X="x" Y="1"/></Annotation>'), "is no ASAP"),
    "empty": ("", "is no ASAP XML"),
}


@pytest.mark.parametrize("case", BROKEN_XML)
def test_broken_xml_is_a_sentence(refusal, tmp_path, case):
    text, sentence = BROKEN_XML[case]
    file = tmp_path / "a.xml"
    file.write_text(text)
    assert sentence in refusal(file)


def test_too_large_an_xml_is_refused_unread(refusal, tmp_path, monkeypatch):
    monkeypatch.setattr(annotations, "LARGEST_FILE", 10)
    file = tmp_path / "a.xml"
    file.write_text(ASAP.format(""))
    assert "split it" in refusal(file)


def png_that_says(width: int, height: int) -> bytes:
    """A PNG whose header promises a size and whose data is empty."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [100, 15_000, 100_000, 2**31 - 1])
def test_a_png_that_promises_more_than_it_holds_or_than_there_is_memory(refusal, tmp_path, side):
    file = tmp_path / "a.png"
    file.write_bytes(png_that_says(side, side))
    tracemalloc.start()
    refusal(file)
    assert tracemalloc.get_traced_memory()[1] < 400_000_000
    tracemalloc.stop()


def test_pictures_that_are_no_masks(refusal, tmp_path):
    Image.new("RGB", (80, 60)).save(tmp_path / "colours.png")
    assert "holds colours" in refusal(tmp_path / "colours.png")
    Image.fromarray(np.full((60, 80), 7, np.uint8)).save(tmp_path / "seven.png")
    assert "holds the value 7" in refusal(tmp_path / "seven.png")
    tifffile.imwrite(tmp_path / "wide.tiff", np.full((60, 80), 70_000, np.uint32))
    assert "holds the value 70000" in refusal(tmp_path / "wide.tiff")
    tifffile.imwrite(tmp_path / "float.tiff", np.full((60, 80), 0.5, np.float32))
    assert "fractions" in refusal(tmp_path / "float.tiff")
    tifffile.imwrite(tmp_path / "rgb.tiff", np.zeros((60, 80, 3), np.uint8), photometric="rgb")
    assert "holds colours" in refusal(tmp_path / "rgb.tiff")
    (tmp_path / "notes.txt").write_text("hello")
    assert "known format" in refusal(tmp_path / "notes.txt")
    assert "does not exist" in refusal(tmp_path / "none.png")


def test_a_tiff_with_absurd_sizes_or_cut_off(refusal, tmp_path):
    file = tmp_path / "a.tiff"
    tifffile.imwrite(file, np.zeros((64, 64), np.uint8), tile=(16, 16))
    whole = file.read_bytes()
    for size in (10, 100, 300):
        file.write_bytes(whole[:size])
        refusal(file)
    for tag, value in ((256, 2**31 - 2), (322, 2**20), (323, 2**24)):
        at = whole.index(struct.pack("<H", tag), 8)
        changed = bytearray(whole)
        struct.pack_into("<HI", changed, at + 2, 4, 1)
        struct.pack_into("<I", changed, at + 8, value)
        file.write_bytes(changed)
        refusal(file)


def test_ome_xml_with_entities_is_refused(refusal, tmp_path):
    file = tmp_path / "a.ome.tiff"
    xml = (
        '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "1">]><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/'
        '2016-06"><Image ID="Image:0"><Pixels PhysicalSizeX="&a;" ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
        'SizeX="80" SizeY="60" SizeZ="1" SizeC="1" SizeT="1"></Pixels></Image></OME>'
    )
    tifffile.imwrite(file, np.zeros((60, 80), np.uint8), description=xml, metadata=None)
    assert "damaged or no mask" in refusal(file)


def label_image(folder, **changes):
    """An OME-Zarr label image of 60 x 80 px whose array metadata is changed afterwards."""
    group = zarr.create_group(folder, zarr_format=3)
    group.create_array("0", shape=(60, 80), chunks=(60, 80), dtype=np.uint8)
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [{"path": "0"}]}], "image-label": {}}
    document = json.loads((folder / "0" / "zarr.json").read_text())
    document.update(changes)
    (folder / "0" / "zarr.json").write_text(json.dumps(document))
    return folder


def grid_of(*chunk):
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk)}}


BROKEN_ZARR = {
    "absurd shape": ({"shape": [2**40, 2**40]}, "absurd shape"),
    "absurd chunk": ({"shape": [60000, 80000], "chunk_grid": grid_of(60000, 80000)}, "chunks are too large"),
    "no shape": ({"shape": []}, "damaged"),
    "negative": ({"shape": [-5, 80]}, "damaged"),
    "planes": (
        {"shape": [3, 60, 80], "chunk_grid": grid_of(1, 60, 80), "dimension_names": None},
        "more than one plane",
    ),
    "unknown codec": ({"codecs": [{"name": "run-me"}]}, "damaged"),
    "an object type": ({"data_type": "object"}, "damaged"),
}


@pytest.mark.parametrize("case", BROKEN_ZARR)
def test_broken_zarr_is_a_sentence(refusal, tmp_path, case):
    changes, sentence = BROKEN_ZARR[case]
    assert sentence in refusal(label_image(tmp_path / "a.zarr", **changes))


def test_a_huge_zarr_is_read_only_where_the_slide_is(entry, refusal, tmp_path):
    """2^19 x 2^19 px are 256 GB."""
    folder = label_image(tmp_path / "a.zarr", shape=[2**19, 2**19], chunk_grid=grid_of(2**12, 2**12))
    preview = preview_import(ImportRequest(entry.folder, folder, "corrections", mpp=2.0), InlineControl())
    assert preview.window is None
    with pytest.raises(HistodistillError, match="far finer than the slide"):
        preview_import(ImportRequest(entry.folder, folder, "corrections", mpp=0.001), InlineControl())


@pytest.mark.parametrize("where", ["../../../../etc", "/etc", "0/../../x", "missing"])
def test_zarr_paths_do_not_leave_the_folder(refusal, tmp_path, where):
    folder = label_image(tmp_path / "a.zarr")
    group = zarr.open_group(folder)
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [{"path": where}]}], "image-label": {}}
    assert "files outside itself" in refusal(folder) or where == "missing"


@pytest.mark.parametrize("ome", [{}, [], {"multiscales": []}, {"multiscales": [{"datasets": 5}]}, "x" * 100])
def test_zarr_metadata_of_another_shape(refusal, tmp_path, ome):
    folder = label_image(tmp_path / "a.zarr")
    zarr.open_group(folder).attrs["ome"] = ome
    refusal(folder)


def test_large_or_deep_zarr_metadata(refusal, tmp_path, monkeypatch):
    folder = label_image(tmp_path / "a.zarr")
    (folder / "zarr.json").write_text("[" * 100_000)
    assert "damaged" in refusal(folder)
    monkeypatch.setattr(zarr_guard, "LARGEST_METADATA", 1000)
    assert "absurdly large" in refusal(folder)


@pytest.mark.parametrize("pixel", [[0, 0], [-1, 2], ["a", "b"], [float("inf"), 1], {}, None, [1e-300, 1e-300]])
def test_provenance_that_lies_is_not_believed(entry, tmp_path, pixel):
    from PIL import PngImagePlugin

    about = PngImagePlugin.PngInfo()
    said = {"software": "napari-histodistill", "what": "pseudo", "options": {"pixel_um": pixel, "corner_um": [0, 0]}}
    about.add_text("histodistill", json.dumps(said))
    Image.fromarray(np.ones((60, 80), np.uint8)).save(tmp_path / "a.png", pnginfo=about)
    request = ImportRequest(entry.folder, tmp_path / "a.png", "corrections")
    if pixel == [1e-300, 1e-300]:
        with pytest.raises(HistodistillError, match="far finer"):
            preview_import(request, InlineControl())
        return
    assert any("another slide" in note for note in preview_import(request, InlineControl()).notes)
