"""Two windows on the corrections of one slide: on screen is what the study holds, and undo goes the same way."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.slide.labels import IGNORE, NORMAL, TUMOUR
from napari_histodistill.study import Study
from napari_histodistill.viewer.editing import EditableMask, window_of
from napari_histodistill.viewer.saving import CorrectionsSaver, read_corrections


class Window:
    """The corrections of a slide as one window shows and writes them."""

    def __init__(self, entry, runner):
        self.entry, self.runner = entry, runner
        held = read_corrections(entry)
        nothing = np.zeros(entry.grid.shape, np.uint8)
        self.mask = EditableMask(nothing, held.hand, zero_erases=True, undo=held.undo, redo=held.redo)
        self.saver = CorrectionsSaver(self.mask, entry, runner, held)

    def paint(self, y, value):
        """A square of 40 px."""
        self.mask.paint(window_of(y, 10, 40, 40), np.ones((40, 40), bool), value, "brush")
        self.mask.commit()

    def write(self):
        self.saver.flush()

    @property
    def tools(self):
        return [step.value for step in self.mask.undo_steps], [step.value for step in self.mask.redo_steps]

    def as_on_disk(self):
        """Whether a window that is opened now shows and undoes the same."""
        held = read_corrections(self.entry)
        same = [step.value for step in held.undo], [step.value for step in held.redo]
        return np.array_equal(held.hand, self.mask.hand) and same == self.tools


@pytest.fixture
def windows(slide, tmp_path, new_runner):
    """Two of them."""
    entry = Study.create(tmp_path / "study").add_slide(slide, target_mpp=2.0)
    return [Window(entry, new_runner()) for _ in range(2)]


def test_a_stroke_that_is_not_written_yet_lies_over_what_another_window_wrote_before(windows):
    here, there = windows
    here.paint(10, NORMAL)  # not written
    there.paint(30, TUMOUR)  # over its lower half
    there.write()
    here.write()
    assert here.mask.data[40, 20] == NORMAL
    assert here.mask.data[60, 20] == TUMOUR
    assert here.as_on_disk()
    here.mask.undo()
    here.write()
    assert here.as_on_disk()


def test_what_another_window_undoes_is_not_undone_here_again(windows):
    here, there = windows
    here.paint(10, NORMAL)
    here.paint(200, TUMOUR)
    here.write()
    there.write()
    there.saver.look()
    there.mask.undo()
    there.write()
    here.saver.look()
    assert here.tools == ([NORMAL], [TUMOUR])
    assert here.as_on_disk()
    here.mask.redo()
    here.paint(300, IGNORE)
    here.write()
    assert here.as_on_disk()
