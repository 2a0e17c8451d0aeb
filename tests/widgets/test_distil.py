"""The "Distil" dock in a real window: its controls, what it says where it cannot, and jobs that fail or are left."""

from __future__ import annotations

import os
import shutil
import threading
from functools import partial

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QItemSelectionModel, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit

from napari_histodistill.distill import Begun, StudyResult, distill_study
from napari_histodistill.distill.rounds import Round, Rounds
from napari_histodistill.jobs import ProcessJob, ThreadJob
from napari_histodistill.mil.settings import Epoch
from napari_histodistill.slide.labels import NORMAL
from napari_histodistill.study import SlideLabel, Study
from napari_histodistill.viewer.distil import DistilState, Scope
from napari_histodistill.viewer.guide import NO_SLIDE
from napari_histodistill.viewer.layers import Role
from napari_histodistill.viewer.look import Look
from napari_histodistill.widgets.session import session_of

pytestmark = pytest.mark.viewer
PLUGIN = "napari-histodistill"
SIDE = 1024


@pytest.fixture
def made(pink_study):
    """Tumour in the right half."""

    def paint(probability):
        probability[:, 85:] = 255

    return pink_study(SIDE, 3.0, paint)


class Work:
    """What is done in place of rounds: holds the study's lock, tells of a round, and ends when it is let or told to."""

    def __init__(self):
        self.__name__ = "work"  # jobs are named after what they do
        self.requests, self.go_on = [], threading.Event()
        self.error = None

    def __call__(self, request, control):
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        study = Study.open(request.study)
        with study.distillation_lock():
            control.progress(0, 0, "Round 1 begins", Begun(study.folder / "distillations" / "0001", 1))
            control.progress(1, 2, "Training", Epoch(1, 0.7, {"kd": 0.7}, 0.5, 1.0))
            while not self.go_on.wait(0.01):
                control.checkpoint()
            control.progress(2, 2, "Round 1", Round(1, "teacher", "teacher", 0.6, 0.5, "promoted"))
        return StudyResult(study.folder, ())


@pytest.fixture
def work(monkeypatch):
    """Work on a thread, so that the tests can say when it goes on."""
    work = Work()
    monkeypatch.setattr(
        "napari_histodistill.viewer.distil.ProcessJob", lambda _function, request: ThreadJob(work, request)
    )
    yield work
    work.go_on.set()


@pytest.fixture
def dock(docked):
    return docked("Distil")[0]


@pytest.fixture
def view(window, dock, made, open_result):
    return open_result(window, made)


def choices(dock):
    return (dock.label, dock.scope, dock.rounds, dock.more)


def said():
    return [record.message for record in notification_manager.records]


def test_each_disabled_state_has_its_reason_in_words(window, dock, made):
    assert dock.reason.message == NO_SLIDE
    assert not any(widget.isEnabled() for widget in (*choices(dock), dock.start_button, dock.stop_button))
    window.viewer.open(made[0], plugin=PLUGIN)
    window.settle()
    assert "run the teacher on this slide first" in dock.reason.message
    assert not dock.start_button.isEnabled()
    view = session_of(window.viewer).current
    view.teacher.choose_study(made[1])
    window.wait(lambda: not dock.reason.message)
    assert all(widget.isEnabled() for widget in (*choices(dock), dock.start_button))
    assert dock.title.text() == "No round has been done yet."
    for button in (dock.pin_button, dock.take_button):
        assert not button.isEnabled()
        assert button.toolTip() == "No round has been done yet"
    assert dock.follow_button.toolTip() == "No round is kept on screen"
    assert "Say whether this slide holds tumour" in dock.advice.message


