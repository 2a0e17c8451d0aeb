"""Every dock says what to do next, why something cannot be done, and where to read on."""

from __future__ import annotations

import itertools

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QFrame,
    QLabel,
    QLineEdit,
    QScrollBar,
    QTableWidget,
)
from superqt import QLabeledDoubleSlider

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


def everything(panel):
    """What can be set, pressed, typed into or chosen from; not what these are made of."""
    kinds = (QAbstractButton, QComboBox, QAbstractSpinBox, QAbstractSlider, QLineEdit, QAbstractItemView)
    found = [widget for kind in kinds for widget in panel.body.findChildren(kind) if not isinstance(widget, QScrollBar)]
    return [w for w in found if not isinstance(w.parent(), (*kinds, QFrame)) or type(w.parent()) is QLabel]


def tip(widget, panel):
    """The tool tip that the mouse finds on a widget: its own, or that of what it is in."""
    while not widget.toolTip() and widget is not panel.body:
        widget = widget.parentWidget()
    return widget.toolTip()


def name(widget, panel):
    """What a screen reader calls it: what it was named, what is written on it or before it, else what it does."""
    written = widget.text() if isinstance(widget, QAbstractButton) else ""
    before = [label.text() for label in panel.body.findChildren(QLabel) if label.buddy() is widget]
    return widget.accessibleName() or written or next(iter(before), "") or widget.toolTip()


def test_every_control_has_a_name_says_what_it_does_and_why_it_is_off(window, docks, small_slide):
    on, off = {}, {}

    def look_around():
        window.settle()
        for dock, panel in docks.items():
            for widget in everything(panel):
                if not widget.isHidden():
                    (on if widget.isEnabled() else off).setdefault((dock, widget), set()).add(tip(widget, panel))

    look_around()
    assert {dock for dock, _ in off} == set(DOCKS)
    session_of(window.viewer).open(small_slide)
    window.wait(lambda: session_of(window.viewer).current is not None)
    look_around()
    docks["Teacher"].run_button.click()
    window.wait(docks["Export"].export_button.isEnabled)
    look_around()
    names = {key: f"{key[0]}: {name(key[1], docks[key[0]]) or key[1]}" for key in on.keys() | off.keys()}
    assert len(names) > 80
    assert sorted(names[key] for key in names if not name(key[1], docks[key[0]])) == []
    assert sorted(names[key] for key in off if "" in off[key]) == []
    assert sorted(names[key] for key in on.keys() & off.keys() if on[key] & off[key]) == []
    unwritten = [key for key in on if not isinstance(key[1], (QAbstractButton, QAbstractItemView))]
    assert "; ".join(sorted(names[key] for key in unwritten if "" in on[key])) == ""


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
            lines, tables = panel.body.findChildren(QLineEdit), panel.body.findChildren(QTableWidget)
            sizes = {widget.font().pointSize() for widget in [*lines, *tables, *(t.horizontalHeader() for t in tables)]}
            assert sizes <= {before + 4}, name
            numbers = [slider._label for slider in panel.body.findChildren(QLabeledDoubleSlider)]
            cut = [x for x in numbers if x.width() < x.fontMetrics().horizontalAdvance(x.text())]
            assert [x.text() for x in cut] == [], name
    finally:
        appearance.font_size = before
