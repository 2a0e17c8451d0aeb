"""A prediction in a viewer: live threshold under corrections, figures, saving, opening again."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.slide import open_slide
from napari_histodistill.study import RunState, Study
from napari_histodistill.viewer.layers import Role, add_layer, slide_layer
from napari_histodistill.viewer.saving import read_corrections
from napari_histodistill.viewer.teacher import TeacherState
from napari_histodistill.widgets.session import session_of

pytestmark = pytest.mark.viewer


def probability_of(shape):
    """Rising from 0 at the left edge to 255 at the right."""
    return np.broadcast_to(np.linspace(0, 255, shape[1]).astype(np.uint8), shape).copy()


@pytest.fixture
def study(mark, tmp_path):
    """A study with a complete result of the marked slide: all tissue, probability rising from left to right."""
    folder = tmp_path / "study"
    with open_slide(mark.path) as slide:
        entry = Study.create(folder).add_slide(slide, target_mpp=1.0)
    entry.save_tissue(np.ones((220, 300), np.uint8), settings={})
    run = entry.new_run({})
    run.probability.write(0, 0, probability_of(entry.grid.shape))
    with run.replace_pseudo_mask():
        pass
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})
    return folder


@pytest.fixture
def opened(window, slide, study, tmp_path, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    session = session_of(window.viewer)
    add_layer(window.viewer, slide_layer(slide))
    view = session.current
    view.teacher.choose_study(study)
    window.wait(lambda: view.teacher.result is not None)
    window.wait(lambda: is_masked(view, 0.5))
    return view


def is_masked(view, threshold):
    """Whether the mask on screen is that of a threshold, corrections apart."""
    mask = view.teacher.result.mask
    expected = np.where(probability_of(mask.shape) >= 255 * threshold - 0.001, 1, 2)
    return bool((np.where(mask.hand > 0, expected, mask.data) == expected).all())


def test_a_result_in_the_study_is_shown_in_place(window, opened):
    assert opened.teacher.state is TeacherState.DONE
    names = [layer.name for layer in window.viewer.layers]
    assert names.index("probability") < names.index("pseudo-mask")
    mask, probability = opened.layer(Role.PSEUDO_MASK), opened.layer(Role.PROBABILITY)
    assert isinstance(mask.data, np.ndarray)
    assert mask.data.dtype == np.uint8
    assert mask.editable
    assert probability.multiscale
    assert mask.extent.world == pytest.approx(probability.extent.world)
    # drawn, block by block: the right half green, the left half white
    canvas = window.look((550.0, 750.0), 0.4)
    left, right = (canvas[window.canvas_position((300.0, x))[::-1]].astype(int) for x in (300.0, 1300.0))
    assert left.min() > 240
    assert right[1] > right[0] + 20


def test_the_threshold_is_live_and_corrections_stay(window, opened):
    layer = opened.layer(Role.PSEUDO_MASK)
    layer.brush_size = 31
    layer.paint((500, 200), 1)  # normal at any threshold above
    layer.paint((500, 1400), 2)  # tumour
    hand = opened.teacher.result.mask.hand.copy()
    for threshold in (0.2, 0.8, 0.5):
        opened.teacher.set_mask(threshold=threshold)
        window.wait(lambda threshold=threshold: is_masked(opened, threshold))
        assert (layer.data[hand == 2] == 1).all()
        assert (layer.data[hand == 3] == 2).all()
    layer.undo()
    assert layer.data[500, 1400] == 1


def test_of_many_changes_in_a_row_the_last_one_stays(window, opened):
    for threshold in np.linspace(0.1, 0.9, 20):
        opened.teacher.set_mask(threshold=float(threshold))
        window.settle(0.01)
    window.wait(lambda: is_masked(opened, 0.9))
    window.settle(0.5)
    assert is_masked(opened, 0.9)


def test_figures_follow_threshold_and_brush(window, opened):
    result = opened.teacher.result
    tissue = 2201 * 3007 * 0.25e-6
    window.wait(lambda: result.figures.tissue_mm2 == pytest.approx(tissue, rel=1e-3))
    window.wait(lambda: result.figures.tumour_percent == pytest.approx(50, abs=0.3))
    assert result.figures.mean_probability == pytest.approx(0.5, abs=0.01)
    opened.teacher.set_mask(threshold=0.75)
    window.wait(lambda: result.figures.tumour_percent == pytest.approx(25, abs=0.3))
    opened.layer(Role.PSEUDO_MASK).paint_polygon([[0, 0], [0, 749], [1099, 749], [1099, 0]], 1)
    window.wait(lambda: result.figures.tumour_percent == pytest.approx(75, abs=0.5))


def test_corrections_are_on_disk_soon_and_there_when_the_study_is_opened_again(window, opened, study):
    layer = opened.layer(Role.PSEUDO_MASK)
    layer.brush_size = 31
    layer.paint((500, 200), 1)
    layer.paint((520, 1400), 3)
    shown = layer.data.copy()
    window.wait(lambda: opened.teacher.result.all_saved, seconds=2)
    stored = Study.open(study).slides()[0].corrections().levels[0][:]
    assert stored[500, 200] == 1
    assert stored[520, 1400] == 3
    assert np.count_nonzero(stored != 255) == np.count_nonzero(opened.teacher.result.mask.hand)
    opened.teacher.choose_study(study)
    assert opened.teacher.result is None
    window.wait(lambda: opened.teacher.result is not None)
    window.wait(lambda: is_masked(opened, 0.5))
    np.testing.assert_array_equal(opened.layer(Role.PSEUDO_MASK).data, shown)


def test_an_undone_stroke_is_no_correction_on_disk(window, opened, study):
    layer = opened.layer(Role.PSEUDO_MASK)
    layer.paint((500, 200), 1)
    window.wait(lambda: opened.teacher.result.all_saved)
    layer.undo()
    window.wait(lambda: opened.teacher.result.all_saved)
    assert (Study.open(study).slides()[0].corrections().levels[0][:] == 255).all()


def test_a_new_threshold_is_kept_in_the_study(window, opened, study):
    opened.teacher.set_mask(threshold=0.75, smoothing_um=4.0, support=0.3)
    entry = Study.open(study).slides()[0]
    window.wait(lambda: (entry.run.record.summary or {}).get("threshold") == 0.75, seconds=20)
    assert entry.run.record.state is RunState.COMPLETE
    assert np.mean(entry.pseudo_mask()[:] == 1) == pytest.approx(0.25, abs=0.01)
    opened.teacher.choose_study(study)
    window.wait(lambda: opened.teacher.result is not None)
    assert opened.teacher.mask_settings == MaskSettings(0.75, 4.0, 0.3)


def test_edited_tissue_takes_the_mask_along_on_disk_too(window, opened, study):
    opened.tissue.mask.data[:110] = 0
    opened.layer(Role.TISSUE).visible = True
    opened.layer(Role.TISSUE).refresh()
    mask = opened.teacher.result.mask
    window.wait(lambda: not mask.data[: mask.shape[0] // 2 - 1].any())
    assert mask.data[mask.shape[0] // 2 + 1 :].any()
    assert opened.teacher.state is TeacherState.STALE
    opened.close(wait=True)
    entry = Study.open(study).slides()[0]
    assert entry.tissue().edited
    assert not entry.tissue().mask[:110].any()
    assert not entry.pseudo_mask()[: mask.shape[0] // 2 - 1].any()


def test_blocks_appear_as_they_land(window, opened, study):
    """A second result, written tile by tile while it is shown."""
    entry = Study.open(study).slides()[0]
    run = entry.new_run({"again": True})
    run.record.state = RunState.PARTIAL
    run.save()
    from napari_histodistill.viewer.result import ResultView

    opened.teacher.close()
    for role in (Role.PSEUDO_MASK, Role.PROBABILITY):
        window.viewer.layers.remove(opened.layer(role))
    view = ResultView(
        opened, entry, run, np.ones((220, 300), np.uint8), read_corrections(entry), MaskSettings(0.5, 0.0)
    )
    window.wait(lambda: opened.layer(Role.PROBABILITY) is not None)  # each layer comes by itself
    probability = opened.layer(Role.PROBABILITY)
    probability.visible = True
    assert not view.mask.data.any()
    full = np.full((512, 512), 255, np.uint8)
    run_on_disk = entry.resumable_run()
    run_on_disk.probability.write(512, 512, full)
    view.land_window((slice(512, 1024), slice(512, 1024)))
    window.wait(lambda: np.all(view.mask.data[512:1024, 512:1024] == 1))
    assert not view.mask.data[:512].any()
    for zoom in (0.3, 1.5):
        window.settle(0.7)
        canvas = window.look((768.0, 768.0), zoom)
        middle = canvas[canvas.shape[0] // 2, canvas.shape[1] // 2].astype(int)
        assert middle.sum() < 600, f"zoom {zoom}: nothing is drawn on the white slide"
    view.close()


def test_removing_the_slide_closes_it_and_takes_its_overlays_along(window, opened, slide):
    window.viewer.layers.remove(opened.layer(Role.SLIDE))
    window.wait(lambda: len(window.viewer.layers) == 0)
    assert session_of(window.viewer).current is None
    with pytest.raises(Exception, match="closed"):
        slide.read_level(0, 0, 0, 10, 10)


def test_a_mask_layer_that_was_removed_comes_back_with_its_corrections(window, opened):
    opened.layer(Role.PSEUDO_MASK).paint((500, 200), 1)
    window.viewer.layers.remove(opened.layer(Role.PSEUDO_MASK))
    assert opened.teacher.result.mask_layer is None
    opened.teacher.set_mask(threshold=0.6)
    window.settle(0.3)
    opened.teacher.result.show()
    assert opened.layer(Role.PSEUDO_MASK).data[500, 200] == 1


def test_a_result_that_another_program_put_in_its_place_is_shown(window, opened, study):
    layer = opened.layer(Role.PSEUDO_MASK)
    layer.paint((100, 20), 2)
    before = opened.teacher.result
    window.wait(lambda: before.all_saved)
    entry = Study.open(study).slides()[0]
    run = entry.new_run({})
    run.probability.write(0, 0, np.full(entry.grid.shape, 255, np.uint8))
    with run.replace_pseudo_mask():
        pass
    opened.teacher.look_for_news()
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})
    assert not before.run.folder.exists()

    def looked():
        opened.teacher.look_for_news()
        return opened.teacher.result not in (None, before)

    window.wait(looked)
    mask = opened.teacher.result.mask
    window.wait(lambda: bool((mask.data[:, 60:] == 1).all()))
    assert mask.data[100, 20] == 2


def test_a_result_stays_on_screen_when_its_study_is_gone(window, opened, study):
    shown = opened.teacher.result
    shutil.rmtree(study / "slides")
    for _ in range(3):
        opened.teacher.look_for_news()
        window.wait(lambda: not opened.teacher._watching.busy)
    assert opened.teacher.result is shown
