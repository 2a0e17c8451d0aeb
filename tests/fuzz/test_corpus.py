"""Inputs that hurt, or would have: bombs in bounded memory, and every fault that fuzzing found."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from numcodecs import GZip, Zstd
from PIL import Image

from napari_histodistill.errors import HistodistillError
from napari_histodistill.nets.card import CARD_NAME, WEIGHTS_NAME, model_folder
from napari_histodistill.nets.model import load_model
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.errors import RegionError
from napari_histodistill.slide.sources.segments import check_segment
from napari_histodistill.study import Study
from napari_histodistill.study.files import CHECKSUM, StudyError, copy_of, read_document

GIGABYTE = 1 << 30
BOUND = 2 * GIGABYTE
"""Bytes of address space that a child may have beyond what it has after its imports."""

CHILD = """
import resource, sys
from pathlib import Path
import numpy as np, zarr, tifffile, imagecodecs
from napari_histodistill.errors import HistodistillError
from napari_histodistill.export import ImportRequest, preview_import
from napari_histodistill.jobs import InlineControl
from napari_histodistill.slide import open_slide
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[3]),) * 2)
kind, path = sys.argv[1], Path(sys.argv[2])
try:
    if kind == "slide":
        with open_slide(path) as slide:
            slide.read_level(0, 0, 0, 64, 64)
            print("read, tiles that failed:", slide.unreadable)
    else:
        preview = preview_import(ImportRequest(Path(kind), path, "corrections"), InlineControl())
        print("read:", preview.window)
