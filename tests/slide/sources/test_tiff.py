"""TIFFs of every kind: samples, planes, strips, pyramids in SubIFDs, metadata, missing and broken tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_histodistill.slide import SlideError, open_slide
from napari_histodistill.slide.sources.openslide_source import OpenSlideSource
from napari_histodistill.slide.sources.tiff import TiffSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Picture = np.ndarray
    MakePicture = Callable[..., Picture]

TILED = {"tile": (128, 128)}


def read_all(path: Path) -> Picture:
    with open_slide(path) as slide:
        assert isinstance(slide._source, TiffSource)
        return slide.read_level(0, 0, 0, *slide.shape)


@pytest.mark.parametrize(
    "options",
    [
        {**TILED, "compression": "zlib"},
        {**TILED, "compression": "lzw", "predictor": True},
        {**TILED, "compression": "zstd"},
        {**TILED, "planarconfig": "separate", "compression": "zlib"},
        {**TILED, "byteorder": ">"},
        {},
        {"rowsperstrip": 7, "compression": "zlib"},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "rowsperstrip": 50},
        {"byteorder": ">", "bigtiff": True},
    ],
    ids=str,
)
def test_lossless_rgb_reads_back_exactly(tmp_path: Path, make_picture: MakePicture, options: dict[str, Any]) -> None:
    picture = make_picture(601, 437)
    stored = picture.transpose(2, 0, 1) if options.get("planarconfig") == "separate" else picture
    byteorder, bigtiff = options.pop("byteorder", "<"), options.pop("bigtiff", False)
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=byteorder, bigtiff=bigtiff) as writer:
        writer.write(stored, photometric="rgb", metadata=None, **options)
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), picture)


def test_16_bit_samples_are_scaled_by_their_depth_and_said_so(tmp_path: Path, make_picture: MakePicture) -> None:
    picture = make_picture(300, 300)
    for bits in (12, 16):
        deep = np.rint(picture.astype(float) * (2**bits - 1) / 255).astype(np.uint16)
        deep[150, 150] = 2**bits - 1
        tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", metadata=None, **TILED)
        with open_slide(tmp_path / "deep.tif") as slide:
            shown = slide.read_level(0, 0, 0, 300, 300)
            assert np.abs(shown.astype(int) - picture)[:100].max() <= 1
            assert any(f"0 to {2**bits - 1:g}" in warning for warning in slide.warnings)


def test_grey_inverted_and_palette_images_become_rgb_and_said_so(tmp_path: Path, make_picture: MakePicture) -> None:
    grey = make_picture(300, 300)[..., 0]
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    wanted = {
        "minisblack": np.stack([grey] * 3, axis=-1),
        "miniswhite": np.stack([255 - grey] * 3, axis=-1),
        "palette": (colours // 257).T[grey].astype(np.uint8),
    }
    for photometric, rgb in wanted.items():
        for layout in (TILED, {}):
            options = {"colormap": colours} if photometric == "palette" else {}
            tifffile.imwrite(tmp_path / "g.tif", grey, photometric=photometric, metadata=None, **layout, **options)
            with open_slide(tmp_path / "g.tif") as slide:
                np.testing.assert_array_equal(slide.read_level(0, 0, 0, 300, 300), rgb, err_msg=photometric)
                assert any("shown as RGB" in warning for warning in slide.warnings)


def test_bilevel_image_is_black_and_white(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).random((100, 96)) > 0.5
    tifffile.imwrite(tmp_path / "bits.tif", bits, photometric="minisblack", metadata=None)
    np.testing.assert_array_equal(read_all(tmp_path / "bits.tif")[..., 1], np.where(bits, 255, 0))


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("layout", [TILED, {}], ids=["tiled", "strips"])
def test_alpha_is_laid_over_the_background(
    tmp_path: Path, make_picture: MakePicture, extra: str, layout: dict[str, Any]
) -> None:
    picture = make_picture(256, 256)
    alpha = np.zeros((256, 256, 1), np.uint8)
    alpha[64:] = 128
    alpha[128:] = 255
    colours = picture if extra == "unassalpha" else (picture * (alpha / 255)).round().astype(np.uint8)
    rgba = np.concatenate([colours, alpha], axis=2)
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=[extra], metadata=None, **layout)
    with open_slide(tmp_path / "a.tif") as slide:
        shown = slide.read_level(0, 0, 0, 256, 256).astype(int)
    wanted = picture * (alpha / 255) + 255 * (1 - alpha / 255)
    assert (shown[:64] == 255).all()
    assert np.abs(shown - wanted).max() <= 2
    np.testing.assert_array_equal(shown[128:], picture[128:])


def test_missing_tiles_are_background_as_in_openslide(tmp_path: Path) -> None:
    tiles = [None if number % 3 == 1 else np.full((128, 128, 3), 40 + number, np.uint8) for number in range(12)]
    tifffile.imwrite(
        tmp_path / "m.tif", iter(tiles), shape=(384, 512, 3), dtype=np.uint8, photometric="rgb", compression="jpeg",
        metadata=None, **TILED,
    )  # fmt: skip
    with (
        open_slide(tmp_path / "m.tif", source="fast") as fast,
        open_slide(tmp_path / "m.tif", source="openslide") as slow,
    ):
        shown = fast.read_level(0, 0, 0, 384, 512)
        np.testing.assert_array_equal(shown, slow.read_level(0, 0, 0, 384, 512))
        assert (shown[:128, 128:256] == 255).all()
        assert fast.unreadable == 0


def test_generated_pyramid_equals_openslide_at_every_level(pyramid: Path) -> None:
    with open_slide(pyramid, source="fast") as fast, open_slide(pyramid, source="openslide") as slow:
        for number, level in enumerate(fast.levels):
            if level.stored:
                window = (number, -3, level.shape[1] // 2, level.shape[0] + 9, level.shape[1])
                np.testing.assert_array_equal(fast.read_level(*window), slow.read_level(*window))


@pytest.mark.parametrize("planes", [False, True], ids=["interleaved", "separate planes"])
def test_ome_tiff_shows_its_subifds_and_its_physical_size(
    tmp_path: Path, make_picture: MakePicture, *, planes: bool
) -> None:
    full = make_picture(900, 1100)
    small = full[::2, ::2].copy()
    metadata = {"axes": "CYX" if planes else "YXS", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm"}
    metadata |= {"PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    options = {"tile": (128, 128), "compression": "zlib", "photometric": "minisblack" if planes else "rgb"}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        arrange = (lambda one: one.transpose(2, 0, 1)) if planes else (lambda one: one)
        writer.write(arrange(full), subifds=1, metadata=metadata, **options)
        writer.write(arrange(small), subfiletype=1, **options)
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert slide.format == "ome-tiff"
        assert [level.shape for level in slide.levels if level.stored] == [(900, 1100), (450, 550)]
        assert slide.mpp == (0.5, 0.25)
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 900, 1100), full)
        np.testing.assert_array_equal(slide.read_level(1, 0, 0, 450, 550), small)


def test_stack_shows_its_first_plane_and_says_so(tmp_path: Path, make_picture: MakePicture) -> None:
    stack = np.stack([make_picture(200, 200, seed) for seed in range(3)])
    tifffile.imwrite(tmp_path / "z.ome.tif", stack, photometric="rgb", metadata={"axes": "ZYXS"})
    tifffile.imwrite(tmp_path / "pages.tif", stack, photometric="rgb", metadata=None)
    for name, says in (("z.ome.tif", "first depth"), ("pages.tif", "3 images")):
        with open_slide(tmp_path / name) as slide:
            np.testing.assert_array_equal(slide.read_level(0, 0, 0, 200, 200), stack[0])
            assert any(says in warning for warning in slide.warnings)


def test_imagej_calibration_is_the_pixel_size(tmp_path: Path, make_picture: MakePicture) -> None:
    path = tmp_path / "ij.tif"
    tifffile.imwrite(path, make_picture(100, 100), imagej=True, resolution=(4.0, 2.0), metadata={"unit": "um"})
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((0.5, 0.25))


def test_resolution_tags_are_the_pixel_size_where_openslide_does_not_read(
    tmp_path: Path, make_picture: MakePicture
) -> None:
    for unit, per_unit in (("INCH", 25400.0), ("CENTIMETER", 1e4)):
        path = tmp_path / "strips.tif"
        resolution = (per_unit / 0.25, per_unit / 0.5)
        tifffile.imwrite(
            path, make_picture(100, 100), photometric="rgb", metadata=None, resolution=resolution, resolutionunit=unit
        )
        with open_slide(path) as slide:
            assert slide.mpp == pytest.approx((0.5, 0.25), rel=1e-4)
    tifffile.imwrite(path, make_picture(100, 100), photometric="rgb", metadata=None, resolution=(72, 72))
    with open_slide(path) as slide:
        assert slide.mpp is None


def test_colours_that_are_not_supported_are_refused_in_one_sentence(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "cielab.tif", np.zeros((64, 64, 3), np.uint8), photometric="cielab", metadata=None)
    with pytest.raises(SlideError, match=r"CIELAB.*convert it to RGB"):
        open_slide(tmp_path / "cielab.tif")


def test_one_huge_compressed_strip_is_refused(tmp_path: Path) -> None:
    blank = np.zeros((8000, 8000, 3), np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", blank, photometric="rgb", compression="zlib", rowsperstrip=8000, metadata=None)
    with pytest.raises(SlideError, match="pieces too large"):
        open_slide(tmp_path / "s.tif")


def test_broken_tile_costs_one_tile(
    tmp_path: Path, make_picture: MakePicture, break_tile: Callable[[Path, int], None]
) -> None:
    picture = make_picture(512, 512)
    for compression in ("zlib", "jpeg"):
        path = tmp_path / f"{compression}.tif"
        tifffile.imwrite(path, picture, photometric="rgb", compression=compression, metadata=None, **TILED)
        with open_slide(path) as slide:
            whole = slide.read_level(0, 0, 0, 512, 512)
        break_tile(path, 5)
        with open_slide(path) as slide:
            shown = slide.read_level(0, 0, 0, 512, 512)
            slide.read_level(0, 0, 0, 512, 512)
            assert slide.unreadable == 1, "counted once"
            (failure,) = slide.failures
            assert (failure.level, failure.y, failure.x, failure.height, failure.width) == (0, 128, 128, 128, 128)
        lost = np.zeros((512, 512), bool)
        lost[128:256, 128:256] = True
        assert (shown[lost] == 255).all()
        np.testing.assert_array_equal(shown[~lost], whole[~lost])


def test_associated_images_come_from_openslide(slides_dir: Path) -> None:
    with open_slide(slides_dir / "CMU-1-Small-Region.svs") as slide:
        assert isinstance(slide._source, TiffSource)
        assert isinstance(slide._source._reference, OpenSlideSource)
        assert set(slide.associated_images()) == {"label", "macro", "thumbnail"}
        assert slide.associated_image("macro").shape == (431, 1280, 3)
        with pytest.raises(SlideError, match="no picture 'nonsense'"):
            slide.associated_image("nonsense")
