"""The dock widgets as a user meets them, on generated and real slides."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QDialog,
    QDockWidget,
    QProgressBar,
    QTabBar,
    QWidget,
)

from napari_histodistill.jobs import Progress
from napari_histodistill.slide.synthetic import draw_slide
from napari_histodistill.study import RunState, Study
from napari_histodistill.viewer.guide import NO_SLIDE
from napari_histodistill.viewer.layers import Role
from napari_histodistill.viewer.teacher import TeacherState
from napari_histodistill.viewer.teacher_work import default_study_folder
from napari_histodistill.widgets.parts import MINIMUM_WIDTH, Banner, Slider, show_progress
from napari_histodistill.widgets.session import session_of

pytestmark = pytest.mark.viewer
PLUGIN = "napari-histodistill"
DOCKS = ("Study", "Slide", "Teacher", "Correct", "Distil", "Review", "Export")


@pytest.fixture
def drawn_path(drawn):
    return drawn(2048, 3072)


@pytest.fixture
def widgets(docked):
    return docked("Slide", "Teacher")


def open_slide_in(window, path, study=None):
    window.viewer.open(path, plugin=PLUGIN)
    window.settle()
    view = session_of(window.viewer).current
    if study is not None:
        view.teacher.choose_study(study)
    return view


def test_without_a_slide_the_widgets_say_so_and_offer_nothing_to_run(widgets):
    slide, teacher = widgets
    assert slide.facts.value("File") == "none open"
    assert not slide.find_button.isEnabled()
    assert not teacher.run_button.isEnabled()
    assert teacher.scope.message == NO_SLIDE


@pytest.mark.parametrize("with_slide", [False, True])
def test_what_is_off_says_why_in_every_dock(window, drawn_path, with_slide):
    docks = [window.viewer.window.add_plugin_dock_widget(PLUGIN, name)[1] for name in DOCKS]
    if with_slide:
        open_slide_in(window, drawn_path)
    window.settle()
    silent = [
        f"{dock.step[1]}: {type(widget).__name__} {widget.text() if hasattr(widget, 'text') else ''}"
        for dock in docks
        for widget in dock.findChildren(QWidget)
        if isinstance(widget, (QAbstractButton, QComboBox, QAbstractSpinBox, Slider))
        and not widget.isEnabled()
        and widget.parentWidget().isEnabled()
        and widget.isVisibleTo(dock)
        and not widget.toolTip()
    ]
    assert silent == []


def test_the_slider_for_blur_says_what_it_waits_for(window, widgets, drawn_path):
    slide, _ = widgets
    assert slide.blur.toolTip() == NO_SLIDE
    open_slide_in(window, drawn_path)
    slide.focus.setChecked(False)
    assert not slide.blur.isEnabled()
    assert "Mark areas out of focus" in slide.blur.toolTip()
    slide.focus.setChecked(True)
    assert slide.blur.isEnabled()
    assert "slight blur" in slide.blur.toolTip()


def test_both_widgets_fit_a_small_laptop_and_share_one_place(window, widgets):
    main = window.viewer.window._qt_window
    main.resize(1366, 768)
    window.settle(0.3)
    assert main.width() <= 1366
    assert main.height() <= 768
    docks = [dock for dock in main.findChildren(QDockWidget) if dock.isAncestorOf(widgets[0])]
    assert len(main.tabifiedDockWidgets(docks[0])) == 1
    assert all(widget.width() < 420 for widget in widgets)


def test_no_dock_is_cut_off_and_tabs_stand_in_the_order_of_the_work(window):
    main = window.viewer.window._qt_window
    main.resize(1366, 768)
    panels = []
    for name in ("Export", "Slide", "Review", "Distil", "Study", "Teacher", "Correct"):
        panels.append(window.viewer.window.add_plugin_dock_widget(PLUGIN, name)[1])
        window.settle()
    window.wait(lambda: all(panel.body.width() <= panel.viewport().width() for panel in panels), seconds=20)
    assert max(panel.body.minimumSizeHint().width() for panel in panels) <= MINIMUM_WIDTH

    def tabs():
        return [[bar.tabText(i) for i in range(bar.count())] for bar in main.findChildren(QTabBar)]

    window.wait(lambda: ["Study", "Slide", "Teacher", "Correct", "Distil", "Review", "Export"] in tabs(), seconds=20)


def test_the_slide_widget_says_what_the_slide_is(window, widgets, slides_dir):
    slide, _ = widgets
    open_slide_in(window, slides_dir / "CMU-1-Small-Region.svs")
    assert slide.facts.value("Size") == "2 220 × 2 967 px"
    assert slide.facts.value("Area") == "1.1 × 1.5 mm"
    assert slide.facts.value("Objective") == "20×"
    assert slide.mpp_box.value() == pytest.approx(0.499, abs=1e-4)
    assert not slide.mpp_problem.message
    names = [slide.pictures.itemText(index) for index in range(slide.pictures.count())]
    assert {"label", "macro"} <= set(names)
    assert len(window.viewer.layers) == 1  # no label on screen unless asked for


def test_an_absurd_pixel_size_is_asked_for_and_then_places_every_layer(window, widgets, slides_dir):
    slide, teacher = widgets
    view = open_slide_in(window, slides_dir / "CMU-1-Small-Region-wrong-mpp.jpeg.tiff")
    assert "pixel size" in slide.mpp_problem.message
    assert teacher.status.text() == TeacherState.NO_MPP.value
    assert not teacher.run_button.isEnabled()
    slide.find_button.click()
    window.wait(lambda: view.tissue.mask is not None)
    slide.mpp_box.setValue(0.5)
    slide.mpp_button.click()
    window.settle()
    assert not slide.mpp_problem.message
    assert teacher.run_button.isEnabled()
    extents = [layer.extent.world for layer in window.viewer.layers]
    assert all(str(layer.units[0]) == "micrometer" for layer in window.viewer.layers)
    for layer, extent in zip(window.viewer.layers, extents, strict=True):
        edges = extent + np.array([[-0.5], [0.5]]) * layer.scale
        np.testing.assert_allclose(edges, [[-0.25, -0.25], np.array(view.slide.shape) * 0.5 - 0.25], atol=1e-6)


def test_colours_by_icc_profile_are_for_the_asking(window, widgets, tmp_path):
    slide, _ = widgets
    path = tmp_path / "profiled.png"
    picture = Image.new("RGB", (300, 200), (200, 80, 140))
    picture.save(path, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    view = open_slide_in(window, path)
    before = view.slide
    assert slide.icc.isEnabled()
    slide.icc.click()
    window.settle()
    assert view.icc
    assert view.slide is not before
    (layer,) = window.viewer.layers
    assert layer.metadata["histodistill_slide"] is view.slide
    assert session_of(window.viewer).current is view
    np.testing.assert_allclose(np.asarray(layer.data[0][100, 100]), (200, 80, 140), atol=2)
    slide.icc.click()
    assert not view.icc


def test_a_picture_beside_the_slide_opens_in_its_own_window(widgets, slides_dir, window):
    slide, _ = widgets
    open_slide_in(window, slides_dir / "CMU-1-Small-Region.svs")
    slide.pictures.setCurrentText("macro")
    slide.picture_button.click()
    (dialog,) = slide.findChildren(QDialog)
    assert "macro" in dialog.windowTitle()
    dialog.close()


def test_a_pixel_size_that_no_slide_has_is_refused(window, widgets, slides_dir):
    from napari.utils.notifications import notification_manager

    slide, _ = widgets
    view = open_slide_in(window, slides_dir / "CMU-1-Small-Region.svs")
    slide.mpp_box.setValue(0)
    slide.mpp_button.click()
    assert "0.05 to 8" in notification_manager.records[-1].message
    assert view.slide.mpp == pytest.approx((0.499, 0.499))


def test_tissue_is_found_follows_its_settings_and_keeps_what_was_painted(window, widgets, drawn_path):
    slide, _ = widgets
    view = open_slide_in(window, drawn_path)
    slide.find_button.click()
    window.wait(lambda: view.tissue.mask is not None)
    layer = view.layer(Role.TISSUE)
    assert layer.name == "tissue"
    before = view.tissue.fraction
    assert 0.2 < before < 0.9
    layer.brush_size = 9
    layer.paint((5, 5), 3)
    slide.threshold.slider.setValue(0.2)
    window.wait(lambda: not view.tissue.busy)
    assert view.tissue.fraction < before
    assert layer.data[5, 5] == 3
    assert "Edited by hand" in slide.tissue_note.text()


def test_a_slide_that_is_not_he_gets_a_warning_before_anything_runs(window, widgets, slides_dir, tmp_path):
    slide, teacher = widgets
    view = open_slide_in(window, slides_dir / "hamamatsu-dapi.ndpi", tmp_path / "study")
    asked = []
    view.teacher.ask = lambda question: bool(asked.append(question))
    teacher.run_button.click()
    window.wait(lambda: not view.teacher.state.busy)
    assert "H&E" in asked[0]
    assert "does not look like H&E" in slide.tissue_warning.message
    assert "does not look like H&E" in teacher.he_warning.message
    assert not (tmp_path / "study").exists()


def test_the_scope_of_the_model_is_on_screen_before_the_first_run(window, widgets, drawn_path):
    _, teacher = widgets
    view = open_slide_in(window, drawn_path)
    assert teacher.scope.message == " ".join(view.teacher.card.scope)
    assert "research" in teacher.scope.message.lower()
    window.viewer.window._qt_window.resize(1366, 768)
    window.settle(0.3)
    assert teacher.scope.isVisible()
    assert teacher.scope.height() >= teacher.scope.heightForWidth(teacher.scope.width()), "the text is cut off"


def test_a_folder_without_a_model_is_refused(window, widgets, drawn_path, tmp_path):
    from napari.utils.notifications import notification_manager

    view = open_slide_in(window, drawn_path)
    view.teacher.choose_model(str(tmp_path))
    assert "model.json" in notification_manager.records[-1].message
    assert view.teacher.model == "bundled"


def test_a_folder_with_other_files_is_not_taken_as_study(window, widgets, drawn_path, tmp_path):
    _, teacher = widgets
    (tmp_path / "mine.txt").write_text("precious")
    open_slide_in(window, drawn_path, tmp_path)
    assert "other files" in teacher.problem.message
    assert not teacher.run_button.isEnabled()


def test_the_default_study_is_beside_the_slide_where_that_can_be_written(tmp_path):
    assert default_study_folder(tmp_path / "a.svs") == tmp_path / "a-study"
    assert default_study_folder(tmp_path / "none" / "a.svs").name == "a-study"
    assert default_study_folder(tmp_path / "none" / "a.svs").parent != tmp_path / "none"


def test_run_correct_and_open_again_on_a_generated_slide(window, widgets, drawn_path, tmp_path):
    _, teacher = widgets
    study = tmp_path / "study"
    view = open_slide_in(window, drawn_path, study)
    teacher.run_button.click()
    window.wait(lambda: view.teacher.result is not None)
    window.wait(lambda: view.teacher.state is TeacherState.DONE)
    assert teacher.run_button.text() == "Run again"
    summary = view.teacher.result.run.record.summary
    window.wait(lambda: view.teacher.result.figures.tissue_mm2 == pytest.approx(summary["tissue_mm2"]))
    assert view.teacher.result.figures.tumour_mm2 == pytest.approx(summary["tumour_mm2"])
    assert f"{summary['tumour_mm2']:.3f} mm²" in teacher.figures.value("Tumour")
    stored = Study.open(study).slides()[0].pseudo_mask()[:]
    np.testing.assert_array_equal(view.layer(Role.PSEUDO_MASK).data, stored)

    layer = view.layer(Role.PSEUDO_MASK)
    y, x = np.argwhere(stored > 0)[0]
    assert teacher.figures.value("Corrections") == "none"
    layer.paint((y, x), 3)
    window.wait(lambda: teacher.figures.value("Corrections") == "saved", seconds=3)
    window.viewer.layers.clear()
    window.settle(0.3)
    again = open_slide_in(window, drawn_path, study)
    window.wait(lambda: again.teacher.result is not None and again.layer(Role.PSEUDO_MASK).data[y, x] == 3)
    assert again.tissue.mask is not None


RUN_IN_A_NEW_INTERPRETER = """
import sys, time
from pathlib import Path
import napari
from qtpy.QtWidgets import QApplication
from napari_histodistill.viewer.teacher import TeacherState
from napari_histodistill.widgets.session import session_of
viewer = napari.Viewer(show=False)
teacher = viewer.window.add_plugin_dock_widget("napari-histodistill", "Teacher")[1]
viewer.open(sys.argv[1], plugin="napari-histodistill")
control = session_of(viewer).current.teacher
control.choose_study(Path(sys.argv[2]))
teacher.run_button.click()
end = time.monotonic() + 120
while control.state is not TeacherState.DONE and time.monotonic() < end:
    QApplication.processEvents()
    time.sleep(0.01)
