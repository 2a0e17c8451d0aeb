"""The "Study" controller without a window: which study, its slides and their state, adding, removing, finding again."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from PIL import Image

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import ThreadJob
from napari_histodistill.predict import Figures
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import NORMAL, TUMOUR
from napari_histodistill.slide.synthetic import draw_slide, write_slide
from napari_histodistill.study import SlideLabel, Study
from napari_histodistill.viewer.export import ExportState
from napari_histodistill.viewer.layers import Role
from napari_histodistill.viewer.recent import recent_studies
from napari_histodistill.viewer.slides import SlideViews
from napari_histodistill.viewer.study_reasons import (
    why_not_add,
    why_not_add_open,
    why_not_open,
    why_not_relink,
    why_not_remove,
    why_not_search,
)
from napari_histodistill.viewer.teacher_work import default_study_folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    for seed in (1, 2, 3):
        write_slide(draw_slide((256, 384), seed=seed), folder / f"{seed}.tiff")
    return folder


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HISTODISTILL_STATE", str(tmp_path / "state"))


@pytest.fixture
def slides(drawn, tmp_path):
    """Three slide files that a test may move."""
    (tmp_path / "slides").mkdir()
    return [shutil.copy(drawn / f"{seed}.tiff", tmp_path / "slides" / f"{seed}.tiff") for seed in (1, 2, 3)]


class Session:
    """A viewer model and its study."""

    def __init__(self, runner):
        self.runner, self.viewer = runner, ViewerModel()
        self.views = SlideViews(self.viewer, runner)
        self.study = self.views.study
        self.told = []
        notification_manager.notification_ready.connect(self.hear)

    def hear(self, notice):
        self.told.append(notice.message)

    def row(self, name):
        """The row of a slide, after whatever is due has happened."""
        self.look()
        return next(row for row in self.study.rows if row.name == name)

    def look(self):
        self.runner.pass_time()
        self.study.look_at(row.folder for row in self.study.rows)

    def words(self, name):
        return self.study.words(self.row(name))

    @property
    def names(self):
        return [row.name for row in self.study.rows]

    def close(self):
        notification_manager.notification_ready.disconnect(self.hear)
        self.views.close()


@pytest.fixture
def session(new_parent_runner):
    session = Session(new_parent_runner())
    yield session
    session.close()


@pytest.fixture
def study(session, slides, tmp_path):
    """A study with the first two slides, chosen."""
    session.study.create(tmp_path / "trial")
    session.study.add(slides[:2])
    return session.study


def predict(folder, name, share=0.5):
    """Leave a teacher's result in a study: tumour in the upper part."""
    entry = Study.open(folder).slide_named(name)
    height, width = entry.grid.shape
    entry.save_tissue(np.ones((50, 50), np.uint8), settings={})
    run = entry.new_run({"model": "by hand"})
    probability = np.zeros((height, width), np.uint8)
    probability[: int(height * share)] = 255
    run.probability.write(0, 0, probability)
    with run.replace_pseudo_mask() as target:
        target.write(0, 0, np.where(probability > 0, TUMOUR, NORMAL).astype(np.uint8))
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})
    return entry


# Which study


def test_without_a_study_there_are_no_rows_and_the_reasons_say_what_to_do(session):
    assert (session.study.folder, session.study.rows) == (None, ())
    assert why_not_add(session.study) == "Make or open a study first."
    assert why_not_add_open(session.study) == "Make or open a study first."
    assert why_not_open(session.study, []) == "Choose a slide in the list first."
    assert why_not_search(session.study) == "No slide is missing."


def test_a_study_is_made_chosen_and_remembered(session, tmp_path):
    session.study.create(tmp_path / "one")
    session.study.create(tmp_path / "two")
    assert session.study.folder == tmp_path / "two"
    assert session.study.recent() == [tmp_path / "one"]
    assert recent_studies() == [tmp_path / "two", tmp_path / "one"]
    session.study.create(tmp_path / "one")  # it is there: opened
    assert session.study.folder == tmp_path / "one"


def test_a_folder_that_is_no_study_is_told_and_a_study_that_is_gone_forgotten(session, tmp_path):
    session.study.create(tmp_path / "one")
    shutil.rmtree(tmp_path / "one")
    session.study.leave()
    session.study.choose(tmp_path / "one")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("")
    session.study.create(tmp_path / "full")
    assert [("does not exist" in text, "not an empty folder" in text) for text in session.told] == [
        (True, False),
        (False, True),
    ]
    assert session.study.folder is None
    assert recent_studies() == []


