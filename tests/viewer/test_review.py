"""The tour and the audit without a window: what is shown, never twice the same, what is kept, what is said."""

from __future__ import annotations

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_histodistill.predict.uncertainty import Why
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study import Study
from napari_histodistill.study.review import read_seen
from napari_histodistill.viewer.audit import ALL_NORMAL, ALL_TUMOUR, AS_SHOWN
from napari_histodistill.viewer.correct import KEYS as CORRECT_KEYS
from napari_histodistill.viewer.geometry import camera_of
from napari_histodistill.viewer.layers import Role
from napari_histodistill.viewer.review import KEYS

from .test_distil import SHAPE, Session

UNSURE = ((60, 100), (300, 500), (480, 90))
"""Middles, on the working grid of 2 µm, of three squares of 200 µm where the teacher cannot tell, worst first."""


@pytest.fixture
def study(mark, tmp_path, monkeypatch):
    """Tumour in the right third, and three squares of doubt."""
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    with open_slide(mark.path) as slide:
        entry = Study.create(tmp_path / "study").add_slide(slide, target_mpp=2.0)
    entry.save_tissue(np.ones((220, 300), np.uint8), settings={})
    probability = np.zeros(SHAPE, np.uint8)
    probability[:, 560:] = 255
    for (y, x), value in zip(UNSURE, (128, 90, 60), strict=True):
        probability[y - 50 : y + 50, x - 50 : x + 50] = value
    run = entry.new_run({})
    run.probability.write(0, 0, probability)
    run.record.finished = {0, 1, 2, 3}
    with run.replace_pseudo_mask() as target:
        target.write(0, 0, np.where(probability >= 128, TUMOUR, NORMAL).astype(np.uint8))
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})
    return tmp_path / "study"


@pytest.fixture
def session(mark, study, new_parent_runner):
    session = Session(mark.path, study, new_parent_runner())
    yield session
    session.views.close()


def middle_of(session):
    """Where the camera looks, on the working grid."""
    y, x = camera_of(session.viewer).center[-2:]
    return round(float(y) / 2), round(float(x) / 2)


def near(place, square):
    return all(abs(at / 2 - there) < 30 for at, there in zip((place.y, place.x), square, strict=True))


def add_round(session, tumour, number=1):
    """A round on disk that the viewer has loaded."""
    session.start()
    session.do("unverified", tumour)
    session.finish()
    assert session.control.shown == number


# Where to look next


def test_the_tour_goes_from_the_worst_place_on_and_says_how_many_are_left(session):
    review = session.view.review
    assert (review.reason, review.place, review.left) == ("", None, None)
    found = []
    for square in UNSURE:
        review.next()
        assert near(review.place, square)
        assert np.allclose(middle_of(session), square, atol=30)
        assert review.place.why is Why.ENTROPY
        found.append(review.left)
    assert found == [2, 1, 0]
    review.next()
    assert near(review.place, UNSURE[-1])  # nothing new
    assert review.left == 0


def test_the_frame_lies_around_the_place(session):
    session.view.review.next()
    layer, place = session.view.layer(Role.PLACE), session.view.review.place
    inner = [(layer.translate[i] + 0.5 * layer.scale[i], 100 * layer.scale[i]) for i in (0, 1)]
    for (start, length), middle in zip(inner, (place.y, place.x), strict=True):
        assert length == pytest.approx(place.side)
        assert start + 0.5 * 0.5 == pytest.approx(middle - place.side / 2)  # from the outer edge of a px of 0.5 µm
    session.view.review.next()
    assert session.view.layer(Role.PLACE) is layer


def test_back_and_on_again_follow_the_same_way(session):
    review = session.view.review
    review.next()
    review.next()
    second = review.place
    assert review.can_go_back
    review.back()
    assert near(review.place, UNSURE[0])
    assert not review.can_go_back
    review.back()
    assert near(review.place, UNSURE[0])
    review.next()
    assert review.place is second
    assert review.left == 1


