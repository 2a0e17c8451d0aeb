"""Correcting without a window: tools, brush, undo across sessions, refusal outside tissue, previews."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers._layer_actions import _convert_to_image, _duplicate_layer
from napari.utils.notifications import notification_manager

from napari_histodistill.slide import open_slide
from napari_histodistill.study import Study, StudyError, corrections
from napari_histodistill.viewer.correct import KEYS, BrushUnit, Tool
from napari_histodistill.viewer.geometry import camera_of
from napari_histodistill.viewer.layers import Role, add_layer, slide_layer
from napari_histodistill.viewer.shaping import Shaping
from napari_histodistill.viewer.slides import SlideViews

SHAPE = (550, 752)


@pytest.fixture
def study(mark, tmp_path, monkeypatch):
    """Tissue but for the top tenth; tumour where x is in the right half."""
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "study"
    with open_slide(mark.path) as slide:
        entry = Study.create(folder).add_slide(slide, target_mpp=2.0)
    assert entry.grid.shape == SHAPE
    tissue = np.ones((220, 300), np.uint8)
    tissue[:22] = 0
    entry.save_tissue(tissue, settings={})
    run = entry.new_run({})
    probability = np.zeros(SHAPE, np.uint8)
    probability[:, 376:] = 255
    run.probability.write(0, 0, probability)
    with run.replace_pseudo_mask():
        pass
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})
    return folder


class Session:
    """A viewer model with the slide open in it."""

    def __init__(self, path, study, runner):
        self.runner = runner
        self.viewer = ViewerModel()
        self.views = SlideViews(self.viewer, self.runner)
        add_layer(self.viewer, slide_layer(open_slide(path)))
        self.view = self.views.current
        self.view.teacher.choose_study(study)
        self.control = self.view.correct
        self.runner.pass_time()

    @property
    def mask(self):
        return self.view.teacher.result.mask

    @property
    def layer(self):
        return self.view.layer(Role.PSEUDO_MASK)

    def stroke(self, y, x):
        self.layer.paint((y, x), 0 if self.layer.mode == "erase" else self.layer.selected_label)
        self.runner.pass_time()


@pytest.fixture
def open_session(mark, new_runner):
    """Opens the slide with a study, as in a napari of its own; closed at the end."""
    opened = []

    def open_(study):
        opened.append(Session(mark.path, study, new_runner()))
        return opened[-1]

    yield open_
    for session in opened:
        session.views.close()


@pytest.fixture
def session(open_session, study):
    return open_session(study)


def test_without_a_result_the_reason_is_given_and_nothing_happens(open_session, tmp_path):
    session = open_session(tmp_path / "none")
    assert "run the teacher first" in session.control.reason
    for _, action in KEYS.values():
        action(session.control)
    assert session.control.undo_text == ""


def test_tools_set_up_napari_s_own_and_follow_it(session):
    control, layer = session.control, session.layer
    assert control.reason == ""
    for tool, value, mode in [
        (Tool.BRUSH, 3, "paint"),
        (Tool.BRUSH, 0, "erase"),
        (Tool.POLYGON, 2, "polygon"),
        (Tool.FILL, 1, "fill"),
        (Tool.LASSO, 2, "paint"),
        (Tool.MOVE, None, "pan_zoom"),
    ]:
        control.pick(tool, value)
        assert (layer.mode, control.tool) == (mode, tool)
        assert value is None or control.value == value
    layer.mode = "erase"
    assert (control.tool, control.value) == (Tool.BRUSH, 0)
    layer.selected_label, layer.mode = 3, "paint"
    assert (control.tool, control.value) == (Tool.BRUSH, 3)
    session.viewer.layers.selection.active = session.view.layer(Role.SLIDE)
    assert control.tool is Tool.MOVE
    control.pick(Tool.LASSO)
    control.paint(1)
    assert control.tool is Tool.LASSO  # another value, the same tool


def test_the_brush_keeps_its_size_on_the_slide_or_on_the_screen(session):
    control, layer, camera = session.control, session.layer, camera_of(session.viewer)
    camera.zoom = 0.5
    control.set_brush(80)
    assert layer.brush_size == 40  # 2 µm a pixel
    camera.zoom = 1
    assert layer.brush_size == 40
    control.set_brush(unit=BrushUnit.SCREEN)
    assert (control.brush, layer.brush_size) == (80, 40)
    camera.zoom = 2
    assert layer.brush_size == 20
    layer.brush_size = 30  # napari's ] key
    assert control.brush == pytest.approx(30 * 2 * 2, rel=0.01)
    control.set_brush(unit=BrushUnit.UM)
    assert control.brush == pytest.approx(60, rel=0.01)


def test_undo_says_what_it_undoes_and_goes_on_after_reopening(session, open_session, study):
    control = session.control
    control.pick(Tool.BRUSH, 1)
    session.stroke(300, 100)
    control.pick(Tool.BRUSH, 3)
    session.stroke(300, 200)
    control.pick(Tool.BRUSH, 0)
    session.stroke(300, 200)
    assert control.undo_text.startswith("eraser, ")
    assert control.save_state == "All corrections are saved."
    control.undo()
    assert control.undo_text.startswith("brush, ignore, ")
    assert control.redo_text.startswith("eraser, ")
    session.runner.pass_time()
    session.views.close()

    again = open_session(study)
    assert again.mask.data[300, 200] == 3
    assert again.control.redo_text.startswith("eraser, ")
    again.control.undo()
    assert again.mask.data[300, 200] == 2
    assert again.control.undo_text.startswith("brush, tumour, ")
    again.control.undo()
    assert not again.mask.has_edits
    assert again.control.undo_text == ""
    again.control.redo()
    again.control.redo()
    assert (again.mask.data[300, 100], again.mask.data[300, 200]) == (1, 3)
    again.views.close()
    stored = Study.open(study).slides()[0].corrections()
    assert (stored[300:301, 100:101], stored[300:301, 200:201]) == (1, 3)


def test_outside_tissue_is_refused_once_said_or_painted_if_so_chosen(session):
    control = session.control
    control.pick(Tool.BRUSH, 1)
    session.stroke(20, 100)
    assert not session.mask.has_edits
    assert "outside tissue" in notification_manager.records[-1].message
    said = len(notification_manager.records)
    session.stroke(20, 200)
    session.layer.paint_polygon([[30, 50], [30, 90], [80, 90], [80, 50]], 1)
    assert len(notification_manager.records) == said
    assert (session.mask.data[:55] == 0).all()
    assert (session.mask.data[58:80, 55:85] == 1).all()
    control.set_extend(True)
    session.stroke(20, 100)
    assert session.mask.data[20, 100] == 1


def test_the_eraser_and_undo_leave_what_the_model_says(session):
    control = session.control
    control.pick(Tool.BRUSH, 1)
    session.stroke(300, 100)
    session.view.teacher.result.look_for_corrections()
    control.paint(0)
    session.stroke(300, 100)
    assert session.mask.data[300, 100] == 2
    assert not session.mask.has_edits
    session.stroke(300, 500)  # nothing there to take away
    assert session.mask.data[300, 500] == 1
    assert session.mask.undo_steps[-1].tool == "eraser"


def test_a_preview_changes_nothing_until_it_is_applied_in_one_step(session):
    control = session.control
    control.set_scope(whole_slide=True)
    control.set_amount(Shaping.GROW, 20.0)
    control.propose(Shaping.GROW)
    rows = np.count_nonzero(session.mask.data[:, 400] == 1)
    assert control.proposal.pixels == rows * 10
    assert not session.mask.has_edits
    preview = session.view.layer(Role.PREVIEW)
    assert not preview.editable
    edge = session.layer.data_to_world((300, 366))
    assert preview.get_value(edge, world=True) == 2
    assert preview.get_value(np.subtract(edge, (0, 2)), world=True) in (None, 0)
    control.apply()
    session.runner.pass_time()
    assert session.view.layer(Role.PREVIEW) is None
    assert np.count_nonzero(session.mask.data == 1) == rows * (752 - 366)
    assert control.undo_text.startswith("grow tumour, tumour, ")
    control.undo()
    session.runner.pass_time()
    assert not session.mask.has_edits


def test_a_preview_of_a_mask_that_changed_is_dropped(session):
    control = session.control
    control.set_scope(whole_slide=True)
    control.propose(Shaping.CONFIRM)
    assert control.proposal is not None
    control.pick(Tool.BRUSH, 3)
    session.stroke(300, 100)
    assert control.proposal is None
    assert session.view.layer(Role.PREVIEW) is None
    control.apply()
    assert np.count_nonzero(session.mask.hand) < 10_000


def test_what_was_confirmed_outlives_another_threshold(session):
    control = session.control
    control.set_scope(whole_slide=True)
    control.propose(Shaping.CONFIRM)
    control.apply()
    session.runner.pass_time()
    shown = session.mask.data.copy()
    session.mask.set_computed((slice(0, 550), slice(0, 752)), np.full(SHAPE, 3, np.uint8))
    np.testing.assert_array_equal(session.mask.data[60:], shown[60:])
    control.propose(Shaping.FORGET)
    control.apply()
    session.runner.pass_time()
    assert (session.mask.data == 3).all()


def test_the_layer_of_corrections_shows_them_and_cannot_be_painted(session):
    control = session.control
    control.show_corrections(True)
    layer = session.view.layer(Role.CORRECTIONS)
    assert not layer.editable
    control.pick(Tool.BRUSH, 2)
    session.stroke(300, 500)
    assert layer.data[300, 500] == 3
    control.show_corrections(False)
    assert not control.shows_corrections


def test_an_import_while_the_slide_is_open_is_shown_and_can_be_undone(session, study):
    entry = Study.open(study).slides()[0]
    entry.save_corrections_region(300, 100, np.full((40, 40), 3, np.uint8), tool="import of a.geojson")
    session.view.teacher.result.look_for_corrections()
    assert (session.mask.data[300:340, 100:140] == 3).all()
    assert session.control.undo_text.startswith("import of a.geojson, ignore")
    session.control.pick(Tool.BRUSH, 1)
    session.stroke(320, 120)
    stored = entry.corrections()[300:340, 100:140]
    assert set(np.unique(stored)) == {1, 3}


def test_what_cannot_be_written_is_told_once_kept_and_written_later(session, study, monkeypatch):
    def full(self, entries, known=0):
        raise StudyError("The disk is full: free some.")

    monkeypatch.setattr(corrections.Corrections, "append", full)
    session.control.pick(Tool.BRUSH, 1)
    said = len(notification_manager.records)
    session.layer.paint((300, 100), 1)
    session.layer.paint((300, 150), 1)
    for timer in [timer for timer in session.runner.timers if timer.active] * 2:
        timer.active = False
        timer.function()
    assert "disk is full" in session.control.save_state
    assert len(notification_manager.records) == said + 1
    monkeypatch.undo()
    session.runner.pass_time()
    assert session.control.save_state == "All corrections are saved."
    entries = Study.open(study).slides()[0].corrections().entries().entries
    assert [entry.sequence for entry in entries] == [1, 2]
    assert entries[0].context == "run 0001"


@pytest.mark.parametrize("removed", [False, True])
def test_a_duplicate_of_the_mask_never_takes_its_place(session, removed):
    mask = session.layer
    session.viewer.layers.selection.active = mask
    _duplicate_layer(session.viewer.layers)
    copy = session.viewer.layers[session.viewer.layers.index(mask) + 1]
    session.viewer.layers.move(session.viewer.layers.index(copy), 0)
    if removed:
        session.viewer.layers.remove(mask)
    session.control.pick(Tool.BRUSH, 1)
    assert session.viewer.layers.selection.active is session.layer is not copy
    session.stroke(300, 100)
    assert session.mask.hand[300, 100] == 2
    session.viewer.layers.remove(session.view.layer(Role.SLIDE))
    session.runner.pass_time()
    assert list(session.viewer.layers) == []


def test_a_mask_that_napari_converts_comes_back_to_be_corrected(session):
    session.viewer.layers.selection.active = session.layer
    _convert_to_image(session.viewer.layers)
    assert session.layer is None
    session.control.pick(Tool.BRUSH, 1)
    session.stroke(300, 100)
    assert session.mask.hand[300, 100] == 2


def replace_result(study):
    """Put another result in place, as another program would."""
    entry = Study.open(study).slides()[0]
    run = entry.new_run({})
    with run.replace_pseudo_mask():
        pass
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})


def test_a_result_of_another_program_waits_for_corrections_that_cannot_be_written_yet(session, study, monkeypatch):
    def full(self, entries, known=0):
        raise StudyError("The disk is full: free some.")

    monkeypatch.setattr(corrections.Corrections, "append", full)
    before = session.view.teacher.result
    session.layer.paint((300, 100), 1)
    replace_result(study)
    for _ in range(3):
        session.view.teacher.look_for_news()
    assert session.mask.hand[300, 100] == 2
    monkeypatch.undo()
    session.runner.pass_time()
    for _ in range(3):
        session.view.teacher.look_for_news()
    assert session.view.teacher.result is not before
    assert session.mask.hand[300, 100] == 2


def test_a_slide_that_is_removed_while_a_new_result_is_looked_for_stays_away(session, study, monkeypatch):
    replace_result(study)
    teacher, held = session.view.teacher, []
    teacher.look_for_news()
    monkeypatch.setattr(session.runner, "start", lambda job, **callbacks: held.append((job, callbacks)))
    teacher.look_for_news()
    monkeypatch.undo()
    session.viewer.layers.clear()
    session.runner.pass_time()
    for job, callbacks in held:
        session.runner.start(job, **callbacks)
    session.runner.pass_time()
    assert list(session.viewer.layers) == []


def test_a_damaged_journal_is_told_when_the_study_is_opened(session, open_session, study):
    session.control.pick(Tool.BRUSH, 1)
    for x in (100, 150, 200):
        session.stroke(300, x)
    session.views.close()
    path = Study.open(study).slides()[0].folder / "corrections.journal"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    again = open_session(study)
    assert "damaged" in notification_manager.records[-1].message
    assert all(again.mask.data[300, x] == 1 for x in (100, 150, 200))  # the array has them
    again.views.close()