print(control.state.name, "torch" in sys.modules)
viewer.close()
"""


def test_running_the_teacher_never_imports_torch_into_the_window(drawn_path, tmp_path):
    command = [sys.executable, "-c", RUN_IN_A_NEW_INTERPRETER, str(drawn_path), str(tmp_path / "study")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "DONE False" in done.stdout, done.stdout + done.stderr


def test_cancel_keeps_what_was_computed_and_the_run_goes_on_from_there(window, widgets, tmp_path):
    _, teacher = widgets
    path = tmp_path / "large.tiff"
    picture = draw_slide((1024, 2048)).image
    tifffile.imwrite(  # large enough that the run is not over before the click
        path, np.tile(picture, (8, 6, 1)), tile=(256, 256), photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3
    )
    view = open_slide_in(window, path, tmp_path / "study")
    teacher.run_button.click()
    window.wait(lambda: view.teacher.result is not None and view.teacher.result.entry.run.record.finished)
    teacher.cancel_button.click()
    assert view.teacher.state is TeacherState.STOPPING
    landed = set(view.teacher.result._landed)
    window.wait(lambda: not view.teacher.state.busy)
    assert view.teacher.state is TeacherState.PARTIAL
    assert view.teacher.result._landed == landed  # late news of the cancelled job were dropped
    assert teacher.run_button.text() == "Resume"
    entry = Study.open(tmp_path / "study").slides()[0]
    assert entry.run.record.state is RunState.PARTIAL
    assert entry.run.record.finished
    teacher.run_button.click()
    window.wait(lambda: view.teacher.state is TeacherState.DONE)
    assert entry.run.record.summary["tiles_computed"] < entry.run.record.summary["tiles"]


def test_a_result_is_replaced_only_after_asking(window, widgets, slides_dir, tmp_path):
    """The whole way on a real slide."""
    _, teacher = widgets
    view = open_slide_in(window, slides_dir / "CMU-1-Small-Region.svs", tmp_path / "study")
    teacher.run_button.click()
    window.wait(lambda: view.teacher.state is TeacherState.DONE)
    window.wait(lambda: view.teacher.result.figures.tissue_mm2 > 0.3)
    canvas = window.look((740.0, 550.0), 0.5)
    assert canvas.std() > 20
    asked = []
    view.teacher.ask = lambda question: bool(asked.append(question))
    teacher.run_button.click()
    window.settle()
    assert "replace it" in asked[0]
    assert view.teacher.state is TeacherState.DONE


def test_a_banner_takes_no_more_room_than_its_text_needs(qtbot):
    banner = Banner()
    qtbot.addWidget(banner)
    banner.resize(250, 30)
    banner.say("A sentence that goes on for many lines. " * 10)
    tall = banner.minimumHeight()
    banner.say("Short.")
    assert banner.minimumHeight() < tall / 3


def test_progress_is_not_painted_there_and_then(qtbot):
    class Bar(QProgressBar):
        painted = 0

        def paintEvent(self, event):  # noqa: N802 - Qt's name
            self.painted += 1
            super().paintEvent(event)

    bar = Bar()
    qtbot.addWidget(bar)
    bar.resize(200, 20)
    bar.show()
    qtbot.waitUntil(lambda: bar.painted > 0)
    before = bar.painted
    for done in (10, 50, 90):
        show_progress(bar, Progress(done, 100))
    assert bar.painted == before
    qtbot.waitUntil(lambda: bar.painted > before)
    assert bar.value() == 90