def test_the_shortest_path_stays_each_slide_has_its_own_study_until_one_is_chosen(session, slides):
    session.views.open(slides[0])
    view = session.views.current
    assert view.teacher.study_folder == default_study_folder(view.slide.path)
    session.runner.pass_time()
    assert session.study.folder is None  # the teacher has not made it yet
    with open_slide(slides[0]) as slide:
        Study.create(view.teacher.study_folder).add_slide(slide)
    view.teacher.changed.emit()
    session.runner.pass_time()
    assert (session.study.folder, session.study.chosen) == (view.teacher.study_folder, False)
    assert session.names == ["1.tiff"]
    session.views.open(slides[1])
    other = session.views.current
    assert other.teacher.study_folder == default_study_folder(other.slide.path)
    session.runner.pass_time()
    assert session.study.folder is None


def test_once_a_study_is_chosen_slides_that_are_opened_go_into_it(session, study, slides):
    session.views.open(slides[2])
    view = session.views.current
    assert view.teacher.study_folder == study.folder
    session.runner.pass_time()
    assert [found.slide.name for found in study.strangers] == ["3.tiff"]
    assert why_not_add_open(study) == ""
    study.add_open()
    assert session.names == ["1.tiff", "2.tiff", "3.tiff"]
    assert why_not_add_open(study) == "The study holds every slide that is open."


def test_work_that_is_kept_beside_a_slide_is_not_hidden_by_the_chosen_study(session, study, slides):
    with open_slide(slides[2]) as slide:
        own = Study.create(default_study_folder(slide.path))
        own.add_slide(slide)
    session.views.open(slides[2])
    view = session.views.current
    assert view.teacher.study_folder == own.folder
    session.runner.pass_time()
    assert [found.slide.name for found in study.strangers] == ["3.tiff"]


def test_slides_that_are_open_and_have_no_study_come_along_into_a_new_one(session, slides, tmp_path):
    session.views.open(slides[0])
    view = session.views.current
    session.runner.pass_time()
    session.study.create(tmp_path / "trial")
    assert view.teacher.study_folder == tmp_path / "trial"
    assert session.names == ["1.tiff"]


# What the slides are


def test_the_state_of_a_slide_in_words(session, study, slides):
    assert session.words("1.tiff") == "not opened yet"
    entry = predict(study.folder, "1.tiff")
    study._looked_at.clear()
    assert session.words("1.tiff") == "predicted"
    areas = session.row("1.tiff").overview.figures
    assert areas.tumour_percent == pytest.approx(50, abs=2)
    entry.save_corrections_region(0, 0, np.full(entry.grid.shape, TUMOUR, np.uint8))
    for number in (1, 2):
        run = entry.new_prediction(f"0001-000{number}", {})
        entry.complete_run(run, {})
    slides[0] = shutil.move(slides[0], str(slides[0]) + ".away")
    study._looked_at.clear()
    study.refresh()
    assert session.words("1.tiff") == "missing: moved, corrected: 1 stroke, rounds: 2"
    assert session.row("1.tiff").overview.figures.tumour_percent == 100
    assert session.words("2.tiff") == "not opened yet"


def test_areas_are_taken_from_the_run_where_nothing_was_corrected_since(session, study):
    entry = predict(study.folder, "1.tiff")
    entry.run.record.summary.update(tumour_mm2=1.5, tissue_mm2=6.0, tumour_percent=25.0, mean_probability=0.1)
    run = entry.run
    run.record.summary = {"tumour_mm2": 1.5, "tissue_mm2": 6.0, "tumour_percent": 25.0, "mean_probability": 0.1}
    run.save()
    study._looked_at.clear()
    assert session.row("1.tiff").overview.figures == Figures(1.5, 6.0, 25.0, 0.1)
    assert session.row("1.tiff").overview.areas() == "1.50 mm² tumour, 25.0 % of tissue"


def test_only_what_is_on_screen_is_looked_at(session, study):
    first, second = study.rows
    study.look_at([second.folder])
    assert set(study.thumbnails) == {second.folder}
    assert [row.overview is not None for row in study.rows] == [False, True]
    assert (second.folder / "thumbnail.png").exists()
    assert not (first.folder / "thumbnail.png").exists()


