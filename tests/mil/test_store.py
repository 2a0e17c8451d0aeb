"""Many arrays in one file that vanishes."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.mil.store import ArrayStore


def arrays(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (rng.integers(1, 9), rng.integers(1, 9), 3), np.uint8) for _ in range(count)]


def test_arrays_of_any_shape_come_back_as_they_were():
    given = [*arrays(5), np.zeros((2, 3), np.uint8), np.empty((0, 4), np.uint8), np.ones(1, np.uint8)]
    store = ArrayStore(given)
    assert len(store) == len(given)
    for kept, array in zip(store, given, strict=True):
        np.testing.assert_array_equal(kept, array)
    np.testing.assert_array_equal(store[-1], given[-1])
    for kept, array in zip(store[1:7:2], given[1:7:2], strict=True):
        np.testing.assert_array_equal(kept, array)
    with pytest.raises(IndexError):
        store[len(given)]


def test_it_can_grow_after_it_was_read_and_what_was_read_stays():
    first, second = arrays(2)
    store = ArrayStore([first])
    kept = store[0]
    store.append(second)
    np.testing.assert_array_equal(store[1], second)
    np.testing.assert_array_equal(kept, first)
    store.append(first)
    np.testing.assert_array_equal(store[2], first)


def test_parts_of_other_arrays_are_stored_whole():
    array = np.arange(100, dtype=np.uint8).reshape(10, 10)
    np.testing.assert_array_equal(ArrayStore([array[::2, 1:4].T])[0], array[::2, 1:4].T)


def test_what_is_stored_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        ArrayStore(arrays(1))[0][0] = 0


def test_it_lies_on_disk_and_leaves_nothing_there(tmp_path):
    store = ArrayStore(arrays(3), tmp_path)
    kept = store[1].copy()
    assert isinstance(store[1].base, np.memmap) or isinstance(store[1].base.base, np.memmap)
    view = store[1]
    del store
    np.testing.assert_array_equal(view, kept)  # as long as somebody looks
    del view
    assert list(tmp_path.iterdir()) == []


def test_an_empty_one_has_nothing():
    assert list(ArrayStore()) == []
