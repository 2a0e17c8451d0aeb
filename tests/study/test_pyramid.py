"""Multiscale arrays: valid OME-Zarr whose edges coincide at every level."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image, ImageLabel

from napari_histodistill.slide.grid import WorkingGrid
from napari_histodistill.study.files import StudyError
from napari_histodistill.study.pyramid import Pyramid, level_shapes

MODELS = {"image": Image, "labels": ImageLabel}


def geometry(folder):
    """(scale, translation, shape) of each level as an outside reader sees them."""
    group = zarr.open_group(folder, mode="r")
    for dataset in group.attrs["ome"]["multiscales"][0]["datasets"]:
        scale, translation = dataset["coordinateTransformations"]
        yield np.array(scale["scale"]), np.array(translation["translation"]), group[dataset["path"]].shape


@pytest.mark.parametrize("kind", ["image", "labels"])
def test_what_is_written_is_valid_ome_zarr(tmp_path, odd_grid, kind):
    Pyramid.create(tmp_path / "a.ome.zarr", odd_grid, kind, name="x")
    model = MODELS[kind].from_zarr(zarr.open_group(tmp_path / "a.ome.zarr", mode="r"))
    assert model.attributes.ome.version == "0.5"
    assert len(model.attributes.ome.multiscales[0].datasets) == 4


def test_outer_edges_are_the_slides_at_every_level(tmp_path, odd_grid):
    Pyramid.create(tmp_path / "a", odd_grid, "image", name="x")
    mpp = np.array(odd_grid.mpp)
    for scale, translation, shape in geometry(tmp_path / "a"):
        assert translation - scale / 2 == pytest.approx(-mpp / 2)
        assert translation + (np.array(shape) - 0.5) * scale == pytest.approx((np.array([4110, 8203]) - 0.5) * mpp)


def test_levels_halve_until_small():
    assert level_shapes((100, 512)) == [(100, 512)]
    assert level_shapes((1027, 2051)) == [(1027, 2051), (514, 1026), (257, 513), (129, 257)]


def area_mean(image, size, axis):
    """Mean over exact areas along an axis, the slow and obvious way: repeat, then average."""
    many = np.repeat(image.astype(float), size, axis=axis)
    return np.add.reduceat(many, np.arange(0, many.shape[axis], image.shape[axis]), axis=axis) / image.shape[axis]


@pytest.mark.parametrize("kind", ["image", "labels"])
def test_blocks_in_any_order_give_the_levels_of_the_whole(tmp_path, kind):
    grid = WorkingGrid((133, 611), (133, 611), (1, 1))
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 4 if kind == "labels" else 256, grid.shape).astype(np.uint8)
    pyramid = Pyramid.create(tmp_path / "a", grid, kind, name="x")
    corners = [(y, x) for y in range(0, 133, 128) for x in range(0, 611, 128)]
    for y, x in rng.permutation(corners):
        pyramid.write(int(y), int(x), whole[y : y + 128, x : x + 128])
    again = Pyramid(tmp_path / "a")
    assert again.kind == kind
    assert np.array_equal(again.read(0, 0, *grid.shape), whole)
    low = again.levels[1][:]
    assert low.shape == (67, 306)
    if kind == "image":
        both = area_mean(area_mean(whole, 67, 0), 306, 1)
        assert np.abs(low - both).max() <= 0.51
    else:
        ys = np.floor((np.arange(67) + 0.5) * 133 / 67).astype(int)
        xs = np.floor((np.arange(306) + 0.5) * 611 / 306).astype(int)
        assert np.array_equal(low, whole[np.ix_(ys, xs)])


def test_lower_levels_of_several_blocks_at_once_are_those_of_one_after_the_other(tmp_path):
    grid = WorkingGrid((1333, 1501), (1333, 1501), (1, 1))
    whole = np.random.default_rng(0).integers(0, 256, grid.shape).astype(np.uint8)
    apart, together = (Pyramid.create(tmp_path / name, grid, "image", name="x") for name in "ab")
    for y in (0, 512, 1024):
        for x in (512, 1024):
            apart.write(y, x, whole[y : y + 512, x : x + 512])
            together.put(y, x, whole[y : y + 512, x : x + 512])
    together.reduce(0, 512, 1333, 989)
    assert len(apart.levels) == 3
    for one, other in zip(apart.levels, together.levels, strict=True):
        assert np.array_equal(one[:], other[:])


def test_a_damaged_chunk_that_is_to_be_changed_is_a_sentence(tmp_path):
    pyramid = Pyramid.create(tmp_path / "a", WorkingGrid((1024, 1024), (1024, 1024), (1, 1)), "image", name="x")
    whole = np.arange(512 * 512, dtype=np.uint32).reshape(512, 512).astype(np.uint8)
    pyramid.write(0, 0, whole)
    (tmp_path / "a" / "1" / "c" / "0" / "0").write_bytes(b"no chunk")
    with pytest.raises(StudyError, match="cannot be read"):
        pyramid.write(0, 500, whole)


@pytest.mark.parametrize(
    ("y", "x", "shape"), [(0, 0, (4, 4, 3)), (0, 0, (16,)), (1026, 0, (2, 4)), (0, -1, (4, 4)), (0, 2050, (4, 4))]
)
def test_a_block_that_does_not_lie_inside_is_a_mistake_of_the_caller_and_no_damage(tmp_path, odd_grid, y, x, shape):
    pyramid = Pyramid.create(tmp_path / "a", odd_grid, "image", name="x")
    with pytest.raises(ValueError, match="does not lie in an array"):
        pyramid.write(y, x, np.ones(shape, np.uint8))
    assert not pyramid.levels[0][:].any()


def test_a_square_has_its_edges_at_the_same_place_in_every_level(tmp_path, odd_grid):
    """Area times value is kept, and so is the centre of mass, in µm."""
    pyramid = Pyramid.create(tmp_path / "a", odd_grid, "image", name="x")
    block = np.full((301, 403), 255, np.uint8)
    pyramid.write(511, 1207, block)
    seen = []
    for (scale, translation, _), level in zip(geometry(tmp_path / "a"), pyramid.levels, strict=True):
        data = level[:].astype(float) / 255
        ys = np.arange(data.shape[0]) * scale[0] + translation[0]
        xs = np.arange(data.shape[1]) * scale[1] + translation[1]
        seen.append((data.sum() * scale.prod(), data.sum(1) @ ys / data.sum(), data.sum(0) @ xs / data.sum()))
    for level in seen[1:]:
        assert level == pytest.approx(seen[0], rel=1e-3)


def test_unwritten_pixels_read_as_the_fill_value(tmp_path, odd_grid):
    pyramid = Pyramid.create(tmp_path / "a", odd_grid, "labels", name="x", fill=255, multiscale=False)
    assert len(pyramid.levels) == 1
    assert (pyramid.read(1000, 2000, 27, 51) == 255).all()


def test_creating_replaces_what_was_there(tmp_path, odd_grid):
    Pyramid.create(tmp_path / "a", odd_grid, "image", name="x").write(0, 0, np.ones((5, 5), np.uint8))
    assert Pyramid.create(tmp_path / "a", odd_grid, "image", name="x").read(0, 0, 5, 5).sum() == 0


def test_a_folder_that_is_no_ome_zarr_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"no OME-Zarr that can be read"):
        Pyramid(tmp_path)


def test_a_pyramid_whose_making_was_cut_off_is_not_there(tmp_path, monkeypatch):
    def fail(*_args, **_settings):
        raise KeyboardInterrupt

    grid = WorkingGrid((600, 700), (1200, 1400), (0.5, 0.5))
    with monkeypatch.context() as patch:
        patch.setattr(zarr.Group, "create_array", fail)
        with pytest.raises(KeyboardInterrupt):
            Pyramid.create(tmp_path / "a.ome.zarr", grid, "labels", name="a")
    assert not (tmp_path / "a.ome.zarr").exists()
    assert Pyramid.create(tmp_path / "a.ome.zarr", grid, "labels", name="a").shape == (600, 700)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_an_array_that_is_gone_does_not_read_as_empty(tmp_path, odd_grid):
    pyramid = Pyramid.create(tmp_path / "a", odd_grid, "image", name="x")
    pyramid.write(0, 0, np.full((10, 10), 7, np.uint8))
    assert not pyramid.read(500, 500, 10, 10).any()
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(StudyError, match="no longer there"):
        pyramid.read(0, 0, 10, 10)