def test_one_damaged_slide_does_not_keep_the_others_from_being_listed(session, study):
    first = study.rows[0]
    for name in ("slide.json", "slide.json.copy"):
        (first.folder / name).write_text("{}")
    study.refresh()
    assert "is no histodistill-slide file" in study.words(study.rows[0])
    assert session.words("2.tiff") == "not opened yet"
    assert why_not_open(study, study.rows[:1])


def test_labels_are_kept_in_the_study_and_follow_the_distil_dock(session, study):
    predict(study.folder, "1.tiff")
    study.open([session.row("1.tiff")])
    view = session.views.current
    assert view.distil.history.label is SlideLabel.UNKNOWN
    study.set_label(study.rows, SlideLabel.NORMAL)
    assert [entry.label for entry in Study.open(study.folder).slides()] == [SlideLabel.NORMAL] * 2
    assert view.distil.history.label is SlideLabel.NORMAL
    assert view.distil.history.normal_slides == 1
    view.distil.set_label(SlideLabel.TUMOUR)
    assert session.row("1.tiff").label is SlideLabel.TUMOUR


# Opening


def test_a_slide_opens_with_its_study_and_its_layers_as_saved(session, study):
    entry = predict(study.folder, "2.tiff")
    entry.save_corrections_region(0, 0, np.full((5, 5), NORMAL, np.uint8))
    study.open([session.row("2.tiff")])
    session.runner.pass_time()
    view = session.views.current
    assert view.slide.name == "2.tiff"
    assert view.teacher.study_folder == study.folder
    mask = view.layer(Role.PSEUDO_MASK)
    assert (mask.data[:5, :5] == NORMAL).all()
    assert mask.data[5:10, 10] == pytest.approx(TUMOUR)
    assert study.view_of(session.row("2.tiff")) is view
    mask.paint((50, 50), NORMAL)
    assert "corrected: 2 strokes" in session.words("2.tiff")


def test_slides_are_shown_one_at_a_time_each_as_it_was_left(session, study):
    predict(study.folder, "1.tiff")
    study.open([session.row("1.tiff")])
    first = session.views.current
    session.runner.pass_time()
    first.layer(Role.PROBABILITY).visible = True
    session.viewer.scene.camera.zoom = 3.5
    study.open([session.row("2.tiff")])
    second = session.views.current
    assert second.slide.name == "2.tiff"
    assert not any(layer.visible for layer in first._layers())
    assert second.layer(Role.SLIDE).visible
    study.open([session.row("1.tiff")])
    assert session.views.current is first
    shown = {layer.metadata["histodistill_role"] for layer in session.viewer.layers if layer.visible}
    assert shown == {Role.SLIDE, Role.PROBABILITY, Role.PSEUDO_MASK}
    assert session.viewer.scene.camera.zoom == 3.5
    session.viewer.layers.remove(first.layer(Role.SLIDE))
    session.runner.pass_time()
    assert second.layer(Role.SLIDE).visible  # not an empty canvas


def test_a_slide_that_moved_or_was_replaced_is_not_opened_and_says_why(session, study, slides):
    shutil.copy(slides[2], slides[0])
    study.open([session.row("1.tiff")])
    assert "is not the slide that the study knows" in session.told[-1]
    shutil.move(slides[0], str(slides[0]) + ".away")
    study.refresh()
    assert why_not_open(study, [session.row("1.tiff")]) == "1.tiff is not where it was: relink it."
    study.open([session.row("1.tiff")])
    assert len(session.viewer.layers) == 0


# Adding, removing, finding again


def test_adding_says_what_was_added_what_was_known_and_what_failed(session, study, slides, tmp_path):
    (tmp_path / "letter.txt").write_text("no slide")
    study.add([slides[1], slides[2], tmp_path / "letter.txt"])
    assert study.note == "1 slide added, 1 known before"
    assert session.names == ["1.tiff", "2.tiff", "3.tiff"]
    assert "letter.txt is not a slide" in session.told[-1]


def test_a_slide_without_a_pixel_size_is_refused_in_words(session, study, tmp_path):
    from PIL import Image

    Image.new("RGB", (200, 100), "pink").save(tmp_path / "plain.png")
    study.add([tmp_path / "plain.png"])
    assert "pixel size of plain.png is unknown: open it" in session.told[-1]
    assert study.note == "No slides added"
    session.views.open(tmp_path / "plain.png")
    session.runner.pass_time()
    assert "enter it in the Slide dock" in why_not_add_open(study)