def test_what_is_corrected_is_no_place_to_go(session):
    mask = session.view.teacher.result.mask
    y, x = UNSURE[0]
    mask.paint((slice(y - 60, y + 60), slice(x - 60, x + 60)), np.ones((120, 120), bool), NORMAL, "brush")
    session.view.review.next()
    assert near(session.view.review.place, UNSURE[1])


def test_places_that_were_seen_stay_closed_after_a_restart_and_open_with_a_new_round(
    mark, study, session, new_parent_runner
):
    session.view.review.next()
    session.view.review.next()
    session.view.review.skip()
    session.views.close()
    again = Session(mark.path, study, new_parent_runner())
    review = again.view.review
    review.next()
    assert review.left == 0
    assert review.skipped == 1
    assert len(read_seen(again.entry.folder).skipped) == 1
    add_round(again, slice(650, None))
    assert review.left is None
    review.next()
    assert review.place.why is Why.DISAGREEMENT
    seen = [review.place]
    while review.left:
        review.next()
        seen.append(review.place)
    assert any(near(place, UNSURE[0]) for place in seen)
    assert not any(near(place, UNSURE[1]) for place in seen)  # skipped
    review.begin_anew()
    assert (review.place, review.skipped) == (None, 0)
    again.views.close()


def test_the_layer_is_hidden_until_it_is_wanted_and_follows_the_prediction(session):
    review = session.view.review
    review.next()
    assert session.view.layer(Role.UNCERTAINTY) is None
    review.show_uncertainty(True)
    layer = session.view.layer(Role.UNCERTAINTY)
    assert layer.visible
    assert review.shows_uncertainty
    edges = layer.scale * np.array(layer.data.shape)
    mask = session.view.layer(Role.PSEUDO_MASK)
    np.testing.assert_allclose(edges, mask.scale * SHAPE)  # they share their outer edges
    np.testing.assert_allclose(layer.translate - layer.scale / 2, mask.translate - mask.scale / 2)
    before = layer.data.copy()
    assert not before[:, -1].any()
    add_round(session, slice(0, 100))
    assert review.has_teacher
    assert layer.data[:, 0].all()  # student and teacher disagree
    review.show_uncertainty(False)
    assert not layer.visible


def test_without_a_whole_prediction_the_reason_says_what_to_do(mark, tmp_path, study, new_parent_runner, monkeypatch):
    empty = Session(mark.path, tmp_path / "none", new_parent_runner())
    for control in (empty.view.review, empty.view.audit):
        assert "run the teacher first" in control.reason
    for _, action in KEYS.values():
        action(empty.view.review)
    empty.view.audit.draw()
    empty.view.audit.label(AS_SHOWN)
    assert empty.view.audit.audit is None
    empty.views.close()
    run = Study.open(study).slides()[0].run
    run.record.state = "partial"
    run.save()
    part = Session(mark.path, study, new_parent_runner())
    assert "not all there yet" in part.view.review.reason
    part.views.close()


# Is it good enough?


def test_patches_are_drawn_and_the_first_is_on_screen_with_nothing_over_the_tissue(session):
    audit = session.view.audit
    assert audit.figures.predictions[0].estimate is None
    audit.draw(12, seed=2)
    assert len(audit.unlabelled) == len(audit.audit.active)
    patch = audit.audit.patches[audit.patch]
    layer = audit.layer
    assert layer.data.shape == (patch.height + 2, patch.width + 2)
    mask = session.view.layer(Role.PSEUDO_MASK)
    corner = mask.translate + (np.array([patch.y, patch.x]) - 1) * mask.scale
    np.testing.assert_allclose(layer.translate, corner)
    expected = session.view.teacher.result.mask.data[patch.slices]
    np.testing.assert_array_equal(layer.data[1:-1, 1:-1], expected)
    assert not layer.data[0].any()
    assert not mask.visible
    audit.stop()
    assert mask.visible
    assert audit.layer is None
    assert audit.patch is None


