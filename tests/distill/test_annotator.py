"""The simulated annotator: the worst image, its largest error, one stroke inside it."""

from __future__ import annotations

import numpy as np

from napari_histodistill.distill.annotator import covered_by, dabs_through, next_stroke
from napari_histodistill.slide.labels import NORMAL, TUMOUR


def scene(n: int = 2):
    return [np.zeros((60, 80), bool) for _ in range(n)], [np.full((60, 80), 255, np.uint8) for _ in range(n)]


def test_the_stroke_is_on_the_worst_image_through_its_largest_error():
    truth, by_hand = scene()
    predicted, _ = scene()
    truth[0][5:10, 5:10] = True  # missed: 25 px
    predicted[1][20:40, 10:70] = True  # false tumour: 1,200 px
    truth[1][50:55, 5:10] = True
    stroke = next_stroke(predicted, truth, by_hand)
    assert (stroke.image, stroke.value) == (1, NORMAL)
    assert stroke.pixels[20:40, 10:70].sum() == stroke.pixels.sum() > 600


def test_what_was_set_is_not_wrong_any_more():
    truth, by_hand = scene(1)
    predicted, _ = scene(1)
    truth[0][10:30, 10:60] = True
    touched = 0
    while (stroke := next_stroke(predicted, truth, by_hand)) is not None:
        assert stroke.value == TUMOUR
        assert (by_hand[0][stroke.pixels] == 255).all()
        by_hand[0][stroke.pixels] = stroke.value
        touched += 1
    assert (by_hand[0] == TUMOUR).sum() == truth[0].sum()
    assert 1 < touched < 60


def test_the_brush_follows_a_bent_error_from_end_to_end_and_stays_inside():
    part = np.zeros((60, 60), bool)
    part[5:12, 5:50] = part[5:55, 43:50] = True
    covered = covered_by(dabs_through(part, 8), part)
    assert not (covered & ~part).any()
    assert covered[:, :12].any()
    assert covered[48:].any()
    assert covered.sum() > 0.7 * part.sum()


def test_nothing_wrong_needs_no_stroke():
    truth, by_hand = scene()
    assert next_stroke(truth, truth, by_hand) is None
