"""Every reader of outside files, given what it did not expect."""

from __future__ import annotations

import io
import json
import shutil
import struct
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import JSON, NAMES, NUMBERS, changed, geojson, mutated

from napari_histodistill.distill.rounds import Rounds
from napari_histodistill.mil.data.load import load_dataset
from napari_histodistill.nets.card import CARD_NAME, WEIGHTS_NAME, model_folder, read_card
from napari_histodistill.nets.model import load_model
from napari_histodistill.slide import open_slide
from napari_histodistill.study import Study
from napari_histodistill.study.journal import Entry, Journal, Patch


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


def look_at_slide(path: Path) -> None:
    """What opening a slide in a window does."""
    with open_slide(path) as slide:
        for index, level in enumerate(slide.levels[:4]):
            pixels = slide.read_level(index, 0, 0, min(300, level.shape[0]), min(300, level.shape[1]))
            assert pixels.dtype == np.uint8
        assert slide.fingerprint
        assert max(slide.thumbnail(64).shape) <= 64


# GeoJSON and ASAP XML


@given(document=geojson())
def test_geojson(document, place, take_in):
    file = place / "a.geojson"
    file.write_text(json.dumps(document), encoding="utf-8", errors="surrogatepass")
    preview = take_in("GeoJSON", file)
    assert preview is None or preview.labels.shape == (60, 80)


WHOLE_GEOJSON = json.dumps(
    {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[1, 1], [300, 1], [300, 200.5], [1, 1]]]},
                "properties": {"classification": {"name": "Tumor", "color": [1, 2, 3]}, "objectType": "annotation"},
            }
        ],
    }
).encode()


@given(data=mutated(WHOLE_GEOJSON))
def test_geojson_bytes(data, place, take_in):
    (place / "b.geojson").write_bytes(data)
    take_in("GeoJSON", place / "b.geojson")


@given(
    annotations=st.lists(
        st.tuples(NAMES, st.sampled_from(["Polygon", "Spline", "Rectangle", "Dot", ""]), NAMES,
                  st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=6)),
        max_size=5,
    ),
    tail=st.sampled_from(["", "<x>", "&a;", "]]>", "<!-- -->", "\0"]),
)  # fmt: skip
def test_asap(annotations, tail, place, take_in):
    text = "".join(
        f"<Annotation Name={quoteattr(name)} Type={quoteattr(kind)} PartOfGroup={quoteattr(group)}><Coordinates>"
        + "".join(f'<Coordinate Order="{o}" X="{x}" Y="{y}"/>' for o, x, y in points)
        + "</Coordinates></Annotation>"
        for name, kind, group, points in annotations
    )
    file = place / "a.xml"
    whole = f"<ASAP_Annotations><Annotations>{text}{tail}</Annotations></ASAP_Annotations>"
    file.write_bytes(whole.encode(errors="surrogatepass"))
    take_in("ASAP XML", file)


WHOLE_XML = (
    b'<?xml version="1.0"?><ASAP_Annotations><Annotations><Annotation Name="a" Type="Polygon" PartOfGroup="Tumor">'
    b'<Coordinates><Coordinate Order="0" X="1" Y="1"/><Coordinate Order="1" X="90" Y="1"/><Coordinate Order="2" X="90"'
    b' Y="90.5"/></Coordinates></Annotation></Annotations><AnnotationGroups/></ASAP_Annotations>'
)


@given(data=mutated(WHOLE_XML))
def test_asap_bytes(data, place, take_in):
    (place / "b.xml").write_bytes(data)
    take_in("ASAP XML", place / "b.xml")


# Mask images and slides

MASK = np.zeros((60, 80), np.uint8)
MASK[10:40, 20:60] = 1


