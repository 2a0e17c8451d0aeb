"""The audit on disk: what is kept, which squares it holds, two writers, damage; and places that were seen."""

from __future__ import annotations

import base64
import json
import threading
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.study import Audit, AuditPatch, StudyError
from napari_histodistill.study.audit import AUDIT, FORMAT, VERSION, change_audit, square_side, write_audit
from napari_histodistill.study.files import read_document, write_document
from napari_histodistill.study.review import Seen, change_seen, read_seen


@pytest.fixture
def audit():
    """Three patches in squares of 100 px; the second was drawn twice, the third is one of those for more."""
    patches = (
        AuditPatch(110, 220, 34, 32, 1, 9000),
        AuditPatch(0, 0, 34, 34, 0, 500),
        AuditPatch(300, 300, 34, 34, 0, 10000),
    )
    return Audit(7, 100, "", (15000, 10000), patches, (0, 1, 1, 2), 3)


def test_an_audit_is_read_as_it_was_written(tmp_path, audit):
    assert AUDIT.read(tmp_path) is None
    labels = np.tile(np.arange(4, dtype=np.uint8), (34, 8))
    write_audit(tmp_path, audit.with_label(0, labels, "as shown"))
    again = AUDIT.read(tmp_path)
    np.testing.assert_array_equal(again.patches[0].labels, labels)
    assert (again.patches[0].how, again.patches[1].labels) == ("as shown", None)
    assert replace(again, patches=()).__dict__ == replace(audit, patches=()).__dict__
    document = json.loads((tmp_path / "audit.json").read_text())
    assert (document["format"], document["version"]) == ("histodistill-audit", 1)


def test_active_patches_come_once_and_in_order_and_more_can_be_had(audit):
    assert audit.active == [0, 1]
    more = audit.with_more(10, ("0001-0001",))
    assert (more.active, more.drawn, more.earlier) == ([0, 1, 2], 4, ("0001-0001",))
    assert audit.labelled == []
    assert audit.with_label(1, np.ones((34, 34), np.uint8), "all tumour").labelled == [1]


def test_labels_are_of_the_patchs_size_and_known_values(audit):
    with pytest.raises(ValueError, match="its size"):
        audit.with_label(0, np.ones((34, 34), np.uint8), "")
    with pytest.raises(ValueError, match="0 to 3"):
        audit.with_label(1, np.full((34, 34), 4, np.uint8), "")


def test_squares_of_active_patches_are_held_out_whole(audit):
    assert audit.squares == {(1, 2): 9000, (0, 0): 500}
    assert audit.held_share == pytest.approx(9500 / 25000)
    assert audit.touches(199, 299, 1, 1)
    assert audit.touches(150, 0, 10, 201)
    assert audit.touches(0, 0, 500, 500)
    assert not audit.touches(100, 0, 300, 200)
    assert not audit.touches(300, 300, 50, 50)


def test_the_labels_of_two_windows_both_stay(tmp_path, audit):
    write_audit(tmp_path, audit)
    ones = np.ones((34, 34), np.uint8)
    change_audit(tmp_path, lambda found: found.with_label(1, ones, "all tumour"))
    change_audit(tmp_path, lambda found: found.with_label(0, ones[:, :32], "all tumour"))
    assert AUDIT.read(tmp_path).labelled == [0, 1]


def test_an_audit_that_is_gone_damaged_or_newer_is_said_in_a_sentence(tmp_path, audit):
    with pytest.raises(StudyError, match="draw patches anew"):
        change_audit(tmp_path, lambda found: found)
    with pytest.raises(StudyError, match="no longer there"):
        write_audit(tmp_path / "gone", audit)
    write_audit(tmp_path, audit)
    path = tmp_path / "audit.json"
    document = json.loads(path.read_text())
    del document["crc32"]
    (tmp_path / "audit.json.copy").unlink()
    for change in ({"order": [9]}, {"patches": [{}]}, {"sizes": [1]}):
        path.write_text(json.dumps(document | change))
        with pytest.raises(StudyError, match="damaged"):
            AUDIT.read(tmp_path)
    path.write_text(json.dumps(document | {"version": 2}))
    with pytest.raises(StudyError, match="newer"):
        AUDIT.read(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": base64.b64encode(zlib.compress(bytes(1 << 24), 9)).decode()},
        {"labels": base64.b64encode(zlib.compress(bytes([9]) * (34 * 32))).decode()},
        {"height": 1 << 16},
        {"width": "32"},
        {"y": -1},
        {"stratum": 2},
    ],
    ids=["bomb", "unknown label", "huge", "text", "outside", "stratum"],
)
def test_an_audit_made_to_hurt_is_a_sentence_in_little_memory(tmp_path, audit, changed):
    write_audit(tmp_path, audit.with_label(0, np.ones((34, 32), np.uint8), "all tumour"))
    document = read_document(tmp_path / "audit.json", FORMAT, VERSION)
    document["patches"][0] |= changed
    for name in ("format", "version", "crc32"):
        del document[name]
    write_document(tmp_path / "audit.json", FORMAT, VERSION, document)
    tracemalloc.start()
    with pytest.raises(StudyError, match="is damaged"):
        AUDIT.read(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_squares_are_of_400_um():
    assert square_side((2.0, 2.0)) == 200
    assert square_side((3.01, 3.0)) == 133


def test_visited_places_open_again_with_another_prediction_skipped_ones_do_not(tmp_path):
    assert read_seen(tmp_path) == Seen()
    seen = Seen().with_visited("a", (1.0, 2.0)).with_visited("a", (3.0, 4.0)).with_skipped((3.0, 4.0))
    assert change_seen(tmp_path, lambda _before: seen) == seen
    again = read_seen(tmp_path)
    assert again == seen
    assert set(again.closed("a")) == {(1.0, 2.0), (3.0, 4.0)}
    assert again.closed("b") == ((3.0, 4.0),)
    assert again.with_skipped((3.0, 4.0)) == again.with_visited("a", (1.0, 2.0)) == again  # once
    assert again.with_visited("b", (5.0, 6.0)).visited == ((5.0, 6.0),)
    (tmp_path / "review.json.copy").unlink()
    (tmp_path / "review.json").write_text('{"format": "histodistill-review", "version": 1, "visited": 3}')
    with pytest.raises(StudyError, match="damaged"):
        read_seen(tmp_path)


def test_what_two_windows_have_seen_at_the_same_time_both_stays(tmp_path):
    barrier = threading.Barrier(2)

    def look(number):
        barrier.wait()
        for place in range(10):
            change_seen(tmp_path, lambda seen, at=(float(number), float(place)): seen.with_skipped(at))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(look, range(2)))
    assert sorted(read_seen(tmp_path).skipped) == [(float(i), float(j)) for i in range(2) for j in range(10)]