def test_labels_are_kept_apart_from_corrections_and_survive_a_restart(mark, study, session, new_parent_runner):
    audit = session.view.audit
    audit.draw(12)
    first = audit.patch
    audit.layer.data[4:9, 4:9] = TUMOUR
    audit.layer.data[0, 0] = TUMOUR  # outside the patch
    audit.layer.data[20, 20] = OUTSIDE  # erased: as it was
    expected = audit.layer.data[1:-1, 1:-1].copy()
    expected[19, 19] = session.view.teacher.result.mask.data[audit.audit.patches[first].slices][19, 19]
    audit.label(AS_SHOWN)
    second = audit.patch
    assert second != first
    audit.label(ALL_TUMOUR)
    third = audit.patch
    audit.label(ALL_NORMAL)
    session.views.close()
    assert session.entry.corrections() is None
    again = Session(mark.path, study, new_parent_runner())
    audit = again.view.audit
    assert audit.audit.labelled == [first, second, third]
    np.testing.assert_array_equal(audit.audit.patches[first].labels, expected)
    assert (audit.audit.patches[second].labels == TUMOUR).all()
    assert (audit.audit.patches[third].labels == NORMAL).all()
    audit.label_next()
    assert audit.patch not in {first, second, third}
    again.views.close()


def test_the_layer_of_patches_is_hidden_between_two_times_of_labelling_and_used_again(session):
    view, layers = session.view, session.viewer.layers
    layers.selection.active = view.layer(Role.PSEUDO_MASK)
    before = middle_of(session), camera_of(session.viewer).zoom
    view.audit.draw(12)
    layer, first = view.audit.layer, view.audit.patch
    assert (middle_of(session), camera_of(session.viewer).zoom) != before
    layer.data[4:9, 4:9] = TUMOUR
    view.audit.stop()
    assert layer in layers
    assert view.layer(Role.AUDIT) is None
    assert not layer.visible
    assert layers.selection.active is view.layer(Role.PSEUDO_MASK)
    assert (middle_of(session), camera_of(session.viewer).zoom) == before
    view.review.next()  # adds layers above it
    view.audit.label_next()
    assert view.audit.layer is layer
    assert layer.visible
    assert layers[-1] is layer
    assert layers.selection.active is layer
    expected = view.teacher.result.mask.data[view.audit.audit.patches[first].slices]
    np.testing.assert_array_equal(layer.data[1:-1, 1:-1], expected)  # nothing is left of the stroke before
    layers.remove(layer)  # by hand, in the list of layers
    view.audit.label(ALL_TUMOUR)
    view.audit.label_next()
    assert view.audit.layer.visible


def test_the_layer_of_patches_goes_with_the_slide(session):
    session.view.audit.draw(12)
    session.view.audit.stop()
    session.viewer.layers.remove(session.view.layer(Role.SLIDE))
    session.runner.pass_time()
    assert list(session.viewer.layers) == []


def test_a_slide_that_comes_back_has_no_hidden_patch_taken_up(session):
    session.view.audit.draw(12)
    session.view.audit.stop()
    session.views.go_to(session.view)
    assert session.viewer.layers.selection.active is session.view.layer(Role.SLIDE)
    session.view.audit.label_next()
    session.views.go_to(session.view)
    assert session.viewer.layers.selection.active is session.view.audit.layer


def test_a_label_can_be_given_again(session):
    audit = session.view.audit
    audit.draw(12)
    first = audit.patch
    assert not audit.can_go_back
    audit.label(ALL_TUMOUR)
    audit.go_back()
    assert audit.patch == first
    assert (audit.layer.data[1:-1, 1:-1] == TUMOUR).all()
    audit.label(ALL_NORMAL)
    assert (session.entry.audit().patches[first].labels == NORMAL).all()