except HistodistillError as error:
    print("refused:", error)
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print("peak", int(peak) // 1024, "MB")
"""


@pytest.fixture
def in_a_child(small_entry):
    """Read a file where memory is short; what came of it."""

    def run(path: Path, kind: str = "mask") -> str:
        if sys.platform != "linux":
            pytest.skip("memory is limited by a Linux call")
        what = "slide" if kind == "slide" else str(small_entry.folder)
        arguments = [sys.executable, "-c", CHILD, what, str(path), str(BOUND)]
        done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        peak = int(done.stdout.split()[-2])
        assert peak < 1500
        return done.stdout

    return run


# Chunks of zarr that expand to gigabytes


def label_folder(folder: Path, version: int = 3, **options) -> Path:
    """A mask in one chunk of 3 MB, which a file of a few MB may hold."""
    group = zarr.create_group(folder, zarr_format=version)
    group.create_array("0", data=np.ones((1536, 2048), np.uint8), chunks=(1536, 2048), **options)
    ome = {"multiscales": [{"datasets": [{"path": "0"}]}], "image-label": {}}
    group.attrs.update({"ome": {"version": "0.5", **ome}} if version == 3 else ome)
    return folder


def bomb(codec: str) -> bytes:
    """A few MB at most that expand to 4 GB, or say so."""
    if codec == "zstd":
        frame = bytearray(Zstd().encode(b"\0" * 1000))
        return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 4 * GIGABYTE) + bytes(frame[6:])
    if codec == "zstd without a size":  # a frame of blocks that repeat a byte 128 KiB each
        block = struct.pack("<I", 1 << 1 | (128 << 10) << 3)[:3] + b"\0"
        return b"\x28\xb5\x2f\xfd\x00\x58" + block * (4 * GIGABYTE >> 17)
    if codec == "blosc":
        return struct.pack("<BBBBIII", 2, 1, 0x33, 1, 2**31 - 32, 2**31 - 32, 40) + b"\0" * 24
    if codec == "lz4":
        return struct.pack("<I", 2**31 - 1) + b"\0" * 20
    expander = zlib.compressobj(9, wbits=31 if codec == "gzip" else 15)
    piece = expander.compress(b"\0" * (1 << 28))
    return piece + b"".join(expander.compress(b"\0" * (1 << 28)) for _ in range(3)) + expander.flush()


BOMBS = {
    "zstd": {}, "zstd without a size": {}, "gzip": {"compressors": zarr.codecs.GzipCodec()},
    "blosc": {"compressors": zarr.codecs.BloscCodec()},
}  # fmt: skip


@pytest.mark.parametrize("codec", BOMBS)
def test_a_chunk_that_expands_to_gigabytes_is_refused(in_a_child, tmp_path, codec):
    folder = label_folder(tmp_path / "a.zarr", **BOMBS[codec])
    (folder / "0" / "c" / "0" / "0").write_bytes(bomb(codec))
    said = in_a_child(folder)
    assert "refused" in said
    assert "expands to more than its size" in said


def test_a_chunk_of_an_old_zarr_and_one_in_a_shard_are_refused(in_a_child, tmp_path):
    old = label_folder(tmp_path / "old.zarr", 2, compressors=GZip())
    (old / "0" / "0.0").write_bytes(bomb("gzip"))
    assert "expands to more" in in_a_child(old)
    group = zarr.create_group(tmp_path / "shards.zarr", zarr_format=3)
    group.create_array("0", data=np.ones((60, 80), np.uint8), chunks=(30, 40), shards=(60, 80))
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [{"path": "0"}]}], "image-label": {}}
    shard = tmp_path / "shards.zarr" / "0" / "c" / "0" / "0"
    data = bomb("zstd")
    index = struct.pack("<QQ", 0, len(data)) + struct.pack("<QQ", 2**64 - 1, 2**64 - 1) * 3
    import google_crc32c

    shard.write_bytes(data + index + struct.pack("<I", google_crc32c.value(index)))
    assert "expands to more" in in_a_child(tmp_path / "shards.zarr")


def test_a_slide_with_a_bomb_in_it_has_a_tile_that_cannot_be_read(in_a_child, tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=3)
    group.create_array("0", data=np.ones((3, 64, 64), np.uint8), chunks=(3, 64, 64))
    axes = [{"name": name} for name in "cyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    (tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "0").write_bytes(bomb("zstd without a size"))
    assert "failed: 1" in in_a_child(tmp_path / "a.zarr", "slide")


def test_a_chunk_that_is_a_device_or_a_huge_file_is_not_read(in_a_child, tmp_path):
    folder = label_folder(tmp_path / "a.zarr")
    chunk = folder / "0" / "c" / "0" / "0"
    chunk.unlink()
    chunk.symlink_to("/dev/zero")
    assert "no plain file" in in_a_child(folder)
    chunk.unlink()
    with chunk.open("wb") as file:
        file.truncate(50 * GIGABYTE)
    assert "absurdly large" in in_a_child(folder)


@pytest.mark.parametrize(
    "filters", [[{"id": "pickle", "protocol": 5}], [{"id": "json2"}], [{"id": "bz2", "level": 1}], [{"id": "packbits"}]]
)
def test_codecs_that_run_code_or_cannot_be_foreseen_are_refused(small_entry, tmp_path, filters, take_in):
    folder = label_folder(tmp_path / "a.zarr", 2)
    document = json.loads((folder / "0" / ".zarray").read_text())
    (folder / "0" / ".zarray").write_text(json.dumps(document | {"filters": filters}))
    assert take_in("OME-Zarr", folder) is None


# Tiles of TIFF that announce more than the page


def with_size(jpeg: bytes, height: int, width: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def test_a_jpeg_tile_that_says_it_is_a_thousand_times_larger_is_not_decoded(in_a_child, tmp_path):
    file = tmp_path / "a.tiff"
    image = np.full((64, 64, 3), 200, np.uint8)
    tifffile.imwrite(file, image, tile=(64, 64), compression="jpeg", photometric="ycbcr")
    whole = file.read_bytes()
    start = whole.index(b"\xff\xd8")
    file.write_bytes(whole[:start] + with_size(whole[start:], 65_000, 65_000))
    assert "peak" in in_a_child(file, "slide")


@pytest.mark.parametrize(
    ("compression", "format_"), [(7, "JPEG"), (34712, "JPEG2000"), (50001, "WEBP"), (34933, "PNG")]
)
def test_the_size_that_a_tile_announces_is_checked(tmp_path, compression, format_):
    path = tmp_path / "tile"
    Image.new("RGB", (300, 200)).save(path, format_)
    check_segment(compression, path.read_bytes(), (200, 300))
    with pytest.raises(RegionError, match="300 x 200 px"):
        check_segment(compression, path.read_bytes(), (100, 100))
    with pytest.raises(RegionError, match="damaged"):
        check_segment(compression, b"\xff\xd8nothing", (100, 100))


@pytest.mark.parametrize("kind", ["slide", "mask"])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 16}])
def test_damaged_lzw_does_not_end_the_process(in_a_child, tmp_path, kind, layout):
    """Found by fuzzing: imagecodecs' decoder of LZW writes out of bounds."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 3, (192, 256) if kind == "mask" else (192, 256, 3)).astype(np.uint8)
    file = tmp_path / "a.tiff"
    photometric = "minisblack" if kind == "mask" else "rgb"
    tifffile.imwrite(file, image, compression="lzw", photometric=photometric, predictor=False, **layout)
    colours = image if kind == "slide" else image[..., None].repeat(3, axis=2)
    with open_slide(file) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 192, 256), colours)
    whole = bytearray(file.read_bytes())
    for number in range(4):
        for at in rng.integers(len(whole) // 4, len(whole), 40):
            whole[at] = rng.choice([0, 127, 128, 255])
        file.write_bytes(whole)
        assert "peak" in in_a_child(file, kind), number


def test_a_tiff_with_more_sizes_than_offsets_of_tiles_is_a_sentence(tmp_path):
    """Found by fuzzing: the tag of the offsets became a second tag of the sizes."""
    file = tmp_path / "a.tiff"
    tifffile.imwrite(file, np.zeros((64, 64, 3), np.uint8), tile=(16, 16), compression="zlib", photometric="rgb")
    whole = bytearray(file.read_bytes())
    at = whole.index(struct.pack("<H", 324), 8)
    struct.pack_into("<H", whole, at, 325)
    file.write_bytes(whole)
    with pytest.raises(HistodistillError, match="damaged"):
        open_slide(file)


def test_a_tiff_without_width_is_a_sentence(tmp_path):
    """Found by fuzzing: its downsamples divided by nothing."""
    file = tmp_path / "a.tiff"
    tifffile.imwrite(file, np.zeros((64, 64), np.uint16), tile=(16, 16))
    whole = bytearray(file.read_bytes())
    struct.pack_into("<I", whole, whole.index(struct.pack("<H", 256), 8) + 8, 0)
    file.write_bytes(whole)
    with pytest.raises(HistodistillError, match=r"no slide has|damaged"):
        open_slide(file)


def test_a_picture_of_more_pixels_than_are_read_in_one_piece_is_refused_by_its_head(tmp_path):
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 16_000, 16_000, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(HistodistillError, match="million pixels"):
        open_slide(tmp_path / "a.png")


# Text


def test_an_endless_tag_and_endless_text_in_xml_are_refused(in_a_child, tmp_path):
    file = tmp_path / "a.xml"
    with file.open("w") as out:
        out.write("<ASAP_Annotations><Annotations><Annotation ")
        for number in range(3_000_000):
            out.write(f'a{number}="" ')
    assert "absurdly long" in in_a_child(file)
    file.write_text("<ASAP_Annotations>" + "x" * 3_000_000 + "</ASAP_Annotations>")
    assert "absurdly long" in in_a_child(file)


def test_a_feature_of_millions_of_lists_is_refused(in_a_child, tmp_path):
    file = tmp_path / "a.geojson"
    file.write_text('{"type":"Feature","geometry":{"type":"Polygon","coordinates":[' + "[]," * 12_000_000 + "[]]}}")
    assert "million characters" in in_a_child(file)


# Models


def weights_with(header: dict, tmp_path: Path, body: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    (tmp_path / CARD_NAME).write_bytes((model_folder("bundled") / CARD_NAME).read_bytes())
    (tmp_path / WEIGHTS_NAME).write_bytes(struct.pack("<Q", len(text)) + text + body)
    return tmp_path


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**62]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32"},
    ],
)
def test_weights_whose_head_lies_are_refused(tmp_path, entry):
    with pytest.raises(HistodistillError, match=r"damaged|do not fit"):
        load_model(weights_with({"x": entry}, tmp_path, b"\0" * 4), "cpu")


