"""Blocks, tiles and blending."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.predict.tiling import ALIGNMENT, Tiling

SHAPES = [(1, 1), (512, 512), (513, 1030), (700, 1600), (2000, 300)]


@pytest.mark.parametrize("offset", [0, 256])
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_cover_the_grid_once(shape, offset):
    tiling = Tiling(shape, 2, 64, 16, offset=offset)
    seen = np.zeros(shape, int)
    for index in range(tiling.count):
        seen[tiling.block_window(index).slices] += 1
    assert (seen == 1).all()


def test_blocks_beside_each_other_are_one_window():
    tiling = Tiling((1100, 1600), 2, 64, 16)
    assert tiling.merged([0, 1, 4, 5]) == [(0, 0, 1024, 1024)]
    assert tiling.merged([1, 2, 7, 11]) == [(0, 512, 512, 1024), (512, 1536, 588, 64)]
    assert tiling.merged([]) == []


@pytest.mark.parametrize("offset", [0, 256])
@pytest.mark.parametrize("shape", SHAPES)
def test_maps_that_agree_are_blended_to_themselves(shape, offset):
    """So the weights sum to one, in thin last blocks too."""
    tiling = Tiling(shape, 2, 64, 16, offset=offset)
    truth = np.random.default_rng(0).random(shape).astype(np.float32)
    for index in range(tiling.count):
        blended = tiling.blend(index, lambda tile: truth[tiling.map_window(tile).slices])
        assert np.allclose(blended, truth[tiling.block_window(index).slices], rtol=0, atol=1e-6)


def test_neighbouring_maps_that_differ_meet_without_a_step():
    tiling = Tiling((512, 1024), 2, 64, 16)

    def values(tile):
        window = tiling.map_window(tile)
        return np.full((window.height, window.width), tile, np.float32)

    row = np.concatenate([tiling.blend(index, values)[100] for index in range(2)])
    assert np.diff(row).min() >= 0
    assert np.diff(row).max() < 0.06
    assert row[512 - 16] < 0.01
    assert row[511 + 16] > 0.99
    assert row[511] + row[512] == pytest.approx(1)


def test_a_tile_that_was_not_computed_leaves_its_weight_to_the_others():
    tiling = Tiling((512, 1024), 2, 64, 16)
    blended = tiling.blend(0, lambda tile: None if tile == 1 else np.ones((512, 528), np.float32))
    assert (blended == 1).all()
    assert tiling.blend(1, lambda tile: None).max() == 0


@pytest.mark.parametrize(("pixel_um", "mpp", "factor"), [(2.0, 1.0, 2), (3.7, 1.1, 3), (0.9, 1.0, 1), (1.0, 2.0, 1)])
@pytest.mark.parametrize("offset", [0, 256])
def test_tiles_begin_on_one_raster_inside_the_grid_and_hold_their_margin(pixel_um, mpp, factor, offset):
    tiling = Tiling.for_model((1500, 1500), pixel_um, mpp, margin=128, offset=offset)
    assert tiling.factor == factor
    assert 0.7 * 128 <= tiling.margin * factor <= 160
    for index in range(tiling.count):
        tile, block = tiling.tile_window(index).scaled(factor), tiling.block_window(index).scaled(factor)
        for start, size, inner, inner_size in zip(tile[:2], tile[2:], block[:2], block[2:], strict=True):
            assert start % ALIGNMENT == 0
            assert start == max(0, inner - tiling.margin * factor)
            assert start + size == min(1500 * factor, inner + inner_size + tiling.margin * factor)


def test_reducing_averages_and_cuts_the_margin_off():
    tiling = Tiling((1100, 600), 3, 64, 16)
    for index in range(tiling.count):
        tile = tiling.tile_window(index)
        ys = np.repeat(np.arange(tile.y, tile.y + tile.height), 3).astype(np.float32)
        reduced = tiling.reduce(np.broadcast_to(ys[:, None], (len(ys), 3 * tile.width)), index)
        window = tiling.map_window(index)
        assert reduced.shape == (window.height, window.width)
        assert reduced[:, 0].tolist() == list(range(window.y, window.y + window.height))


def test_order_is_raster_or_from_the_centre_outwards():
    tiling = Tiling((2048, 2048), 2, 64, 16)
    assert tiling.ordered({5, 1, 9}) == [1, 5, 9]
    order = tiling.ordered(range(16), center=(1290, 1200))
    assert order[0] == 10
    assert order[-1] == 0
    assert sorted(order) == list(range(16))
