"""The first look at a student: of the right block, in the right colours, saved nowhere."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_histodistill.distill import Preview
from napari_histodistill.distill.preview import Previewer
from napari_histodistill.nets import read_card

from .conftest import DARK, MARK_ON_GRID

STUDENT = SimpleNamespace(
    predict=lambda images: (np.abs(images - DARK.astype(float)).sum(-1) < 60).astype(np.float32),
)


@pytest.fixture
def before(marked):
    return {path: path.stat().st_mtime_ns for path in marked.folder.rglob("*")}


def test_what_the_student_says_is_shown_where_it_says_it(marked, recorder, before):
    previewer = Previewer(marked.entry, marked.card, None, 3, recorder)
    previewer(STUDENT)
    previewer(STUDENT)
    first, second = recorder.payloads
    assert isinstance(first, Preview)
    assert (first.fingerprint, first.round, first.epoch, second.epoch) == (marked.entry.fingerprint, 3, 1, 2)
    shown = np.zeros(marked.entry.grid.shape, np.uint8)
    height, width = first.probability.shape
    shown[first.y : first.y + height, first.x : first.x + width] = first.probability
    expected = np.zeros(shown.shape, bool)
    expected[MARK_ON_GRID] = True
    expected[:, 512:] = False  # the other block
    np.testing.assert_array_equal(shown > 127, expected)
    assert {path: path.stat().st_mtime_ns for path in marked.folder.rglob("*")} == before


@pytest.mark.parametrize(("center", "x"), [((100.0, 100.0), 0), ((100.0, 2390.0), 512), (None, 0)])
def test_the_block_is_the_one_in_view(marked, recorder, center, x):
    Previewer(marked.entry, marked.card, center, 1, recorder)(STUDENT)
    assert recorder.payloads[0].x == x


def test_blocks_without_tissue_are_not_looked_at(marked, recorder):
    tissue = np.zeros((200, 300), np.uint8)
    tissue[:, 280:] = 1
    marked.entry.save_tissue(tissue, settings={})
    Previewer(marked.entry, marked.card, (100.0, 100.0), 1, recorder)(STUDENT)
    assert recorder.payloads[0].x == 512
    marked.entry.save_tissue(np.zeros((200, 300), np.uint8), settings={})
    Previewer(marked.entry, marked.card, (100.0, 2000.0), 1, recorder)(STUDENT)
    assert recorder.payloads[1].x == 0  # no tissue at all: any block


def test_the_student_sees_the_colours_that_its_teacher_sees(marked, recorder):
    seen = []

    def predict(images):
        seen.append(images.copy())
        return np.zeros(images.shape[:3], np.float32)

    for card in (marked.card, replace(read_card("bundled"), mpp=1.0)):
        Previewer(marked.entry, card, None, 1, recorder)(SimpleNamespace(predict=predict))
    assert seen[0].shape == seen[1].shape
    assert np.abs(seen[0].astype(int) - seen[1]).mean() > 3