def test_a_pickle_in_place_of_weights_is_not_loaded(tmp_path):
    import pickle

    folder = weights_with({}, tmp_path)
    (folder / WEIGHTS_NAME).write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(HistodistillError, match="damaged"):
        load_model(folder, "cpu")


# Studies


@pytest.mark.parametrize("text", ["[" * 100_000, '{"version": NaN}', '{"a": Infinity}', "\ud800", "null", '"x"'])
def test_documents_that_are_none(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(StudyError) as caught:
        read_document(tmp_path / "a.json", "x", 1)
    assert str(caught.value).isprintable()


@pytest.fixture
def study(small_slide, tmp_path) -> Study:
    with open_slide(small_slide) as slide:
        study = Study.create(tmp_path / "study")
        study.add_slide(slide, target_mpp=2.0).save_corrections_region(0, 0, np.ones((9, 9), np.uint8))
    return study


@pytest.mark.parametrize(
    "change",
    [
        {"grid_shape": [2**40, 2**40]}, {"grid_shape": [60, 10**9]}, {"grid_shape": [True, 5]},
        {"grid_shape": [6.5, 8]},
        {"slide_shape": [2**50, 1]}, {"mpp": [1e-9, 1e-9]}, {"mpp": ["a", 1]}, {"origin": [2**70, 0]}, {"path": 5},
        {"label": {}},
    ],
)  # fmt: skip
def test_sizes_that_no_slide_has_are_refused_before_arrays_are_made(study, change):
    (path,) = study.folder.glob("slides/*/slide.json")
    document = {name: value for name, value in json.loads(path.read_text()).items() if name != CHECKSUM}
    path.write_text(json.dumps(document | change))  # without a checksum, as version 0.1 wrote it
    copy_of(path).unlink()
    with pytest.raises(StudyError, match=r"slide\.json is damaged"):
        study.slides()


@pytest.mark.parametrize("name", ["corrections.journal", "corrections.ome.zarr", "runs", "exports"])
def test_a_link_out_of_a_study_is_refused(study, tmp_path, name):
    (folder,) = study.folder.glob("slides/*")
    outside = tmp_path / "outside"
    outside.mkdir()
    link = folder / name
    if link.is_dir():
        link.rename(tmp_path / "moved")
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    with pytest.raises(StudyError, match="is a link"):
        Study.open(study.folder).slides()
    assert not any(outside.iterdir())


def test_arrays_and_chunks_of_a_study_are_no_links(study, tmp_path):
    entry = study.slides()[0]
    entry.all_corrections().compact()
    array = entry.folder / "corrections.ome.zarr" / "0"
    array.rename(tmp_path / "0")
    array.symlink_to(tmp_path / "0")
    before = (tmp_path / "0" / "c" / "0" / "0").read_bytes()
    entry.save_corrections_region(0, 0, np.full((30, 40), 3, np.uint8))
    entry.all_corrections().compact()
    assert (tmp_path / "0" / "c" / "0" / "0").read_bytes() == before
    assert (entry.corrections().read(0, 0, 30, 40) == 3).all()


def test_the_lock_and_documents_do_not_write_through_links(study, tmp_path):
    (folder,) = study.folder.glob("slides/*")
    (tmp_path / "precious").write_text("precious")
    (folder / "slide.json").rename(folder / "x.json")
    (folder / "slide.json").symlink_to(folder / "x.json")
    with pytest.raises(StudyError, match="is a link"):
        Study.open(study.folder).slides()