def test_a_removed_slide_leaves_the_viewer_and_comes_back_with_its_work(session, study):
    predict(study.folder, "1.tiff")
    study.open([session.row("1.tiff")])
    session.runner.pass_time()
    session.views.current.layer(Role.PSEUDO_MASK).paint((50, 50), NORMAL)  # not written yet
    study.remove([session.row("1.tiff")])
    assert session.names == ["2.tiff"]
    assert len(session.viewer.layers) == 0
    assert [removed.name for removed in study.removed] == ["1.tiff"]
    study.restore(study.removed[0])
    assert session.names == ["1.tiff", "2.tiff"]
    assert study.removed == ()
    assert session.words("1.tiff") == "predicted, corrected: 1 stroke"


def test_a_slide_that_is_worked_on_is_not_removed(session, study):
    predict(study.folder, "1.tiff")
    study.open([session.row("1.tiff")])
    session.runner.pass_time()
    session.views.current.distil.start()
    assert session.words("1.tiff").startswith("learning")
    assert why_not_remove(study, [session.row("1.tiff")]).startswith("Work on 1.tiff is under way")
    with Study.open(study.folder).distillation_lock():  # by another program
        study.remove([session.row("2.tiff")])
    assert "in use" in session.told[-1]
    assert session.names == ["1.tiff", "2.tiff"]


def test_a_moved_slide_is_relinked_by_hand_but_not_to_another(session, study, slides):
    assert why_not_relink(study, [session.row("1.tiff")]) == "1.tiff is where it was."
    away = slides[0].rename(slides[0].with_name("renamed.tiff"))
    study.refresh()
    assert why_not_relink(study, [session.row("1.tiff")]) == ""
    study.relink(session.row("1.tiff"), slides[1])
    assert "2.tiff is another slide than 1.tiff" in session.told[-1]
    study.relink(session.row("1.tiff"), away)
    assert session.words("renamed.tiff") == "not opened yet"


def test_every_moved_slide_that_lies_in_a_folder_is_found(session, study, slides, tmp_path):
    (tmp_path / "archive").mkdir()
    for path in slides[:2]:
        path.rename(tmp_path / "archive" / f"moved-{path.name}")
    (tmp_path / "archive" / "moved-2.tiff").unlink()
    study.refresh()
    assert len(study.missing) == 2
    study.search(tmp_path / "archive")
    assert study.note == "1 slide found again; 1 not in archive"
    assert [row.name for row in study.missing] == ["2.tiff"]


def test_a_study_that_is_deleted_is_told_and_nothing_breaks(session, study):
    shutil.rmtree(study.folder)
    study.refresh()
    assert "does not exist" in session.told[-1]
    study.set_label(study.rows, SlideLabel.NORMAL)
    study.remove(study.rows[:1])
    study.look_at([row.folder for row in study.rows])


def test_two_viewers_have_a_study_each(session, study, new_parent_runner, tmp_path):
    other = Session(new_parent_runner())
    other.study.create(tmp_path / "other")
    assert (study.folder, other.study.folder) == (tmp_path / "trial", tmp_path / "other")
    other.close()


def test_a_slide_that_was_opened_twice_leaves_the_viewer_altogether(session, study, slides):
    predict(study.folder, "1.tiff")
    study.open([session.row("1.tiff")])
    session.views.show(open_slide(slides[0]))
    session.runner.pass_time()
    study.remove([session.row("1.tiff")])
    assert len(session.viewer.layers) == 0


def test_a_slide_that_an_import_is_written_into_is_not_removed(session, study, monkeypatch):
    predict(study.folder, "1.tiff")
    study.open([session.row("1.tiff")])
    session.runner.pass_time()
    export = session.views.current.export
    monkeypatch.setattr(export, "_doing", ExportState.APPLYING)
    monkeypatch.setattr(export._work, "job", ThreadJob(len, ()))
    assert session.words("1.tiff").startswith("files are read or written")
    assert why_not_remove(study, [session.row("1.tiff")]).startswith("Work on 1.tiff is under way")
    study.remove([session.row("1.tiff")])
    assert session.names == ["1.tiff", "2.tiff"]
    monkeypatch.undo()