def picture(format_: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(MASK * 255).save(buffer, format_, **options)
    return buffer.getvalue()


def tiff(array=MASK, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


MASK_FILES = {
    "PNG": picture("PNG"),
    "TIFF in tiles": tiff(tile=(16, 16), compression="zlib"),
    "TIFF in strips": tiff(compression="lzw", rowsperstrip=7),
    "OME-TIFF": tiff(ome=True, metadata={"axes": "YX", "PhysicalSizeX": 2.0, "PhysicalSizeXUnit": "µm"}),
}
COLOURS = np.repeat(MASK[..., None] * 90, 3, axis=2)
SLIDE_FILES = {
    "TIFF with deflate": tiff(COLOURS, tile=(16, 16), compression="zlib", photometric="rgb"),
    "TIFF with JPEG": tiff(COLOURS, tile=(16, 16), compression="jpeg", photometric="ycbcr"),
    "TIFF with JPEG 2000": tiff(COLOURS, tile=(16, 16), compression="jpeg2000", photometric="rgb"),
    "TIFF in strips": tiff(COLOURS, photometric="rgb", rowsperstrip=5),
    "TIFF of 16 bits": tiff(MASK.astype(np.uint16) * 900, tile=(16, 16)),
    "BigTIFF": tiff(COLOURS, tile=(16, 16), photometric="rgb", bigtiff=True),
    "OME-TIFF": tiff(COLOURS, photometric="rgb", ome=True),
    "PNG": picture("PNG"),
    "JPEG": picture("JPEG"),
    "WebP": picture("WEBP"),
    "BMP": picture("BMP"),
    "JPEG 2000": picture("JPEG2000"),
}


@pytest.mark.parametrize("kind", MASK_FILES)
@given(data=st.data())
def test_mask_images(data, kind, place, take_in):
    file = place / ("a.png" if kind == "PNG" else "a.tiff")
    file.write_bytes(data.draw(mutated(MASK_FILES[kind])))
    take_in("mask images", file)


@pytest.mark.parametrize("kind", SLIDE_FILES)
@given(data=st.data())
def test_slides(data, kind, place, attempt):
    file = place / "slide.tiff"
    file.write_bytes(data.draw(mutated(SLIDE_FILES[kind])))
    attempt("slides", look_at_slide, file)


# OME-Zarr


def zarr_folder(folder: Path, version: int, *, colours: bool, **options) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    group = zarr.create_group(folder, zarr_format=version)
    data = COLOURS.transpose(2, 0, 1) if colours else MASK
    chunks = (3, 16, 16) if colours else (16, 16)
    group.create_array("0", data=data, chunks=chunks, **options)
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale = [1.0, 1.0]
    if colours:
        axes, scale = [{"name": "c", "type": "channel"}, *axes], [1.0, 1.0, 1.0]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    ome = {"multiscales": [{"axes": axes, "datasets": datasets}], "omero": {"channels": []}}
    if not colours:
        ome["image-label"] = {}
    group.attrs.update({"ome": {"version": "0.5", **ome}} if version == 3 else ome)
    return folder


ZARR_FILES = {2: (".zattrs", ".zgroup", "0/.zarray"), 3: ("zarr.json", "0/zarr.json")}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("colours", [False, True])
@given(data=st.data())
def test_zarr_metadata(data, version, colours, place, take_in, attempt):
    folder = zarr_folder(place / "a.zarr", version, colours=colours)
    name = data.draw(st.sampled_from(ZARR_FILES[version]))
    document = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(data.draw(changed(document))), encoding="utf-8", errors="surrogatepass")
    if colours:
        attempt("OME-Zarr", look_at_slide, folder)
    else:
        take_in("OME-Zarr", folder)


@pytest.mark.parametrize("kind", ["blosc", "zstd", "gzip", "shards"])
@given(data=st.data())
def test_zarr_chunks(data, kind, place, take_in):
    version = 2 if kind == "blosc" else 3
    options = {"shards": (32, 32)} if kind == "shards" else {}
    if kind == "gzip":
        options["compressors"] = zarr.codecs.GzipCodec()
    folder = zarr_folder(place / "b.zarr", version, colours=False, **options)
    chunk = folder / "0" / ("1.2" if version == 2 else "c/0/0" if kind == "shards" else "c/1/2")
    chunk.write_bytes(data.draw(mutated(chunk.read_bytes(), 4)))
    take_in("OME-Zarr", folder)


# Data sets and models


@given(
    rows=st.lists(st.lists(st.one_of(NAMES, NUMBERS.map(str), st.just("0.png")), max_size=7), max_size=4),
    head=st.sampled_from(["image,label,mask,patient,split,mpp", "image,label", "image", "", '"', "image,label,image"]),
)
def test_manifests(rows, head, place, attempt):
    Image.fromarray(MASK).save(place / "0.png")
    file = place / "manifest.csv"
    text = "\n".join([head, *(",".join(row) for row in rows)])
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    dataset = attempt("manifests", load_dataset, file, 1.0)
    for bag in dataset.bags if dataset is not None else ():
        attempt("manifests", bag.read_image)
        attempt("manifests", bag.read_truth)


@given(data=mutated(b"image,label,mask,patient,split,mpp\n0.png,1,0.png,p,train,1.5\n0.png,0,,q,val,1.5\n"))
def test_manifest_bytes(data, place, attempt):
    Image.fromarray(MASK).save(place / "0.png")
    (place / "b.csv").write_bytes(data)
    dataset = attempt("manifests", load_dataset, place / "b.csv")
    if dataset is not None:
        attempt("manifests", dataset.with_splits)


@pytest.fixture(scope="module")
def model(place) -> Path:
    return Path(shutil.copytree(model_folder("bundled"), place / "model"))


@given(data=st.data())
def test_model_cards(data, model, place, attempt):
    card = json.loads((model / CARD_NAME).read_text(encoding="utf-8"))
    folder = place / "card"
    folder.mkdir(exist_ok=True)
    text = json.dumps(data.draw(changed(card)))
    (folder / CARD_NAME).write_text(text, encoding="utf-8", errors="surrogatepass")
    attempt("model cards", read_card, folder)


@given(data=st.data())
def test_weights(data, model, place, attempt):
    whole = (model_folder("bundled") / WEIGHTS_NAME).read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    if data.draw(st.booleans()):
        header = json.dumps(data.draw(changed(json.loads(whole[8 : 8 + length])))).encode(errors="surrogatepass")
        length = data.draw(st.sampled_from([len(header), len(header), len(header), 2**62, 0, len(header) - 1]))
        changed_file = struct.pack("<Q", length) + header + whole[8 + len(header) :]
    else:
        changed_file = data.draw(mutated(whole[: 8 + length])) + whole[8 + length :]
    (model / WEIGHTS_NAME).write_bytes(changed_file)
    attempt("weights", load_model, model, "cpu")


# Studies


def look_at_study(folder: Path) -> None:
    """What opening a slide of a study does."""
    for entry in Study.open(folder).slides():
        entry.tissue()
        run = entry.run
        if run is not None:
            assert run.probability.shape == run.grid.shape
            for _, block in entry.mask_blocks(run):
                assert block.dtype == np.uint8
        corrections = entry.corrections()
        if corrections is not None:
            assert corrections.read(0, 0, 10, 10).shape == (10, 10)
            corrections.problems()


@pytest.fixture(scope="module")
def whole_study(small_slide, place) -> Path:
    with open_slide(small_slide) as slide:
        study = Study.create(place / "whole")
        entry = study.add_slide(slide, target_mpp=2.0)
    entry.save_tissue(np.ones((30, 40), np.uint8), settings={})
    run = entry.new_run({"model": "m"})
    with run.replace_pseudo_mask() as mask:
        mask.write(0, 0, MASK)
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})
    entry.save_corrections_region(0, 0, np.ones((10, 10), np.uint8))
    entry.all_corrections().compact()
    return study.folder


