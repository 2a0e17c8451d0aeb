"""Documents, atomic writes and the lock."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from napari_histodistill.study import files
from napari_histodistill.study.files import (
    DamagedError,
    ForbiddenError,
    StudyError,
    read_document,
    write_atomically,
    write_document,
)


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


@pytest.mark.skipif(sys.platform == "win32", reason="has no such rights")
def test_documents_may_be_read_by_whoever_may_read_other_files(tmp_path):
    write_document(tmp_path / "a.json", "thing", 1, {}, copy=True)
    (tmp_path / "plain").write_text("")
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "plain").stat().st_mode}


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    write_document(tmp_path / "a.json", "thing", 1, {})

    def closed(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", closed)
    with pytest.raises(ForbiddenError, match=r"may not be read by you") as refused:
        read_document(tmp_path / "a.json", "thing", 1)
    assert not isinstance(refused.value, DamagedError)


def test_windows_lets_a_file_be_replaced_once_nobody_reads_it(tmp_path, monkeypatch):
    plain, refusals = Path.replace, iter([True] * 3)

    def replace(path, target):
        if next(refusals, False):
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        return plain(path, target)

    monkeypatch.setattr(files.sys, "platform", "win32")
    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert files.check_command(Path("C:/two words")).endswith('"C:/two words"')


@pytest.mark.skipif(sys.platform == "win32", reason="syncs no folders")
def test_a_file_system_that_cannot_sync_folders_will_do(tmp_path, monkeypatch):
    plain = os.fsync

    def only_files(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        plain(handle)

    monkeypatch.setattr(os, "fsync", only_files)
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
