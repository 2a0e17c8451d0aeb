"""Every dock says what to do next, why something cannot be done, and where to read on."""

from __future__ import annotations

import itertools

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QComboBox, QLabel

from napari_histodistill.slide.synthetic import draw_slide, write_slide
from napari_histodistill.widgets.help import HelpBar, _anchor, docs_folder
from napari_histodistill.widgets.session import session_of

pytestmark = pytest.mark.viewer
PLUGIN = "napari-histodistill"
DOCKS = ("Study", "Slide", "Teacher", "Correct", "Distil", "Review", "Export")


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HISTODISTILL_CONFIG", str(tmp_path / "config"))


@pytest.fixture
def docks(window):
    docked = [window.viewer.window.add_plugin_dock_widget(PLUGIN, name)[1] for name in DOCKS]
    window.settle()
    return dict(zip(DOCKS, docked, strict=True))


@pytest.fixture
def small_slide(tmp_path):
    path = tmp_path / "small.tiff"
    write_slide(draw_slide((512, 768), seed=3), path)
    return path


def test_the_line_at_the_top_leads_from_dock_to_dock(window, docks, small_slide):
    assert "load the sample" in docks["Slide"].help.next.text()
    session_of(window.viewer).open(small_slide)
    window.wait(lambda: session_of(window.viewer).current is not None)
    assert "Find tissue" in docks["Slide"].help.next.text()
    assert "press Run" in docks["Teacher"].help.next.text()
    assert docks["Correct"].help.next.isHidden()  # its banner says that the teacher comes first
    docks["Slide"].find_button.click()
    window.wait(lambda: "check that blue" in docks["Slide"].help.next.text())
    docks["Teacher"].run_button.click()
    window.wait(lambda: "move the threshold" in docks["Teacher"].help.next.text())
    assert "paint where the mask is wrong" in docks["Correct"].help.next.text()
    assert "say what this slide is" in docks["Distil"].help.next.text()
    assert "press Export" in docks["Export"].help.next.text()


def test_who_has_had_enough_of_it_turns_it_off_for_good(window, docks):
    bar = docks["Slide"].help
    assert not bar.next.isHidden()
    bar.button.menu().aboutToShow.emit()
    bar.guide.setChecked(False)
    assert bar.next.isHidden()
    again = HelpBar("napari.md", dict)
    again.say("Next: nothing.")
    assert again.next.isHidden()


def test_the_sample_is_loaded_from_the_empty_dock(window, docks):
    docks["Slide"].sample_button.click()
    assert not docks["Slide"].sample_button.isEnabled()
    window.wait(lambda: docks["Slide"].view is not None)
    assert docks["Slide"].sample_button.isHidden()
    assert docks["Slide"].facts.value("Size") == "4 608 × 3 072 px"


def test_help_opens_at_the_right_heading(window, docks):
    for panel in docks.values():
        page, _, heading = panel.page.partition("#")
        text = (docs_folder() / page).read_text(encoding="utf-8")
        assert not heading or heading in [_anchor(line.lstrip("#")) for line in text.splitlines() if line[:1] == "#"]
        shown = panel.help.open_page(panel.page)
        window.settle()
        assert text.splitlines()[0].lstrip("# ") in shown.windowTitle()
        top = shown.cursorForPosition(shown.viewport().rect().topLeft()).block()
        assert not heading or heading in {_anchor(block.text()) for block in (top, top.next())}
        shown.close()


def test_a_report_is_copied_without_the_name_of_the_slide(window, docks, small_slide):
    session_of(window.viewer).open(small_slide)
    window.wait(lambda: session_of(window.viewer).current is not None)
    QApplication.clipboard().clear()
    docks["Slide"].help.copy_report()
    window.wait(lambda: "napari-histodistill" in QApplication.clipboard().text())
    report = QApplication.clipboard().text()
    assert "768 x 512 px" in report
    assert "small" not in report
    assert str(small_slide.parent) not in report


def controls(panel):
    kinds = (QAbstractButton, QComboBox, QAbstractSpinBox)
    return [widget for kind in kinds for widget in panel.body.findChildren(kind) if not widget.isHidden()]


def test_every_button_that_is_off_says_why(window, docks, small_slide):
    def silent():
        return [
            f"{name}: {widget.text()}"
            for name, panel in docks.items()
            for widget in controls(panel)
            if isinstance(widget, QAbstractButton) and widget.text() and not widget.isEnabled() and not widget.toolTip()
            and not any(banner.message for banner in panel.body.findChildren(type(docks["Export"].problem)))
        ]  # fmt: skip

    assert silent() == []
    session_of(window.viewer).open(small_slide)
    window.wait(lambda: session_of(window.viewer).current is not None)
    assert silent() == []


def test_tab_reaches_every_control_in_the_order_in_which_a_dock_is_read(docks):
    for name, panel in docks.items():
        there, first = controls(panel), panel.help.button
        assert [w for w in there if not w.focusPolicy() & Qt.FocusPolicy.TabFocus] == [], name
        places, widget = [], first.nextInFocusChain()
        while widget is not first:
            if widget in there:
                places.append(widget.mapTo(panel.body, widget.rect().center()).y())
            widget = widget.nextInFocusChain()
        assert [pair for pair in itertools.pairwise(places) if pair[1] < pair[0] - 40] == [], name


def test_large_letters_widen_the_docks_and_cut_nothing(window, docks):
    from napari.settings import get_settings

    appearance = get_settings().appearance
    before = appearance.font_size
    window.viewer.window._qt_window.resize(1366, 768)
    try:
        appearance.font_size = before + 4
        window.settle(0.5)
        for name, panel in docks.items():
            assert panel.minimumSizeHint().width() >= panel.body.minimumSizeHint().width(), name
            labels = [label for label in panel.body.findChildren(QLabel) if label.isVisible() and not label.wordWrap()]
            assert [x.text() for x in labels if x.width() < x.minimumSizeHint().width()] == [], name
    finally:
        appearance.font_size = before