DOCUMENTS = (
    "study.json", "slides/*/slide.json", "slides/*/tissue.json", "slides/*/corrections.json",
    "slides/*/runs/0001/run.json",
    "slides/*/tissue.ome.zarr/zarr.json", "slides/*/tissue.ome.zarr/0/zarr.json",
    "slides/*/runs/0001/probability.ome.zarr/zarr.json", "slides/*/runs/0001/pseudo-mask.ome.zarr/0/zarr.json",
    "slides/*/corrections.ome.zarr/0/zarr.json",
)  # fmt: skip


@given(data=st.data())
def test_study_documents(data, whole_study, place, attempt):
    folder = place / "study"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole_study, folder)
    (path,) = folder.glob(data.draw(st.sampled_from(DOCUMENTS)))
    if data.draw(st.booleans()):
        text = json.dumps(data.draw(changed(json.loads(path.read_text()))))
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
    else:
        path.write_bytes(data.draw(mutated(path.read_bytes())))
    attempt("study documents", look_at_study, folder)


@given(data=st.data())
def test_rounds(data, place, attempt):
    roles = {"best": "rounds/1", "score": 0.5, "displaced": "", "teacher": "teacher", "taken": None}
    one = {
        "number": 1,
        "folder": "rounds/1",
        "teacher": "teacher",
        "start": "x",
        "score": 0.5,
        "best_before": None,
        "outcome": "x",
    }
    whole = {"format": "histodistill-rounds", "version": 1, "settings": {}, "roles": roles, "rounds": [one]}
    folder = place / "rounds"
    folder.mkdir(exist_ok=True)
    (folder / "state.json").write_text(json.dumps(data.draw(changed(whole))), encoding="utf-8", errors="surrogatepass")
    rounds = attempt("study documents", Rounds.open, folder)
    if rounds is not None:
        assert rounds.model(rounds.roles.best).resolve().is_relative_to(folder.resolve())


@given(data=st.data())
def test_journals(data, place, attempt):
    journal = Journal(place / "corrections.journal", (60, 80))
    patch = Patch.between(0, 0, np.full((9, 9), 255, np.uint8), np.ones((9, 9), np.uint8))
    journal.create([Entry("brush", (patch,), 1, sequence=1), Entry("brush", (patch,), 1, sequence=2)])
    journal.path.write_bytes(data.draw(mutated(journal.path.read_bytes())))
    attempt("journals", journal.scan)


@given(meta=JSON, packed=st.binary(max_size=40))
def test_entries_of_a_journal(meta, packed):
    text = json.dumps(meta).encode(errors="surrogatepass")
    try:
        entry = Entry.decode(struct.pack("<I", len(text)) + text + packed, (60, 80))
    except ValueError:
        return
    assert isinstance(entry.sequence, int)