def test_figures_follow_the_last_label_and_every_round(session):
    audit = session.view.audit
    audit.draw(24)
    while audit.patch is not None:
        audit.label(AS_SHOWN)
    (teacher,) = audit.figures.predictions
    assert audit.figures.labelled == audit.figures.drawn
    assert teacher.estimate.dice == 1
    assert teacher.estimate.dice_95[0] < 0.95
    assert session.view.layer(Role.PSEUDO_MASK).visible
    add_round(session, slice(0, 100))
    teacher, student = audit.figures.predictions
    assert [audit.title_of(one.prediction) for one in audit.figures.predictions] == ["teacher", "round 1"]
    assert not student.may_have_learnt
    assert student.predicted_mm2 == 0  # its mask on disk is empty
    assert student.estimate.dice == 0
    assert student.change[1][1] < 0
    audit.more(10)
    assert audit.patch is not None
    assert audit.figures.predictions[1].may_have_learnt


def test_no_patch_is_drawn_while_the_model_learns(session):
    session.start()
    audit = session.view.audit
    assert "rounds are over" in audit.draw_reason
    audit.draw()
    assert audit.audit is None
    session.finish()
    assert audit.draw_reason == ""


def test_keys_of_correcting_paint_in_the_patch_and_make_no_correction(session):
    session.view.audit.draw(12)
    layer, correct = session.view.audit.layer, session.view.correct
    correct.paint(TUMOUR)
    assert (layer.mode, layer.selected_label) == ("paint", TUMOUR)
    before = layer.data.copy()
    layer.paint((10, 10), NORMAL if before[10, 10] == TUMOUR else TUMOUR)
    assert not np.array_equal(layer.data, before)
    correct.undo()
    np.testing.assert_array_equal(layer.data, before)
    correct.redo()
    assert not np.array_equal(layer.data, before)
    session.view.audit.label(AS_SHOWN)
    after = session.view.audit.layer.data.copy()
    correct.undo()  # nothing of the patch before comes into this one
    np.testing.assert_array_equal(session.view.audit.layer.data, after)
    assert not session.view.teacher.result.mask.has_edits
    session.view.audit.stop()
    correct.paint(TUMOUR)
    assert session.view.layer(Role.PSEUDO_MASK).mode == "paint"


def test_a_layer_of_patches_whose_eye_is_opened_takes_neither_strokes_nor_keys(session):
    view = session.view
    view.audit.draw(12)
    layer = view.audit.layer
    view.audit.paint(TUMOUR)
    view.audit.stop()
    session.runner.pass_time()
    layer.visible = True  # by its eye in the list of layers, where it is still
    assert (layer.mode, layer.editable) == ("pan_zoom", False)
    view.correct.paint(TUMOUR)
    mask = view.layer(Role.PSEUDO_MASK)
    assert session.viewer.layers.selection.active is mask
    mask.paint((50, 50), TUMOUR)
    view.correct.undo()
    assert not view.teacher.result.mask.has_edits
    view.audit.label_next()
    assert (view.audit.layer, layer.editable) == (layer, True)


def test_a_difference_that_is_put_away_while_a_patch_is_judged_stays_away(session):
    session.view.audit.draw(12)
    session.view.audit.stop()
    add_round(session, slice(0, 100))
    prediction = session.control.prediction
    prediction.show_difference(on=True)
    difference = prediction.difference
    session.view.audit.label_next()
    assert not difference.visible
    prediction.show_difference(on=False)
    session.view.audit.stop()
    assert not difference.visible


def test_another_study_begins_anew(session, tmp_path):
    session.view.review.next()
    session.view.audit.draw(12)
    session.view.teacher.choose_study(tmp_path / "other")
    session.runner.pass_time()
    for role in (Role.PLACE, Role.UNCERTAINTY, Role.AUDIT):
        assert session.view.layer(role) is None
    assert session.view.review.place is None
    assert session.view.audit.audit is None


def test_a_label_that_cannot_be_written_is_told_once_and_written_when_that_goes_again(session):
    audit, path = session.view.audit, session.entry.folder / "audit.json"
    audit.draw(12)
    first, told = audit.patch, len(notification_manager.records)
    away = path.rename(path.with_name("away"))
    audit.label(ALL_TUMOUR)
    second = audit.patch
    audit.label(ALL_NORMAL)
    assert len(notification_manager.records) == told + 1
    assert audit.audit.labelled == [first, second]  # what the person said is not forgotten
    away.rename(path)
    session.runner.settle()
    kept = session.entry.audit()
    assert kept.labelled == [first, second]
    assert (kept.patches[first].labels == TUMOUR).all()
    assert audit.figures is not None


