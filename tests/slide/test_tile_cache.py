"""The cache of decoded tiles is bounded in bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from napari_histodistill.slide.tile_cache import TileCache


def tile(value: int, size: int = 100) -> np.ndarray:
    return np.full(size, value, np.uint8)


def test_least_recently_used_tiles_make_room() -> None:
    cache = TileCache(limit=300)
    for number in range(3):
        cache.put(("a", number), tile(number))
    assert cache.get(("a", 0)) is not None
    cache.put(("a", 3), tile(3))
    assert cache.get(("a", 1)) is None
    assert [cache.get(("a", number)) is not None for number in (0, 2, 3)] == [True] * 3
    assert cache.size == 300


def test_tile_that_does_not_fit_is_not_held_and_replacing_counts_once() -> None:
    cache = TileCache(limit=300)
    cache.put(("a", 0), tile(0, 301))
    assert cache.size == 0
    cache.put(("a", 0), tile(0))
    cache.put(("a", 0), tile(1, 50))
    assert cache.size == 50


def test_tiles_of_one_owner_are_dropped() -> None:
    cache = TileCache(limit=1000)
    for owner in "ab":
        cache.put((owner, 0), tile(0))
    cache.drop("a")
    assert cache.get(("a", 0)) is None
    assert cache.get(("b", 0)) is not None
    assert cache.size == 100


def test_size_stays_within_the_limit_on_many_threads() -> None:
    cache = TileCache(limit=1000)

    def work(number: int) -> None:
        cache.put(("a", number % 37), tile(number % 37))
        held = cache.get(("a", (number * 7) % 37))
        assert held is None or held[0] == (number * 7) % 37

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(4000)))
    assert cache.size <= 1000