def test_every_choice_reaches_the_job_and_outlives_the_dock(window, dock, view, made, work):
    dock.label.setCurrentIndex(1)
    dock.label.activated.emit(1)
    window.wait(lambda: view.distil.history.label is SlideLabel.TUMOUR)
    assert Study.open(made[1]).slides()[0].label is SlideLabel.TUMOUR
    dock.scope.setCurrentIndex(list(Scope).index(Scope.STUDY))
    dock.rounds.setValue(7)
    for name, value in {"epochs": 2, "correction_weight": 8, "recipe": "reversal"}.items():
        dock.form[name].value = value
    tiles = dock.form.most_tiles.native.findChild(QLineEdit)
    tiles.selectAll()
    QTest.keyClicks(tiles, "120")
    QTest.keyClick(tiles, Qt.Key.Key_Return)
    dock.form.device.value = "cpu"
    dock.form.encoder.value = "mobilenet-v3-small"
    assert "begin anew" in dock.meaning.message
    window.viewer.window.remove_dock_widget(dock)
    window.settle()
    again = window.viewer.window.add_plugin_dock_widget(PLUGIN, "Distil")[1]
    window.settle()
    again.start_button.click()
    window.wait(lambda: work.requests)
    (request,) = work.requests
    assert (request.rounds, request.epochs, request.most_tiles, request.correction_weight) == (7, 2, 120, 8)
    assert (request.learn, request.device, request.recipe.start) == ((), "cpu", "reversal")
    assert request.encoder == "mobilenet-v3-small"
    work.go_on.set()
    window.wait(lambda: not view.distil.state.busy)


def test_curves_are_drawn_once_for_a_theme_and_behind_another_dock_when_it_comes_to_the_front(
    window, dock, view, docked, monkeypatch
):
    drawn = []
    draw = dock.curves._draw
    monkeypatch.setattr(dock.curves, "_draw", lambda: (drawn.append(1), draw()))
    dock.curves.show_epochs([(1, Epoch(1, 0.5, {"kd": 0.5}, None, 1.0))])
    window.settle(0.3)
    assert len(drawn) == 1
    window.viewer.theme = "light"
    window.settle(0.3)
    assert len(drawn) == 2
    docked("Export")
    window.settle(0.3)
    window.viewer.theme = "dark"
    window.settle(0.3)
    assert len(drawn) == 2
    dock.dock.raise_()
    window.settle(0.3)
    assert len(drawn) == 3


def test_start_pause_and_stop_and_what_is_on_screen_meanwhile(window, dock, view, work):
    dock.start_button.click()
    window.wait(lambda: view.distil.epochs)
    assert not any(widget.isEnabled() for widget in (*choices(dock), dock.start_button))
    assert dock.pause_button.isEnabled()
    assert dock.stop_button.isEnabled()
    assert dock.bar.isVisible()
    assert "Learning" in dock.status.text()
    assert dock.curves.isVisible()
    dock.pause_button.click()
    assert view.distil.state is DistilState.PAUSED
    assert dock.pause_button.text() == "Go on"
    dock.pause_button.click()
    assert dock.pause_button.text() == "Pause"
    dock.stop_button.click()
    window.wait(lambda: view.distil.state is DistilState.READY)
    assert dock.start_button.isEnabled()
    assert not dock.bar.isVisible()
    assert not dock.stop_button.isEnabled()
    assert view.layer(Role.PREDICTION) is None


def test_a_round_is_in_the_list_and_on_screen_and_can_be_kept_there(window, dock, view, work):
    work.go_on.set()
    shown = []
    view.distil.changed.connect(lambda: shown.append((dock.table.rowCount(), dock.title.text())))
    dock.start_button.click()
    window.wait(lambda: (2, "Prediction: round 1, promoted.") in shown)
    window.wait(lambda: not view.distil.state.busy)


