"""News of a slide while another one is shown in its place: nothing of it appears, nothing moves, nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.slide import open_slide
from napari_histodistill.slide.synthetic import draw_slide, write_slide
from napari_histodistill.viewer.geometry import camera_of
from napari_histodistill.viewer.layers import Role, add_layer, role_of, slide_layer, slide_of

from .test_distil import Session
from .test_review import study  # noqa: F401 - a fixture


@pytest.fixture
def session(mark, study, new_parent_runner, tmp_path):  # noqa: F811
    """A slide with a result, and another one beside it."""
    session = Session(mark.path, study, new_parent_runner())
    write_slide(draw_slide((256, 384), seed=1), tmp_path / "other.tiff")
    session.viewer.layers.selection.active = add_layer(session.viewer, slide_layer(open_slide(tmp_path / "other.tiff")))
    session.other = session.views.current
    session.views.go_to(session.view)
    session.runner.pass_time()
    yield session
    session.views.close()


def on_screen(session, view):
    return {role_of(layer) for layer in session.viewer.layers if layer.visible and slide_of(layer) is view.slide}


def test_the_first_prediction_of_a_slide_that_is_set_aside_waits_for_it(session):
    session.start()
    session.views.go_to(session.other)
    session.do("unverified")
    session.finish()
    assert on_screen(session, session.view) == set()
    session.views.go_to(session.view)
    assert on_screen(session, session.view) == {Role.SLIDE, Role.PREDICTION}  # the mask made room for it


def test_where_to_look_comes_while_the_slide_is_set_aside(session):
    review = session.view.review
    review.show_uncertainty(True)
    session.start()
    session.views.go_to(session.other)
    before = tuple(camera_of(session.viewer).center)
    review.next()  # as if it had been asked for a moment ago
    session.do("unverified")
    session.finish()
    assert on_screen(session, session.view) == set()
    assert tuple(camera_of(session.viewer).center) == before
    assert session.views.current is session.other
    session.views.go_to(session.view)
    assert Role.UNCERTAINTY in on_screen(session, session.view)
    assert session.view.layer(Role.UNCERTAINTY).data[:, 0].all()  # of the round: teacher and student disagree


def test_patches_that_are_drawn_meanwhile_do_not_take_the_other_slide_away(session, monkeypatch):
    audit = session.view.audit
    started = []
    monkeypatch.setattr(audit._drawing, "start", lambda job, *, done, failed: started.append((job, done)))
    audit.draw(12)
    session.views.go_to(session.other)
    (job, done), before = started[0], tuple(camera_of(session.viewer).center)
    events = job.events()
    try:
        while True:
            next(events)
    except StopIteration as end:
        done(end.value)
    assert session.views.current is session.other
    assert tuple(camera_of(session.viewer).center) == before
    assert on_screen(session, session.view) == set()
    assert audit.audit is not None


def test_news_of_a_slide_that_is_set_aside_do_not_bring_it_back_where_no_layer_is_chosen(session):
    session.start()
    session.views.go_to(session.other)
    session.viewer.layers.selection.clear()
    session.do("unverified")
    session.finish()
    assert session.views.current is session.other
    assert on_screen(session, session.view) == set()
    assert on_screen(session, session.other) == {Role.SLIDE}


def test_of_slides_that_come_together_each_fills_the_canvas_when_it_is_first_shown(session, tmp_path):
    camera = camera_of(session.viewer)
    camera.center, camera.zoom = (1e5, 1e5), 1e3
    for seed, name in enumerate(("one.tiff", "two.tiff")):
        write_slide(draw_slide((128, 256), seed=seed), tmp_path / name)
        layer = add_layer(session.viewer, slide_layer(open_slide(tmp_path / name)))
        session.viewer.layers.selection.active = layer
    session.runner.pass_time()
    one, two = session.views.views[-2:]
    assert session.views.current is two
    fitted = tuple(camera.center), camera.zoom
    session.views.go_to(one)
    assert (tuple(camera.center), camera.zoom) == fitted  # they are of one size
    session.views.go_to(session.view)
    assert (tuple(camera.center)[-2:], camera.zoom) == ((1e5, 1e5), 1e3)


def test_an_eye_that_was_opened_on_a_slide_set_aside_is_closed_again(session):
    session.views.go_to(session.other)
    session.view.layer(Role.PSEUDO_MASK).visible = True
    session.views.go_to(session.other)
    assert on_screen(session, session.view) == set()


def test_a_slide_that_is_dropped_makes_room_for_one_that_was_set_aside(session):
    session.views.go_to(session.other)
    session.views.drop(session.other)
    assert session.views.current is session.view
    assert on_screen(session, session.view) == {Role.SLIDE, Role.PSEUDO_MASK}


def test_a_slide_that_comes_by_whatever_way_is_shown_alone(session, tmp_path):
    write_slide(draw_slide((256, 384), seed=2), tmp_path / "third.tiff")
    write_slide(draw_slide((256, 384), seed=3), tmp_path / "fourth.tiff")
    session.views.open(tmp_path / "third.tiff")
    session.runner.pass_time()
    assert session.views.current.slide.name == "third.tiff"
    assert on_screen(session, session.view) == on_screen(session, session.other) == set()
    layer = add_layer(session.viewer, slide_layer(open_slide(tmp_path / "fourth.tiff")))
    session.viewer.layers.selection.active = layer  # as napari does with what is dropped on its window
    session.runner.pass_time()
    assert [on_screen(session, view) for view in session.views.views] == [set(), set(), set(), {Role.SLIDE}]


def test_a_small_slide_fills_the_canvas_though_a_large_one_lies_hidden_beneath_it(session, tmp_path):
    write_slide(draw_slide((128, 256), seed=2), tmp_path / "small.tiff")
    session.view.set_mpp(8.0)
    session.views.open(tmp_path / "small.tiff")
    session.runner.pass_time()
    frame, camera = session.views.current.frame, camera_of(session.viewer)
    sides = np.multiply(frame.shape, frame.pixel)
    np.testing.assert_allclose(camera.center[-2:], (sides - frame.pixel) / 2)
    assert max(camera.zoom * sides / session.viewer.canvas.size) == pytest.approx(0.95)


def test_a_slide_that_is_open_is_not_opened_again_but_shown(session, mark):
    session.views.go_to(session.other)
    session.views.open(mark.path)
    assert session.views.current is session.view
    assert len(session.views.views) == 2
    assert on_screen(session, session.view) == {Role.SLIDE, Role.PSEUDO_MASK}
    camera_of(session.viewer).zoom = 3.5
    session.views.open(mark.path)
    assert camera_of(session.viewer).zoom == 3.5


def test_a_layer_that_is_chosen_in_the_list_brings_its_slide_back(session):
    session.views.go_to(session.other)
    mask = session.view.layer(Role.PSEUDO_MASK)
    session.viewer.layers.selection.active = mask
    assert on_screen(session, session.view) == {Role.SLIDE, Role.PSEUDO_MASK}
    assert on_screen(session, session.other) == set()
    assert session.viewer.layers.selection.active is mask
    assert session.views.current is session.view