def test_labels_that_are_given_while_others_are_written_are_kept_in_order(session, study, monkeypatch):
    started, start = [], study._labels._work.start

    def later(job, *, done):
        def run():
            study._labels._work.job = None
            start(job, done=done)

        started.append(run)
        study._labels._work.job = job

    monkeypatch.setattr(study._labels._work, "start", later)
    rows = study.rows
    study.set_label(rows[:1], SlideLabel.TUMOUR)
    study.set_label(rows, SlideLabel.NORMAL)
    assert len(started) == 1
    started[0]()
    started[1]()
    assert [entry.label for entry in Study.open(study.folder).slides()] == [SlideLabel.NORMAL] * 2
    assert [row.label for row in study.rows] == [SlideLabel.NORMAL] * 2


def test_an_import_that_was_previewed_does_not_go_into_a_study_that_was_left(session, study, slides, tmp_path):
    entry = predict(study.folder, "1.tiff")
    study.open([session.row("1.tiff")])
    session.runner.pass_time()
    view = session.views.current
    mask = tmp_path / "mask.png"
    Image.fromarray(np.full(entry.grid.shape, 255, np.uint8)).save(mask)
    view.export.read_file(mask, "corrections")
    assert view.export.preview is not None
    assert not view.layer(Role.IMPORT).editable
    view.teacher.choose_study(tmp_path / "another")
    assert view.export.preview is None
    assert view.layer(Role.IMPORT) is None


def test_opening_the_slide_that_is_shown_already_leaves_the_view_as_it_is(session, study):
    study.open([session.row("1.tiff")])
    study.open([session.row("2.tiff")])
    session.viewer.scene.camera.zoom = 3.5
    study.open([session.row("2.tiff")])
    assert session.viewer.scene.camera.zoom == 3.5


def test_the_status_line_names_what_is_still_being_opened(session, slides, monkeypatch):
    started = []
    monkeypatch.setattr(session.runner, "start", lambda job, **callbacks: started.append((job, callbacks)))
    for path in slides:
        session.views.open(path)
    assert session.viewer.status == "Opening 1.tiff, 2.tiff, 3.tiff…"
    (_, first), (_, second), (_, third) = started
    second["failed"](HistodistillError("It cannot be read."))
    assert session.viewer.status == "Opening 1.tiff, 3.tiff…"
    for callbacks, path in ((first, slides[0]), (third, slides[2])):
        callbacks["done"](open_slide(path))
    assert session.viewer.status == ""


def test_a_study_is_chosen_in_the_background_and_the_last_choice_counts(session, tmp_path, monkeypatch):
    started, study = [], session.study
    monkeypatch.setattr(session.runner, "start", lambda job, **callbacks: started.append((job, callbacks)))
    study.create(tmp_path / "one")
    assert (study.folder, list(tmp_path.glob("one/*"))) == (None, [])
    study.create(tmp_path / "two")
    monkeypatch.undo()
    for job, callbacks in started:
        session.runner.start(job, **callbacks)
    assert study.folder == tmp_path / "two"


def test_nothing_is_opened_any_more_once_the_application_ends(session, slides):
    session.views.open(slides[0])
    session.views.open(slides[1])
    session.views.close()
    session.viewer.layers.remove(session.viewer.layers[0])
    late = open_slide(slides[2])
    session.views._on_opened("3.tiff", late)
    assert session.views.views == ()
    assert len(session.viewer.layers) == 1


def test_slides_that_are_dropped_while_others_are_added_are_refused_in_words(session, study, slides, monkeypatch):
    monkeypatch.setattr(study._work, "job", ThreadJob(len, ()))
    study.add(slides[2:])
    assert session.told[-1] == "Something else is being done with the study: wait, or stop it."


def test_a_slide_is_read_for_its_fingerprint_where_it_is_opened_not_in_the_window(session, slides):
    opened = []
    session.runner.start = lambda job, *, done, **_callbacks: opened.append(run_to_end(job))
    session.views.open(slides[0])
    assert "fingerprint" in vars(opened[0])
    opened[0].close()


def run_to_end(job):
    events = job.events()
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("stem", ["n" * 250, "肺" * 83, "short"])
def test_the_folder_of_a_study_has_a_name_that_file_systems_take(tmp_path, stem):
    slide = tmp_path / f"{stem}.svs"
    slide.touch()
    folder = default_study_folder(slide)
    assert folder.parent == tmp_path
    assert stem.startswith(folder.name.removesuffix("-study"))
    assert Study.create(folder).slides() == []