def test_one_of_prediction_and_mask_is_on_screen_unless_both_are_asked_for(window, dock, view):
    prediction, mask, both = (dock.looks[look] for look in (Look.PREDICTION, Look.MASK, Look.BOTH))
    assert not prediction.isEnabled()
    assert not both.isEnabled()
    assert not dock.show_difference.isEnabled()
    view.distil.prediction.show(view.teacher.result.run, "prediction")
    view.distil.changed.emit()
    window.settle()
    layers = view.layer(Role.PREDICTION), view.layer(Role.PSEUDO_MASK)
    assert prediction.isChecked()
    assert [layer.visible for layer in layers] == [True, False]
    assert "brings it back" in dock.look_note.text()
    view.correct.paint(NORMAL)
    assert mask.isChecked()
    assert [layer.visible for layer in layers] == [False, True]
    both.click()
    assert [layer.visible for layer in layers] == [True, True]
    assert "Olive: both" in dock.look_note.text()
    prediction.click()
    assert [layer.visible for layer in layers] == [True, False]
    dock.show_difference.click()
    assert view.layer(Role.DIFFERENCE) is not None
    assert all(label.isVisibleTo(dock) for label in dock.legend)
    dock.show_difference.click()
    assert view.layer(Role.DIFFERENCE) is None
    assert not any(label.isVisibleTo(dock) for label in dock.legend)


def test_a_first_prediction_does_not_hide_the_mask_from_who_paints(window, dock, view):
    mask = view.layer(Role.PSEUDO_MASK)
    view.distil.prediction.expect()
    mask.paint((50, 50), NORMAL)
    view.distil.prediction.show(view.teacher.result.run, "prediction")
    assert mask.visible
    assert not view.layer(Role.PREDICTION).visible


def make_rounds(study, tumour_from):
    """Rounds of a few bytes with their predictions: tumour from a column on, one for each."""
    entry = study.slides()[0]
    model = study.folder / "model"
    model.mkdir()
    for name in ("model.json", "model.safetensors"):
        (model / name).write_text("teacher")
    rounds = Rounds.begin(study.folder / "distillations" / "0001", model, {})
    for number, column in enumerate(tumour_from, start=1):
        folder = rounds.model(f"rounds/{number}")
        shutil.copytree(model, folder)
        after, outcome = rounds.roles.after(f"rounds/{number}", None, always=False)
        rounds.finish(Round(number, "teacher", "", None, None, outcome), after)
        run = entry.new_prediction(f"0001-{number:04d}", {})
        probability = np.zeros(entry.grid.shape, np.uint8)
        probability[:, column:] = 255
        run.probability.write(0, 0, probability)
        run.record.finished = {0}
        with run.replace_pseudo_mask() as target:
            target.write(0, 0, np.where(probability > 0, 1, 2).astype(np.uint8))
        entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})


def shows_tumour_from(view, column, role=Role.PREDICTION):
    """Whether a layer shows tumour in all columns from one on, and in none before."""
    layer = view.layer(role)
    return layer is not None and (layer.data[:, column:] == 1).all() and not (layer.data[:, :column] == 1).any()


def choose(dock, *rows):
    dock.table.clearSelection()
    for row in rows:
        dock.table.selectionModel().select(
            dock.table.model().index(row, 0),
            QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows,
        )


