"""Entropy, disagreement and the places to look at, on arrays whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.predict.uncertainty import (
    LEAST,
    SMOOTHING_UM,
    WINDOW_UM,
    UncertaintyMap,
    Why,
    entropy,
    places_to_look_at,
    uncertainty_map,
)
from napari_histodistill.slide.grid import WorkingGrid
from napari_histodistill.study import Pyramid, TissueOnGrid

NOTHING = np.zeros((1, 1), np.uint8)
EVERYWHERE = np.ones((1, 1), np.uint8)


def pyramid(folder, values, um=2.0):
    grid = WorkingGrid(values.shape, tuple(4 * n for n in values.shape), (um / 4, um / 4))
    made = Pyramid.create(folder, grid, "image", name="p")
    made.write(0, 0, values)
    return made


def coarse(entropy_, disagreement=None, um=10.0):
    return UncertaintyMap(entropy_, disagreement, entropy_, (um, um))


def test_entropy_is_none_at_certainty_and_one_bit_at_a_half():
    values = entropy(np.array([0, 28, 128, 227, 255], np.uint8))
    assert values[[0, 4]].tolist() == [0, 0]
    assert values[2] == 255
    assert values[1] == values[3] == round(255 * 0.4997)  # p = 28 / 255


def test_the_map_is_computed_on_pixels_of_at_most_8_um(tmp_path):
    values = np.zeros((1100, 2000), np.uint8)
    values[400:480, 600:680] = 128
    found = uncertainty_map(pyramid(tmp_path / "p", values), None, TissueOnGrid(EVERYWHERE, values.shape, []), (2, 2))
    assert found.entropy.shape == (275, 500)
    assert found.pixel_um == (8, 8)
    assert found.disagreement is None
    expected = np.zeros((275, 500), np.uint8)
    expected[100:120, 150:170] = 255
    np.testing.assert_array_equal(found.entropy, expected)


def test_a_grid_of_odd_size_is_covered_edge_to_edge(tmp_path):
    values = np.full((1101, 1999), 128, np.uint8)
    found = uncertainty_map(pyramid(tmp_path / "p", values), None, TissueOnGrid(EVERYWHERE, values.shape, []), (2, 2))
    assert [n * um for n, um in zip(found.entropy.shape, found.pixel_um, strict=True)] == pytest.approx([2202, 3998])


def test_glass_is_certain_and_does_not_dim_what_lies_beside_it(tmp_path):
    values = np.full((400, 400), 128, np.uint8)
    tissue = np.zeros((4, 4), np.uint8)
    tissue[:, :2] = 1
    tissue[0, 0] = 3
    found = uncertainty_map(pyramid(tmp_path / "p", values), None, TissueOnGrid(tissue, values.shape, []), (8, 8))
    assert not found.shown[:, 200:].any()
    assert not found.shown[:100, :100].any()
    assert found.shown[250, 199] == 255


def test_the_map_is_smoothed_at_its_stated_scale(tmp_path):
    values = np.zeros((401, 401), np.uint8)
    values[200, 200] = 128
    found = uncertainty_map(
        pyramid(tmp_path / "p", values, 4.0), None, TissueOnGrid(EVERYWHERE, values.shape, []), (4, 4)
    )
    values[:, 200:] = 128
    step = uncertainty_map(
        pyramid(tmp_path / "q", values, 4.0), None, TissueOnGrid(EVERYWHERE, values.shape, []), (4, 4)
    )
    assert found.shown.max() < 10
    at = 200 + round(SMOOTHING_UM / 4)  # one standard deviation inside an edge: 84%
    assert step.shown[100, at] / 255 == pytest.approx(0.84, abs=0.03)


def test_disagreement_is_the_distance_of_the_two_probabilities(tmp_path):
    student, teacher = np.zeros((300, 300), np.uint8), np.zeros((300, 300), np.uint8)
    student[:100], teacher[50:150] = 255, 204
    found = uncertainty_map(
        pyramid(tmp_path / "s", student, 8),
        pyramid(tmp_path / "t", teacher, 8),
        TissueOnGrid(EVERYWHERE, student.shape, []),
        (8, 8),
    )
    assert [int(found.disagreement[row, 7]) for row in (20, 70, 120, 200)] == [255, 51, 204, 0]


# Places: maps of 10 µm px, a window is 20 px.


def test_places_come_by_their_uncertainty_and_not_over_another():
    values = np.zeros((200, 300), np.uint8)
    values[20:40, 40:60] = 128
    values[100:120, 205:225] = 255
    values[150:160, 100:120] = 255
    first, second, third = places_to_look_at(coarse(values), NOTHING)[:3]
    assert (first.y, first.x) == pytest.approx((1100, 2150), abs=30)
    assert first.uncertainty > 0.85
    assert first.side == WINDOW_UM
    assert {round(second.x, -2), round(third.x, -2)} == {500, 1100}
    places = places_to_look_at(coarse(np.full((200, 300), 255, np.uint8)), NOTHING)
    assert 100 <= len(places) <= 150
    assert all(place.uncertainty == 1 for place in places)
    gaps = [max(abs(a.y - b.y), abs(a.x - b.x)) for i, a in enumerate(places) for b in places[:i]]
    assert min(gaps) > 0.85 * WINDOW_UM


def test_what_is_corrected_counts_nothing():
    values = np.full((60, 60), 200, np.uint8)
    corrected = np.zeros((600, 600), np.uint8)  # on a grid ten times finer
    corrected[:, :390] = 2
    places = places_to_look_at(coarse(values), corrected)
    assert places
    assert all(place.x > 400 for place in places)
    assert not places_to_look_at(coarse(values), np.ones((5, 5), np.uint8))


def test_a_window_that_is_hardly_uncertain_is_not_worth_a_look():
    just, under = (np.full((50, 50), round(255 * at), np.uint8) for at in (LEAST + 0.01, LEAST - 0.01))
    assert places_to_look_at(coarse(just), NOTHING)
    assert not places_to_look_at(coarse(under), NOTHING)


def test_closed_places_and_what_lies_over_them_are_not_shown():
    values = np.full((100, 100), 255, np.uint8)
    closed = []
    while places := places_to_look_at(coarse(values), NOTHING, closed):
        assert all(max(abs(places[0].y - y), abs(places[0].x - x)) > 0.85 * WINDOW_UM for y, x in closed)
        closed.append((places[0].y, places[0].x))
    assert 16 <= len(closed) <= 25


def test_a_place_says_why_it_was_chosen():
    unsure, disputed = np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)
    unsure[:20, :20], disputed[60:80, 60:80] = 240, 250
    first, second = places_to_look_at(coarse(unsure, disputed), NOTHING)[:2]
    assert (first.why, second.why) == (Why.DISAGREEMENT, Why.ENTROPY)


def test_a_slide_smaller_than_a_window_is_one_place():
    (place,) = places_to_look_at(coarse(np.full((7, 9), 255, np.uint8)), NOTHING)
    assert (place.y, place.x) == (35, 45)
