"""The "Review" dock in a real window: what it says where it cannot, its keys, and a patch that is painted and kept."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_histodistill.predict.audit import Audited, AuditFigures
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import NORMAL, TUMOUR
from napari_histodistill.study import Study
from napari_histodistill.survey import Estimate
from napari_histodistill.viewer.guide import NO_SLIDE
from napari_histodistill.viewer.layers import Role
from napari_histodistill.widgets.review import cells, on_corrections, verdict
from napari_histodistill.widgets.session import session_of

pytestmark = pytest.mark.viewer
PLUGIN = "napari-histodistill"
SIDE = 4000


@pytest.fixture
def made(tmp_path):
    """A pink slide of 2 mm and its study: tumour in the right half, and a place of doubt."""
    path = tmp_path / "pink.tiff"
    picture = np.broadcast_to(np.array([225, 150, 190], np.uint8), (SIDE, SIDE, 3))
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3)
    with open_slide(path) as slide:
        entry = Study.create(tmp_path / "study").add_slide(slide, target_mpp=4.0)
    entry.save_tissue(np.ones((100, 100), np.uint8), settings={})
    run = entry.new_run({})
    probability = np.zeros(entry.grid.shape, np.uint8)
    probability[:, 250:] = 255
    probability[100:150, 50:100] = 128
    run.probability.write(0, 0, probability)
    with run.replace_pseudo_mask() as target:
        target.write(0, 0, np.where(probability > 128, TUMOUR, NORMAL).astype(np.uint8))
    entry.complete_run(run, {"threshold": 0.6, "smoothing_um": 0.0})
    return path, tmp_path / "study"


@pytest.fixture
def dock(docked):
    return docked("Review")[0]


def press(window, key, modifier=Qt.KeyboardModifier.NoModifier):
    canvas = window.viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    QTest.keyClick(canvas, key, modifier)
    window.settle()


def test_from_the_first_reason_to_a_patch_that_is_kept(window, dock, made):
    assert dock.reason.message == NO_SLIDE
    buttons = (dock.next_button, dock.skip_button, dock.back_button, dock.draw_button, dock.label_button)
    assert not any(button.isEnabled() for button in buttons)
    assert all(button.toolTip() for button in buttons)
    window.viewer.open(made[0], plugin=PLUGIN)
    window.settle()
    assert "run the teacher first" in dock.reason.message
    view = session_of(window.viewer).current
    view.teacher.choose_study(made[1])
    window.wait(lambda: view.teacher.result is not None and not dock.reason.message)
    assert dock.skip_button.toolTip() == "No place is shown yet"
    assert dock.label_button.toolTip() == "Draw patches first"

    press(window, Qt.Key.Key_J)
    window.wait(lambda: view.review.place is not None)
    assert dock.place.text().startswith("The model is uncertain here (")
    assert "Nothing else" in dock.place.text()
    press(window, Qt.Key.Key_J, Qt.KeyboardModifier.ShiftModifier)
    window.wait(lambda: not view.review.busy)
    assert "1 skipped" in dock.place.text()
    dock.show_uncertainty.click()
    assert view.layer(Role.UNCERTAINTY).visible

    dock.draw_button.click()
    window.wait(lambda: view.audit.patch is not None)
    assert dock.labelling.isVisible()
    assert not view.layer(Role.UNCERTAINTY).visible
    patch = view.audit.audit.patches[view.audit.patch]
    other = NORMAL if view.audit.layer.data[5, 5] == TUMOUR else TUMOUR
    dock.paints[other - 1].click()
    scale = view.audit.layer.scale[0]
    middle = view.audit.layer.translate + scale * (np.array(view.audit.layer.data.shape) - 1) / 2
    window.drag(tuple(middle - 2 * scale), tuple(middle + 2 * scale))
    shown = view.audit.layer.data[1:-1, 1:-1].copy()
    assert {TUMOUR, NORMAL} == set(np.unique(shown).tolist())
    press(window, Qt.Key.Key_Y)
    entry = Study.open(made[1]).slides()[0]
    window.wait(lambda: entry.audit().labelled)
    (kept,) = (entry.audit().patches[index] for index in entry.audit().labelled)
    assert (kept.y, kept.x) == (patch.y, patch.x)
    np.testing.assert_array_equal(kept.labels, shown)
    assert entry.corrections() is None
    window.viewer.layers.selection.active = view.layer(Role.SLIDE)  # napari has a Y for images
    press(window, Qt.Key.Key_Y)
    window.wait(lambda: len(entry.audit().labelled) == 2 and not view.audit.busy)
    assert dock.bar.value() == 2
    assert "five patches" in dock.verdict.text()
    dock.label_button.click()
    assert not dock.labelling.isVisible()
    assert view.layer(Role.PSEUDO_MASK).visible


def test_figures_are_said_with_their_intervals_and_what_they_are_not():
    better = Audited("0001-0001", Estimate(0.9, (0.8, 0.95), 2.5, (2, 3)), 2.4, (0.1, (0.05, 0.2)), 0.4, True)
    assert cells(better, "round 1") == ("round 1 * ↑", "0.90 (0.80–0.95)", "2.50 (2.00–3.00)")
    worse = Audited("0001-0002", better.estimate, 2.4, (-0.1, (-0.2, -0.05)), 0.4, False)
    alike = Audited("0001-0003", better.estimate, 2.4, (0.1, (-0.2, 0.3)), None, False)
    assert cells(worse, "round 2")[0] == "round 2 ↓"
    assert cells(alike, "round 3")[0] == "round 3"
    unknown = Audited("", None, 2.4, None, None, False)
    assert cells(unknown, "teacher") == ("teacher", "–", "–")
    figures = AuditFigures(30, 30, 0.1, 5000, (better, worse))
    assert "may have learnt" in verdict(figures)
    assert "not a fair sample" in on_corrections(figures)
    assert "40%" in on_corrections(figures)
    assert on_corrections(AuditFigures(0, 0, 0, 0, (unknown,))) == ""