def test_the_list_of_rounds_offers_what_can_be_done_with_one_or_two_of_them(window, dock, made, open_result):
    make_rounds(Study.open(made[1]), [100, 60])
    view = open_result(window, made)
    window.wait(partial(shows_tumour_from, view, 60))
    assert [dock.table.item(row, 0).text() for row in range(3)] == ["teacher ★", "1", "2"]
    buttons = dock.pin_button, dock.take_button, dock.adopt_button, dock.compare_button
    assert not any(button.isEnabled() for button in buttons)
    assert dock.pin_button.toolTip() == "Choose a round in the list first"
    assert "Choose two rounds" in dock.compare_button.toolTip()

    choose(dock, 0)
    assert [button.isEnabled() for button in buttons] == [True, False, False, False]
    assert dock.take_button.toolTip() == "It is the best model already"
    assert "first teacher says already" in dock.adopt_button.toolTip()
    dock.pin_button.click()
    window.wait(partial(shows_tumour_from, view, 85))
    assert dock.title.text() == "Prediction: the first teacher (pinned)."
    dock.follow_button.click()
    window.wait(partial(shows_tumour_from, view, 60))

    choose(dock, 1, 2)
    assert [button.isEnabled() for button in buttons] == [False, False, False, True]
    dock.compare_button.click()
    layer = view.layer(Role.COMPARISON)
    assert layer.name == "difference: round 2 against round 1"
    window.wait(lambda: bool((layer.data[:, 60:100] == 1).all()))
    assert not layer.data[:, :60].any()
    assert not layer.data[:, 100:].any()
    assert "tumour in round 2 only" in dock.compared.text()
    assert dock.compared.textFormat() is Qt.TextFormat.RichText  # squares of colour, not their markup
    dock.compare_button.click()
    assert not layer.visible

    choose(dock, 1)
    assert all(button.isEnabled() for button in buttons[:3])
    dock.adopt_button.click()
    window.wait(partial(shows_tumour_from, view, 100, Role.PSEUDO_MASK))
    choose(dock, 0)  # what the teacher said is still there
    assert dock.adopt_button.isEnabled()
    dock.pin_button.click()
    window.wait(partial(shows_tumour_from, view, 85))


def test_memory_that_runs_out_is_told_in_plain_words_and_napari_goes_on(window, dock, view, work):
    work.error = RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    )
    dock.start_button.click()
    window.wait(lambda: work.requests and not view.distil.state.busy)
    assert any("Memory ran out" in message for message in said())
    assert not any("report it" in message for message in said())
    work.error = None
    dock.start_button.click()
    window.wait(lambda: view.distil.epochs)
    work.go_on.set()
    window.wait(lambda: not view.distil.state.busy)


@pytest.mark.parametrize("lost", ["slide", "study"])
def test_a_slide_or_study_that_is_lost_is_told_and_napari_goes_on(window, dock, view, made, lost):
    path, study = made
    if lost == "slide":
        path.unlink()
    else:
        shutil.rmtree(study)
    dock.start_button.click()
    window.wait(lambda: not view.distil.state.busy, seconds=240)
    expected = "no longer there" if lost == "slide" else "does not exist"
    assert any(expected in message for message in said()), said()
    assert not any("report it" in message for message in said())
    assert dock.start_button.isEnabled()
    view.layer(Role.PSEUDO_MASK).visible = False  # the viewer is alive
    window.settle()


def threads():
    return {t.name for t in threading.enumerate() if t.name.startswith("histodistill")}


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_closing_the_slide_while_rounds_are_done_leaves_no_thread_and_no_process(window, dock, view, monkeypatch):
    jobs = []

    def start(*args):
        jobs.append(ProcessJob(distill_study, *args[1:]))
        return jobs[-1]

    monkeypatch.setattr("napari_histodistill.viewer.distil.ProcessJob", start)
    before = threads()
    dock.start_button.click()
    window.wait(lambda: view.distil.progress is not None, seconds=240)
    window.viewer.layers.clear()
    window.settle()
    assert dock.reason.message == NO_SLIDE
    window.wait(lambda: gone(jobs[0].pid) and not threads() - before, seconds=120)


def test_two_viewers_on_one_study_do_not_disturb_each_other(
    window, dock, view, made, work, open_result, make_napari_viewer
):
    second = type(window)(make_napari_viewer(show=True))
    other = second.viewer.window.add_plugin_dock_widget(PLUGIN, "Distil")[1]
    other_view = open_result(second, made)
    assert other_view is not view
    dock.start_button.click()
    window.wait(lambda: view.distil.epochs)
    assert not other_view.distil.state.busy
    assert other.start_button.isEnabled()
    other.start_button.click()
    second.wait(lambda: len(work.requests) == 2 and not other_view.distil.state.busy)
    assert any("in use by process" in message for message in said())
    assert view.distil.state.busy
    assert not other_view.distil.epochs
    work.go_on.set()
    window.wait(lambda: not view.distil.state.busy)
