"""Ordinary pictures: converted where needed, and said so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import ExifTags, Image

from napari_histodistill.slide import SlideError, open_slide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Picture = np.ndarray


def read_all(path: Path) -> tuple[Picture, list[str]]:
    with open_slide(path) as slide:
        return slide.read_level(0, 0, 0, *slide.shape), slide.warnings[:-1]


def test_png_and_bmp_read_back_exactly(tmp_path: Path, make_picture: Callable[..., Picture]) -> None:
    picture = make_picture(700, 900)
    for name in ("a.png", "a.bmp"):
        Image.fromarray(picture).save(tmp_path / name)
        shown, warnings = read_all(tmp_path / name)
        np.testing.assert_array_equal(shown, picture)
        assert warnings == []


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.jp2"])
def test_lossy_pictures_look_the_same(tmp_path: Path, make_picture: Callable[..., Picture], name: str) -> None:
    picture = make_picture(300, 300)
    Image.fromarray(picture).save(tmp_path / name, quality=95)
    shown, _ = read_all(tmp_path / name)
    assert np.abs(shown.astype(int) - picture).mean() < 6


def test_16_bit_grey_is_converted_and_said_so(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(100, axis=0)
    for divide, white in ((1, "65535"), (16, "4095")):
        Image.fromarray(ramp // divide).save(tmp_path / "deep.png")
        shown, warnings = read_all(tmp_path / "deep.png")
        assert np.abs(shown[0, :, 0].astype(int) - np.arange(256)).max() <= 1
        assert any(white in warning for warning in warnings)


def test_grey_palette_and_cmyk_become_rgb_and_said_so(tmp_path: Path, make_picture: Callable[..., Picture]) -> None:
    picture = Image.fromarray(make_picture(100, 120))
    for mode, name in (("L", "a.png"), ("P", "a.png"), ("1", "a.png"), ("CMYK", "a.jpg")):
        image = picture.convert(mode)
        image.save(tmp_path / name)
        shown, warnings = read_all(tmp_path / name)
        assert np.abs(shown.astype(int) - np.asarray(image.convert("RGB"))).mean() < 3
        assert len(warnings) == 1


def test_transparent_parts_are_white(tmp_path: Path, make_picture: Callable[..., Picture]) -> None:
    picture = make_picture(100, 100)
    alpha = np.full((100, 100, 1), 255, np.uint8)
    alpha[:50] = 0
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(tmp_path / "a.png")
    shown, _ = read_all(tmp_path / "a.png")
    assert (shown[:50] == 255).all()
    np.testing.assert_array_equal(shown[50:], picture[50:])


def test_exif_orientation_is_not_applied_but_said(tmp_path: Path, make_picture: Callable[..., Picture]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(make_picture(100, 200)).save(tmp_path / "a.jpg", exif=exif)
    shown, warnings = read_all(tmp_path / "a.jpg")
    assert shown.shape == (100, 200, 3)
    assert any("as stored" in warning for warning in warnings)


@pytest.mark.parametrize("dpi", [72, 96, 150, 300, 600, 2400])
def test_screen_and_print_resolutions_are_no_pixel_size(
    tmp_path: Path, make_picture: Callable[..., Picture], dpi: int
) -> None:
    for name in ("a.png", "a.jpg"):
        Image.fromarray(make_picture(50, 50)).save(tmp_path / name, dpi=(dpi, dpi))
        with open_slide(tmp_path / name) as slide:
            assert slide.mpp is None
            assert slide.metadata.raw_mpp is None


def test_resolution_of_a_microscope_is_the_pixel_size(tmp_path: Path, make_picture: Callable[..., Picture]) -> None:
    Image.fromarray(make_picture(50, 50)).save(tmp_path / "a.png", dpi=(25400 / 0.25, 25400 / 0.5))
    with open_slide(tmp_path / "a.png") as slide:
        assert slide.mpp == pytest.approx((0.5, 0.25), rel=1e-3)


def test_reading_after_close_says_so(tmp_path: Path, make_picture: Callable[..., Picture]) -> None:
    Image.fromarray(make_picture(50, 50)).save(tmp_path / "a.png")
    slide = open_slide(tmp_path / "a.png")
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.read_level(0, 0, 0, 5, 5)
