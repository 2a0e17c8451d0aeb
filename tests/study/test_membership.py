"""Slides taken out of a study and put back, and slides that were moved, found again by content."""

from __future__ import annotations

import pytest
from PIL import Image

from napari_histodistill.slide import Slide, open_slide
from napari_histodistill.slide.fingerprint import fingerprint
from napari_histodistill.slide.synthetic import draw_slide, write_slide
from napari_histodistill.study import (
    FileLock,
    SlideLabel,
    Study,
    StudyError,
    StudySlide,
    relink_from,
    relink_slide,
    remove_slide,
    removed_slides,
    restore_slide,
)
from napari_histodistill.study.thumbnail import NAME, thumbnail_of


@pytest.fixture
def slides(tmp_path):
    """Two slides of which a study knows."""
    folder = tmp_path / "slides"
    folder.mkdir()
    study = Study.create(tmp_path / "study")
    for seed in (1, 2):
        write_slide(draw_slide((256, 384), seed=seed), folder / f"{seed}.tiff")
        with open_slide(folder / f"{seed}.tiff") as slide:
            study.add_slide(slide)
    return study.slides()


def test_a_slide_taken_out_is_kept_aside_and_comes_back_whole(study, entry):
    (entry.folder / "work").write_text("hours")
    aside = remove_slide(entry.folder)
    assert study.slides() == []
    assert removed_slides(study) == [aside]
    assert aside.parent == study.folder / "removed"
    back = restore_slide(aside)
    assert back.folder == entry.folder
    assert (back.folder / "work").read_text() == "hours"
    assert removed_slides(study) == []


def test_a_slide_taken_out_twice_is_kept_twice(study, entry, fake_slide):
    first = remove_slide(entry.folder)
    again = study.add_slide(fake_slide)
    with pytest.raises(StudyError, match="again"):
        restore_slide(first)
    second = remove_slide(again.folder)
    assert {first, second} == set(removed_slides(study))
    assert restore_slide(second).folder == entry.folder


def test_a_slide_that_came_back_by_another_name_is_not_there_twice(slides, tmp_path):
    study, one = Study(slides[0].folder.parents[1]), slides[0]
    aside = remove_slide(one.folder)
    with open_slide(one.known_path.rename(tmp_path / "renamed.tiff")) as slide:
        again = study.add_slide(slide)
    with pytest.raises(StudyError, match=f"holds {again.folder.name} again"):
        restore_slide(aside)
    remove_slide(again.folder)
    assert restore_slide(aside).fingerprint == again.fingerprint


@pytest.mark.parametrize("lock", ["distill", "slide", "predictions", "corrections", "audit"])
def test_a_slide_that_is_worked_on_is_not_taken_out(study, entry, lock):
    folder = study.folder if lock == "distill" else entry.folder
    with FileLock(folder / f"{lock}.lock", "It"), pytest.raises(StudyError, match="in use"):
        remove_slide(entry.folder)
    assert entry.folder.exists()


def test_a_slide_is_relinked_by_content_and_another_one_refused(slides, tmp_path):
    one, two = slides
    new = one.known_path.rename(tmp_path / "renamed.tiff")
    with pytest.raises(StudyError, match="another slide than 1"):
        relink_slide(one, two.known_path)
    with pytest.raises(StudyError, match="cannot be read"):
        relink_slide(one, tmp_path / "nothing.tiff")
    relink_slide(one, new)
    assert Study.open(one.folder.parents[1]).slide(fingerprint(new)).known_path == new


def test_a_label_that_was_set_while_a_slide_was_looked_for_stays(slides, tmp_path, recorder):
    for number, entry in enumerate(slides):
        entry.known_path.rename(tmp_path / f"{number}.tiff")
        now = StudySlide.open(entry.folder)
        now.label = SlideLabel.TUMOUR
        now.save()
    relink_slide(slides[0], tmp_path / "0.tiff")
    relink_from(tmp_path, slides[1:], recorder)
    found = [StudySlide.open(entry.folder) for entry in slides]
    assert [(one.label, one.is_there) for one in found] == [(SlideLabel.TUMOUR, True)] * 2


def test_moved_slides_are_found_in_a_folder_whatever_they_are_called(slides, tmp_path, recorder):
    deep = tmp_path / "archive" / "2026"
    deep.mkdir(parents=True)
    (deep / "notes.txt").write_text("no slide")
    (deep / "broken.tiff").symlink_to(tmp_path / "nowhere")
    (deep / "0.tiff").write_bytes(b"no slide either")
    moved = slides[0].known_path.rename(deep / "b.tiff")
    slides[1].known_path.unlink()
    found = relink_from(tmp_path / "archive", slides, recorder)
    assert [entry.folder for entry in found] == [slides[0].folder]
    study = Study.open(slides[0].folder.parents[1])
    assert study.slide(slides[0].fingerprint).known_path == moved
    assert study.slide(slides[1].fingerprint).known_path == slides[1].known_path
    assert recorder.checks


def test_a_study_seems_to_hold_what_it_holds(slides):
    study = Study(slides[0].folder.parents[1])
    assert study.holds(slides[0].fingerprint)
    assert not study.holds("0" * 32)


def test_a_thumbnail_is_small_kept_and_made_anew_when_damaged(slides):
    one = slides[0]
    picture = thumbnail_of(one)
    assert picture.shape == (85, 128, 3)
    assert (thumbnail_of(one) == picture).all()
    (one.folder / NAME).write_bytes(b"damaged")
    assert (thumbnail_of(one) == picture).all()
    one.known_path.unlink()
    assert (thumbnail_of(one) == picture).all()  # what is kept is shown though the slide has moved
    (one.folder / NAME).unlink()
    assert thumbnail_of(one) is None


def test_a_thumbnail_that_takes_reading_a_whole_slide_waits(slides, monkeypatch):
    monkeypatch.setattr(Slide, "_is_quick", lambda *_: False)
    assert thumbnail_of(slides[0]) is None
    assert not (slides[0].folder / NAME).exists()


@pytest.mark.parametrize("content", ["huge", "damaged", "another format"])
def test_a_picture_that_is_not_one_of_ours_is_made_anew(slides, content):
    path = slides[0].folder / NAME
    picture = Image.new("RGB", (5000, 4000) if content == "huge" else (10, 10))
    picture.save(path, "JPEG" if content == "another format" else "PNG")
    if content == "damaged":
        path.write_bytes(path.read_bytes()[:40])
    assert thumbnail_of(slides[0]).shape == (85, 128, 3)


def test_a_slide_in_a_closed_folder_has_no_picture(slides, monkeypatch):
    def closed(*_: object, **__: object) -> bool:
        raise PermissionError("closed")

    monkeypatch.setattr(type(slides[0].known_path), "exists", closed)
    assert not slides[0].is_there
    assert thumbnail_of(slides[0]) is None