def test_labels_that_could_not_be_written_are_tried_again_at_the_end(session):
    audit, path = session.view.audit, session.entry.folder / "audit.json"
    audit.draw(12)
    away = path.rename(path.with_name("away"))
    audit.label(ALL_TUMOUR)
    away.rename(path)
    session.views.close()
    assert len(session.entry.audit().labelled) == 1


def test_places_that_could_not_be_noted_are_noted_when_that_goes_again(session):
    review, folder = session.view.review, session.entry.folder
    review.next()
    blocked = folder / "review.json"
    away = blocked.rename(blocked.with_name("away"))
    blocked.mkdir()
    review.next()
    blocked.rmdir()
    away.rename(blocked)
    assert len(read_seen(folder).visited) == 1
    session.runner.settle()
    assert len(read_seen(folder).visited) == 2


def test_what_is_on_screen_of_uncertainty_is_of_the_prediction_on_screen(session):
    review = session.view.review
    review.show_uncertainty(True)
    review.show_uncertainty(False)
    add_round(session, slice(0, 100))
    review.show_uncertainty(True)
    assert session.view.layer(Role.UNCERTAINTY).data[:, 0].all()  # student and teacher disagree


def test_uncertainty_that_an_audit_hid_comes_back_as_of_the_round_that_landed_meanwhile(session):
    session.view.review.show_uncertainty(True)
    session.view.audit.draw(12)
    add_round(session, slice(0, 100))
    assert not session.view.layer(Role.UNCERTAINTY).visible
    session.view.audit.stop()
    layer = session.view.layer(Role.UNCERTAINTY)
    assert layer.visible
    assert layer.data[:, 0].all()


def test_nothing_that_a_model_says_comes_over_the_tissue_while_a_patch_is_judged(session):
    session.view.audit.draw(12)
    session.view.audit.stop()
    add_round(session, slice(0, 100))
    add_round(session, slice(0, 300), number=2)
    session.view.comparison.compare(1, 2)
    session.view.audit.label_next()
    comparison = session.view.layer(Role.COMPARISON)
    assert not comparison.visible
    session.view.audit.stop()
    assert comparison.visible


def test_the_prediction_of_a_round_that_lands_waits_for_the_end_of_labelling(session):
    session.view.audit.draw(12)
    add_round(session, slice(0, 100))
    assert not session.layer.visible
    session.view.audit.stop()
    assert session.layer.visible


@pytest.mark.parametrize("key", ["W", "T", "Q", "Shift-Q", "Control-Z"])
def test_a_key_of_correcting_stays_in_the_patch_until_the_mask_is_taken_up(session, key):
    view = session.view
    view.audit.draw(12)
    session.viewer.layers.selection.active = view.layer(Role.SLIDE)  # a click in the list of layers
    CORRECT_KEYS[key][1](view.correct)
    assert not view.layer(Role.PSEUDO_MASK).visible
    assert session.viewer.layers.selection.active is not view.layer(Role.PSEUDO_MASK)
    session.viewer.layers.selection.active = view.layer(Role.PSEUDO_MASK)
    CORRECT_KEYS["T"][1](view.correct)
    assert session.viewer.layers.selection.active is view.layer(Role.PSEUDO_MASK)


def test_a_new_pixel_size_leaves_patch_and_frame_where_they_lie_on_the_slide(session):
    session.view.review.next()
    session.view.audit.draw(12)
    layers = [session.view.layer(role) for role in (Role.AUDIT, Role.PLACE, Role.PSEUDO_MASK)]
    before = [(layer.scale.copy(), layer.translate.copy()) for layer in layers]
    session.view.set_mpp(1.0)
    for layer, (scale, translate) in zip(layers, before, strict=True):
        np.testing.assert_allclose(layer.scale, 2 * scale)
        np.testing.assert_allclose(layer.translate, 2 * translate)
