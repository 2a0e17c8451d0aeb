"""Documents, atomic writes and the lock."""

from __future__ import annotations

import os

import pytest

from napari_histodistill.study.files import StudyError, read_document, write_atomically, write_document


def test_a_document_comes_back(tmp_path):
    write_document(tmp_path / "a.json", "thing", 1, {"x": [1, 2]})
    assert read_document(tmp_path / "a.json", "thing", 1)["x"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "does not exist"),
        ("{", "cannot be read"),
        ("[]", "no thing file"),
        ('{"format": "other", "version": 1}', "no thing file"),
        ('{"format": "thing"}', "no valid version"),
        ('{"format": "thing", "version": 2}', "newer napari-histodistill"),
    ],
)
def test_a_bad_document_is_refused_in_a_sentence(tmp_path, text, says):
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises(StudyError, match=says):
        read_document(tmp_path / "a.json", "thing", 1)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudyError, match="No space left on device"):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_not_a_number_never_gets_into_a_document(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_document(tmp_path / "a.json", "thing", 1, {"x": float("nan")})
