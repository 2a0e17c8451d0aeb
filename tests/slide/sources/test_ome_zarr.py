"""OME-Zarr of both zarr versions, with any axes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_histodistill.slide import SlideError, open_slide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Picture = np.ndarray


def write(
    path: Path, levels: list[np.ndarray], axes: str, version: str = "0.5", unit: str = "micrometer", **extra: Any
) -> Path:
    """An OME-Zarr image with 0.5 x 0.25 µm pixels (in units of `unit`)."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for number, level in enumerate(levels):
        chunks = tuple(64 if axis in "yx" else 1 for axis in axes)
        group.create_array(f"s{number}", data=level, chunks=chunks)
        sizes = {"y": 0.5, "x": 0.25}
        scale = [sizes.get(axis, 1.0) * (2**number if axis in sizes else 1) for axis in axes]
        datasets.append({"path": f"s{number}", "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    kinds = {"c": "channel", "t": "time"}
    described = [
        {"name": axis, "type": kinds[axis]} if axis in kinds else {"name": axis, "type": "space", "unit": unit}
        for axis in axes
    ]
    image = {"multiscales": [{"version": version, "axes": described, "datasets": datasets}], **extra}
    group.attrs.update({"ome": {"version": version, **image}} if version == "0.5" else image)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tczyx", "cyx", "yxc"])
def test_any_order_of_axes_reads_back_exactly(
    tmp_path: Path, make_picture: Callable[..., Picture], version: str, axes: str
) -> None:
    picture = make_picture(300, 401)
    arrange = {
        "tczyx": lambda rgb: rgb.transpose(2, 0, 1)[None, :, None],
        "cyx": lambda rgb: rgb.transpose(2, 0, 1),
        "yxc": lambda rgb: rgb,
    }[axes]
    path = write(tmp_path / "a.zarr", [arrange(picture), arrange(picture[::2, ::2])], axes, version)
    with open_slide(path) as slide:
        assert (slide.format, slide.shape, slide.mpp) == ("ome-zarr", (300, 401), (0.5, 0.25))
        assert [level.shape for level in slide.levels] == [(300, 401), (150, 201)]
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 300, 401), picture)
        np.testing.assert_array_equal(slide.read_level(1, 20, 30, 100, 100), picture[::2, ::2][20:120, 30:130])
        assert slide.warnings == []


def test_grey_and_16_bit_and_many_channels_are_shown_and_said_so(
    tmp_path: Path, make_picture: Callable[..., Picture]
) -> None:
    picture = make_picture(128, 128)
    grey = picture[..., 0]
    deep = (grey.astype(np.uint16) * 16)[None, :, :]
    five = np.concatenate([picture.transpose(2, 0, 1), picture.transpose(2, 0, 1)[:2]])
    cases = [
        (write(tmp_path / "grey.zarr", [grey], "yx"), np.stack([grey] * 3, -1), "Grey"),
        (write(tmp_path / "deep.zarr", [deep], "cyx"), np.stack([grey] * 3, -1), "Grey"),
        (write(tmp_path / "five.zarr", [five], "cyx"), picture, "first 3 of 5"),
        (write(tmp_path / "stack.zarr", [np.stack([grey, grey // 2])], "zyx"), np.stack([grey] * 3, -1), "first depth"),
    ]
    for path, wanted, says in cases:
        with open_slide(path) as slide:
            shown = slide.read_level(0, 0, 0, 128, 128)
            assert np.abs(shown.astype(int) - wanted).max() <= 1, path.name
            assert any(says in warning for warning in slide.warnings)


def test_display_window_sets_full_brightness(tmp_path: Path) -> None:
    grey = np.full((64, 64), 500, np.uint16)
    path = write(tmp_path / "w.zarr", [grey], "yx", omero={"channels": [{"window": {"min": 0, "max": 1000}}]})
    with open_slide(path) as slide:
        assert (slide.read_level(0, 0, 0, 64, 64) == 128).all()


def test_units_count(tmp_path: Path, make_picture: Callable[..., Picture]) -> None:
    grey = make_picture(64, 64)[..., 0]
    with open_slide(write(tmp_path / "nm.zarr", [grey], "yx", unit="nanometer")) as slide:
        assert slide.metadata.raw_mpp == pytest.approx((0.0005, 0.00025))
        assert slide.mpp is None
    with open_slide(write(tmp_path / "none.zarr", [grey], "yx", unit="pixel")) as slide:
        assert slide.metadata.raw_mpp is None


def test_first_image_of_a_bioformats2raw_folder_is_shown(tmp_path: Path, make_picture: Callable[..., Picture]) -> None:
    picture = make_picture(100, 100)
    zarr.create_group(tmp_path / "b.zarr", attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    for number in range(2):
        write(tmp_path / "b.zarr" / str(number), [picture], "yxc")
    with open_slide(tmp_path / "b.zarr") as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 100, 100), picture)
        assert any("first one" in warning for warning in slide.warnings)


def test_damaged_chunk_costs_one_tile(tmp_path: Path, make_picture: Callable[..., Picture]) -> None:
    path = write(tmp_path / "d.zarr", [make_picture(256, 256)], "yxc")
    (path / "s0" / "c" / "1" / "2" / "0").write_bytes(b"\x13 no zstd")
    with open_slide(path) as slide:
        slide.read_level(0, 0, 0, 256, 256)
        assert [(failure.y, failure.x) for failure in slide.failures] == [(64, 128)]


def test_missing_level_is_said_in_one_sentence(tmp_path: Path, make_picture: Callable[..., Picture]) -> None:
    path = write(tmp_path / "m.zarr", [make_picture(64, 64)], "yxc")
    (path / "s0" / "zarr.json").unlink()
    with pytest.raises(SlideError, match="level s0"):
        open_slide(path)


def test_its_own_zarr_face_is_read_from_many_threads_without_a_deadlock(
    tmp_path: Path, make_picture: Callable[..., Picture]
) -> None:
    picture = make_picture(1024, 1024)
    with open_slide(write(tmp_path / "t.zarr", [picture], "yxc")) as slide, ThreadPoolExecutor(24) as pool:
        face = slide.pyramid()[0]
        for pixels in pool.map(lambda _: face[:], range(24)):
            np.testing.assert_array_equal(pixels, picture)
