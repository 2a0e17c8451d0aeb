"""Opening: every format, and one sentence for everything that is no slide."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_histodistill.errors import HistodistillError
from napari_histodistill.slide import MppError, SlideError, open_slide
from napari_histodistill.slide.sources.openslide_source import OpenSlideSource
from napari_histodistill.slide.sources.tiff import TiffSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARED = {
    "CMU-1-Small-Region.svs": ("aperio", (2967, 2220), (0.499, 0.499)),
    "CMU-1-Small-Region-wrong-mpp.jpeg.tiff": ("generic-tiff", (2967, 2220), None),
    "CMU-1-Small-Region-unsupported.jp2.tiff": ("tiff", (2967, 2220), None),
    "crc-section-pyramid.tiff": ("generic-tiff", (15104, 7296), (0.5, 0.5)),
    "hamamatsu-dapi.ndpi": ("hamamatsu", (4864, 3968), (0.2281750559028887, 0.2281750559028887)),
    "wsi2dcm-jpeg.dcm": ("dicom", (715, 957), None),
    "fixtures/boxes.tiff": ("generic-tiff", (250, 300), None),
    "fixtures/boxes_0.dcm": ("dicom", (16, 16), (0.499, 0.499)),
    "fixtures/small.svs": ("aperio", (16, 16), (0.499, 0.499)),
    "fixtures/😐.svs": ("aperio", (16, 16), (0.499, 0.499)),
    "fixtures/unreadable.svs": ("aperio", (16, 16), (0.499, 0.499)),
}


def assert_one_sentence(error: BaseException) -> None:
    message = str(error)
    assert isinstance(error, HistodistillError)
    assert "\n" not in message
    assert message.endswith(".")
    assert ": " in message, "the sentence says what is wrong, then what to do"


@pytest.mark.parametrize("name", SHARED)
def test_opens_every_shared_slide(slides_dir: Path, name: str) -> None:
    wanted = SHARED[name]
    with open_slide(slides_dir / name) as slide:
        assert (slide.format, slide.shape, slide.mpp) == wanted
        assert any("pixel size" in warning for warning in slide.warnings) == (slide.mpp is None)


@pytest.mark.parametrize(
    ("name", "says"), [("ct-not-a-slide.dcm", "DICOM"), ("fixtures/unopenable.tiff", "compression")]
)
def test_refuses_shared_files_that_are_no_slides(slides_dir: Path, name: str, says: str) -> None:
    with pytest.raises(SlideError, match=says) as caught:
        open_slide(slides_dir / name)
    assert_one_sentence(caught.value)


def test_jpeg2000_that_openslide_refuses_shows_the_same_picture(slides_dir: Path) -> None:
    with (
        open_slide(slides_dir / "CMU-1-Small-Region-unsupported.jp2.tiff") as jp2,
        open_slide(slides_dir / "CMU-1-Small-Region.svs") as original,
    ):
        window = (0, 1000, 1000, 400, 400)
        difference = jp2.read_level(*window).astype(int) - original.read_level(*window)
        assert np.abs(difference).mean() < 2


def _huge_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 80_000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
    )


def _cut_png(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:5000])


BAD = {
    "missing.svs": (lambda path: None, "does not exist"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "empty.svs": (lambda path: path.touch(), "is empty"),
    "notes.txt": (lambda path: path.write_text("no slide " * 50), "not a slide or picture"),
    "cut.png": (_cut_png, "damaged or truncated"),
    "huge.png": (lambda path: path.write_bytes(_huge_png()), "million pixels"),
    "header-only.tif": (
        lambda path: path.write_bytes(b"II*\0" + struct.pack("<I", 90_000)),
        "damaged or truncated TIFF",
    ),
    "ct.dcm": (lambda path: path.write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 500), "DICOM file but not"),
    "empty.zarr": (zarr.create_group, "without OME-Zarr image metadata"),
    "array.zarr": (lambda path: zarr.create_array(path, shape=(5, 5), dtype="u1"), "Zarr array or damaged"),
    "plate.zarr": (
        lambda path: zarr.create_group(path, attributes={"ome": {"version": "0.5", "plate": {}}}),
        "a plate of many images",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_says_in_one_sentence_what_is_wrong(tmp_path: Path, name: str) -> None:
    make, says = BAD[name]
    make(tmp_path / name)
    with pytest.raises(SlideError, match=says) as caught:
        open_slide(tmp_path / name)
    assert_one_sentence(caught.value)
    assert name in str(caught.value)


def test_says_that_a_file_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.svs"
    path.write_bytes(b"II*\0")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(SlideError, match="may not be read") as caught:
        open_slide(path)
    assert_one_sentence(caught.value)


def test_truncated_tiff_opens_with_a_warning_and_counts_what_is_lost(
    tmp_path: Path, make_picture: Callable[..., np.ndarray]
) -> None:
    path = tmp_path / "cut.tiff"
    tifffile.imwrite(path, make_picture(800, 800), tile=(128, 128), photometric="rgb", compression="zlib")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_slide(path) as slide:
        assert any("truncated" in warning for warning in slide.warnings)
        slide.read_level(0, 0, 0, *slide.shape)
        assert 15 < slide.unreadable < 35, "about half of 49 tiles"


def test_tiff_uses_the_fast_path_and_others_openslide(pyramid: Path, slides_dir: Path) -> None:
    with open_slide(pyramid) as slide:
        assert isinstance(slide._source, TiffSource)
    with open_slide(pyramid, source="openslide") as slide:
        assert isinstance(slide._source, OpenSlideSource)
    with pytest.raises(SlideError, match="no fast path"):
        open_slide(slides_dir / "hamamatsu-dapi.ndpi", source="fast")
    with pytest.raises(SlideError, match="no TIFF"):
        open_slide(slides_dir / "wsi2dcm-jpeg.dcm", source="fast")


def test_given_pixel_size_overrides_the_files(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        assert slide.mpp == pytest.approx((0.5, 0.5))
        assert slide.require_mpp() == slide.mpp
    with open_slide(pyramid, mpp=0.25) as slide:
        assert slide.mpp == (0.25, 0.25)
        assert slide.metadata.raw_mpp == pytest.approx((0.5, 0.5))
    with open_slide(pyramid, mpp=(0.3, 0.4)) as slide:
        assert slide.mpp == (0.3, 0.4)
    for wrong in (0.0, -1.0, 100.0, float("nan")):
        with pytest.raises(MppError, match=r"0\.05 to 8") as caught:
            open_slide(pyramid, mpp=wrong)
        assert_one_sentence(caught.value)


def test_absurd_pixel_size_is_not_believed(
    tmp_path: Path, make_picture: Callable[..., np.ndarray], write_tiff: Callable[..., Path]
) -> None:
    for mpp in (0.005, 50.0):
        path = write_tiff(tmp_path / f"{mpp}.tiff", [make_picture(300, 300)], mpp=mpp)
        with open_slide(path) as slide:
            assert slide.mpp is None
            assert slide.metadata.raw_mpp == pytest.approx((mpp, mpp), rel=1e-3)
            assert any("which no slide has" in warning for warning in slide.warnings)
            with pytest.raises(MppError, match="which no slide has") as caught:
                slide.require_mpp()
            assert_one_sentence(caught.value)
        with open_slide(path, mpp=0.5) as slide:
            assert slide.require_mpp() == (0.5, 0.5)
            assert slide.warnings == []


def test_opening_loads_no_torch_napari_qt_or_zarr(pyramid: Path) -> None:
    code = (
        "import sys; from napari_histodistill.slide import open_slide; "
        f"s = open_slide({str(pyramid)!r}); s.read_level(0, 0, 0, 50, 50); "
        "print([m for m in ('torch', 'napari', 'qtpy', 'zarr', 'dask', 'skimage', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_huge_bigtiff_opens_without_reading_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.tif"
    tile = np.full((1024, 1024, 3), 90, np.uint8)
    tiles = (tile if number == 0 else None for number in range(98 * 79))
    tifffile.imwrite(
        path, tiles, shape=(80_000, 100_000, 3), dtype=np.uint8, tile=(1024, 1024), photometric="rgb",
        compression="zlib", bigtiff=True, metadata=None, resolution=(4e4, 4e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    reads: list[int] = []
    read = TiffSource.read_tile
    monkeypatch.setattr(TiffSource, "read_tile", lambda self, *place: (reads.append(1), read(self, *place))[1])
    with open_slide(path) as slide:
        assert slide.shape == (80_000, 100_000)
        assert slide.mpp == pytest.approx((0.25, 0.25))
        assert [level.shape for level in slide.pyramid()] == [(*level.shape, 3) for level in slide.levels]
        assert max(slide.levels[-1].shape) <= 2048
        assert not reads
        assert (slide.read_level(0, 1000, 1000, 48, 24)[:24] == 90).all(), "the stored tile"
        assert (slide.read_level(0, 50_000, 50_000, 20, 20) == 255).all(), "missing tiles are background"
        assert slide.unreadable == 0
