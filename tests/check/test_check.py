"""A check says exactly what of a study is damaged, a repair brings the rest back, and neither ever deletes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from make_study_fixture import fill
from napari_histodistill.check import CheckRequest, check_study
from napari_histodistill.cli import main
from napari_histodistill.distill.rounds import Rounds
from napari_histodistill.jobs import InlineControl
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study import (
    NO_CORRECTION,
    Audit,
    AuditPatch,
    Corrections,
    FileLock,
    Pyramid,
    RunState,
    SlideLabel,
    Study,
    StudyError,
    StudySlide,
)
from napari_histodistill.study.audit import write_audit
from napari_histodistill.study.files import NewerError, read_one_document, write_document
from napari_histodistill.study.locks import Holder
from napari_histodistill.study.review import change_seen

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from damage import DAMAGES, check, damage, files_of, holdings

RELEASED = sorted((Path(__file__).parents[1] / "data" / "studies").glob("*.zip"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A small study with everything in it; not to be written to."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    fill(folder)
    return folder


@pytest.fixture
def study(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "study")


@pytest.fixture
def slide(study) -> Path:
    (slide,) = (study / "slides").iterdir()
    return slide


def spoil(path: Path) -> None:
    """Damage the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Whole studies


@pytest.mark.parametrize("archive", RELEASED, ids=lambda path: path.stem)
def test_a_study_of_every_released_format_opens_is_sound_and_goes_on(archive, tmp_path):
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "study")
    assert check(tmp_path / "study").findings == []
    (entry,) = Study.open(tmp_path / "study").slides()
    assert (entry.label, entry.grid.shape) == (SlideLabel.TUMOUR, (400, 600))
    expected = np.full((400, 600), NO_CORRECTION, np.uint8)
    expected[10:50, 20:80], expected[300:350, 500:550] = TUMOUR, IGNORE
    np.testing.assert_array_equal(entry.all_corrections()[:], expected)
    for run in (entry.run, entry.prediction("0001-0001")):
        assert run.record.state is RunState.COMPLETE
        assert run.pseudo_mask.levels[0][150, 200] == TUMOUR
    assert entry.tissue().mask.all()
    rounds = Rounds.open(tmp_path / "study" / "distillations" / "0001")
    assert (rounds.roles.best, len(rounds.rounds)) == ("rounds/1", 1)
    entry.save_corrections_region(100, 100, np.full((3, 3), NORMAL, np.uint8))
    entry.save()
    rounds.take(0)
    expected[100:103, 100:103] = NORMAL
    np.testing.assert_array_equal(entry.all_corrections()[:], expected)
    assert check(tmp_path / "study").findings == []


def test_a_sound_study_is_sound_and_a_check_writes_nothing(study):
    before = names(study)
    report = check(study)
    assert (report.findings, report.sound) == ([], True)
    assert report.files > 40
    assert names(study) == before


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_damaged_is_told_and_repaired_or_its_loss_is_told(study, seed):
    rng = random.Random(seed)
    before = holdings(study)
    path = rng.choice(files_of(study))
    if not damage(path, rng.choice(DAMAGES), rng):
        return
    report, changed = check(study), holdings(study) != before
    assert report.damaged or not changed
    repaired = check(study, repair=True)
    assert all(finding.repaired for finding in repaired.damaged)
    assert check(study).damaged == []
    assert holdings(study) == before or any(finding.lost for finding in repaired.damaged)


def test_many_damages_at_once_leave_a_study_that_opens(study):
    rng = random.Random(3)
    for path in rng.sample(files_of(study), 12):
        damage(path, rng.choice(DAMAGES), rng)
    report = check(study, repair=True)
    assert report.damaged
    assert Path(report.aside).is_dir()
    assert check(study).damaged == []
    assert not isinstance(holdings(study)["slides"], str)


@pytest.mark.parametrize("name", ["study.json", "slides/*/slide.json", "slides/*/runs/0001/run.json"])
def test_a_newer_version_is_refused_with_a_sentence(study, name):
    (path,) = study.glob(name)
    document = json.loads(path.read_text()) | {"version": 99}
    del document["crc32"]
    path.write_text(json.dumps(document))
    with pytest.raises(NewerError, match=r"newer napari-histodistill .*update"):
        check(study, repair=True)


# Its parts


def test_a_damaged_document_is_read_from_its_copy_and_put_back(study, slide):
    (slide / "slide.json").write_text((slide / "slide.json").read_text().replace('"tumour"', '"normal"'))
    assert Study.open(study).slides()[0].label is SlideLabel.TUMOUR
    report = check(study, repair=True)
    (finding,) = report.damaged
    assert "its checksum differs" in finding.problem
    assert report.sound
    assert read_one_document(slide / "slide.json", "histodistill-slide", 1)["label"] == "tumour"
    assert '"normal"' in next(Path(report.aside).rglob("slide.json")).read_text()


AN_AUDIT = Audit(1, 66, "", (50, 50), (AuditPatch(10, 20, 22, 22, 0, 100),), (0,), 1)


def test_an_audit_comes_back_from_its_copy_and_without_one_its_loss_is_told(study, slide):
    write_audit(slide, AN_AUDIT)
    spoil(slide / "audit.json")
    assert check(study, repair=True).sound
    for name in ("audit.json", "audit.json.copy"):
        spoil(slide / name)
    assert check(study, repair=True).damaged[0].lost.startswith("the audit")
    assert not (slide / "audit.json").exists()


@pytest.mark.parametrize("name", ["audit.json", "audit.json.copy"])
def test_a_damaged_document_is_told_once_with_what_is_wrong_and_no_advice_cut_short(study, slide, name):
    write_audit(slide, AN_AUDIT)
    path = slide / name
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 7'))
    (finding,) = check(study).findings
    assert finding.problem == "is not as it was written (its checksum differs)"


@pytest.mark.parametrize(
    "changed",
    [
        {"patches": [{**asdict(AN_AUDIT.patches[0]), "y": 390}]},  # the grid has 400 rows
        {"patches": [{**asdict(AN_AUDIT.patches[0]), "labels": "AAAA"}]},
        {"order": [1]},
        {"order": [-1]},
        {"drawn": 2},
        {"sizes": [50, -1]},
        {"square": 0},
        {"seed": "1"},
        {"created": 3},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_an_audit_that_says_what_cannot_be_is_damage_and_its_copy_counts(study, slide, changed):
    write_audit(slide, AN_AUDIT)
    path = slide / "audit.json"
    sound = path.read_bytes()
    document = json.loads(sound)
    content = {key: value for key, value in document.items() if key not in {"format", "version", "crc32"}}
    write_document(path, document["format"], document["version"], content | changed)  # its checksum fits
    assert "says what cannot be" in check(study).damaged[0].problem
    with pytest.raises(StudyError, match="--repair"):
        Study.open(study).slides()[0].audit()
    assert check(study, repair=True).sound
    assert path.read_bytes() == sound
    write_document(path, document["format"], document["version"], content | changed, copy=True)
    assert check(study, repair=True).damaged[0].lost.startswith("the audit")
    assert not path.exists()


@pytest.mark.parametrize("place", [[-1.0, 0.0], [0.0, 1e9], [1e999, 0.0], ["a", 0.0], [0.0]], ids=str)
def test_places_that_were_seen_lie_on_the_slide(study, slide, place):
    change_seen(slide, lambda seen: seen.with_skipped((1.0, 2.0)))
    assert check(study).findings == []
    text = (slide / "review.json").read_text()
    document = json.loads(text) | {"skipped": [place]}
    del document["crc32"]
    (slide / "review.json").write_text(json.dumps(document).replace("Infinity", "1e999"))
    (slide / "review.json.copy").unlink()
    report = check(study, repair=True)
    assert report.damaged[0].lost == "which places a person has seen"
    assert check(study).findings == []


def test_a_slide_whose_record_is_lost_is_found_again_when_it_is_opened(study, slide):
    for name in ("slide.json", "slide.json.copy"):
        (slide / name).write_text("{")
    with pytest.raises(StudyError, match=r"histodistill check .* --repair"):
        Study.open(study).slides()
    report = check(study, repair=True)
    assert "label" in report.damaged[0].lost
    assert not report.sound
    assert Study.open(study).slides() == []
    from make_study_fixture import _Slide

    entry = Study.open(study).add_slide(_Slide(Path("/elsewhere/small.tiff")), target_mpp=2.0)
    assert entry.folder == slide
    assert (entry.all_corrections()[10:50, 20:80] == TUMOUR).all()


def test_strokes_that_only_the_array_still_holds_are_kept_in_a_new_journal(study, slide):
    (entry,) = Study.open(study).slides()
    before = entry.all_corrections()
    before.compact()
    expected = before[:]
    journal = slide / "corrections.journal"
    data = bytearray(journal.read_bytes())
    data[60] ^= 1  # in the first stroke
    journal.write_bytes(data)
    report = check(study, repair=True)
    assert "stretch" in report.damaged[0].problem
    assert next(Path(report.aside).rglob("corrections.journal")).read_bytes() == data
    after = Study.open(study).slides()[0].all_corrections()
    np.testing.assert_array_equal(after[:], expected)
    assert [entry.tool for entry in after.entries().entries] == ["lasso", "recovered"]
    assert check(study).findings == []


def test_a_chunk_of_corrections_that_is_gone_is_made_from_the_journal(study, slide):
    (entry,) = Study.open(study).slides()
    entry.all_corrections().compact()
    expected = entry.all_corrections()[:]
    (slide / "corrections.ome.zarr" / "0" / "c" / "0" / "0").unlink()
    assert (entry.all_corrections()[:] != expected).any()
    assert check(study, repair=True).sound
    np.testing.assert_array_equal(entry.all_corrections()[:], expected)


def test_a_study_that_is_painted_on_while_it_is_checked_is_sound(study, slide, monkeypatch):
    plain = Corrections.unsound_tiles

    def meanwhile(corrections: Corrections) -> list[tuple[int, int, int, int]]:
        read = corrections.entries

        def then_painted():
            scan = read()
            monkeypatch.setattr(corrections, "entries", read)
            other = StudySlide.open(slide)
            other.save_corrections_region(0, 0, np.full((9, 9), IGNORE, np.uint8))
            other.all_corrections().compact()
            return scan

        monkeypatch.setattr(corrections, "entries", then_painted)
        return plain(corrections)

    monkeypatch.setattr(Corrections, "unsound_tiles", meanwhile)
    assert check(study).damaged == []


def test_a_lost_piece_of_a_result_counts_as_unreadable_and_the_mask_follows(study, slide):
    spoil(slide / "runs" / "0001" / "probability.ome.zarr" / "0" / "c" / "0" / "0")
    report = check(study, repair=True)
    assert "65536 px" in report.damaged[0].lost
    run = Study.open(study).slides()[0].run
    assert run.record.unreadable == [(0, 0, 256, 256)]
    mask = run.pseudo_mask.levels[0][:]
    assert (mask[:256, :256] == OUTSIDE).all()
    assert (mask[256:, :] == NORMAL).all()
    assert check(study).damaged == []


def test_a_result_with_damage_in_several_levels_is_mended_and_what_was_lost_stays_told(study, slide, monkeypatch):
    pyramid = slide / "runs" / "0001" / "probability.ome.zarr"
    for level in "01":
        spoil(pyramid / level / "c" / "0" / "0")

    def ended(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pyramid, "reduce", ended)
        with pytest.raises(KeyboardInterrupt):
            check(study, repair=True)
    check(study, repair=True)
    run = Study.open(study).slides()[0].run
    assert run.record.unreadable == [(0, 0, 256, 256)]
    fine, coarse = (level[:] for level in run.probability.levels[:2])
    assert (fine[:256, :256] == 0).all()
    assert (coarse[:128, :128] == 0).all()
    assert check(study).findings == []


@pytest.mark.parametrize("length", range(6))
def test_a_chunk_that_was_cut_off_within_its_head_is_damage(study, slide, length):
    chunk = slide / "runs" / "0001" / "probability.ome.zarr" / "0" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:length])
    assert [finding.path for finding in check(study).damaged] == [f"slides/{slide.name}/runs/0001/probability.ome.zarr"]


@pytest.mark.parametrize(
    "record", ["slides/*/slide.json", "slides/*/runs/0001/run.json", "distillations/0001/state.json"]
)
def test_a_record_of_which_only_the_copy_is_there_is_told_and_put_back(study, record):
    (path,) = study.glob(record)
    before = path.read_bytes()
    path.unlink()
    report = check(study)
    where = path.relative_to(study)
    assert [finding.path for finding in report.damaged] == [str(where)]
    assert [finding.path for finding in report.unchecked] == [str(where.parent)]
    assert check(study, repair=True).sound
    assert path.read_bytes() == before
    assert check(study).findings == []


def test_a_damaged_mask_is_computed_anew(study, slide):
    (entry,) = Study.open(study).slides()
    before = entry.pseudo_mask()[:]
    mask = slide / "runs" / "0001" / "pseudo-mask.ome.zarr"
    spoil(mask / "0" / "c" / "0" / "2")
    spoil(mask / "zarr.json")
    assert check(study, repair=True).sound
    np.testing.assert_array_equal(entry.pseudo_mask()[:], before)


def test_a_damaged_mask_stays_where_it_is_if_there_is_no_tissue_to_make_it_anew(study, slide):
    mask = slide / "runs" / "0001" / "pseudo-mask.ome.zarr"
    spoil(mask / "0" / "c" / "0" / "2")
    spoil(slide / "tissue.ome.zarr" / "0" / "c" / "0" / "0")
    assert not check(study, repair=True).sound
    assert (mask / "0" / "c" / "0" / "2").exists()
    assert (mask / "zarr.json").exists()


def test_a_state_that_is_lost_is_made_anew_from_lines_and_models(study):
    folder = study / "distillations" / "0001"
    before = Rounds.open(folder)
    (folder / "state.json.copy").unlink()
    (folder / "state.json").write_text('{"format": "histodistill-rounds"')
    with pytest.raises(StudyError, match=rf"histodistill check {study} --repair"):
        Rounds.open(folder)
    report = check(study, repair=True)
    assert "a person had chosen" in report.damaged[0].lost
    after = Rounds.open(folder)
    assert (after.rounds, after.roles.best, after.roles.score) == (before.rounds, "rounds/1", 0.7)
    assert check(study).damaged == []


def test_a_damaged_model_comes_back_from_where_the_same_lies(study):
    folder = study / "distillations" / "0001"
    spoil(folder / "rounds" / "1" / "model.safetensors")
    assert check(study, repair=True).sound  # the best model is there twice
    for path in (folder / "model.safetensors", folder / "rounds" / "1" / "model.json", folder / "model.json"):
        spoil(path)
    (folder / "teacher" / "model.json").write_text("{}")  # it was the same model
    report = check(study, repair=True)
    assert not report.sound
    assert any("the model" in finding.lost for finding in report.damaged)


def test_of_lost_models_the_roles_let_go(study):
    folder = study / "distillations" / "0001"
    card = json.loads((folder / "teacher" / "model.json").read_text())
    (folder / "teacher" / "model.json").write_text(json.dumps(card, indent=2))  # another file from now on
    rounds = Rounds.open(folder)
    rounds.checksums = {}
    rounds.save()
    shutil.rmtree(folder / "rounds" / "1")
    for name in ("model.json", "model.safetensors"):
        (folder / name).unlink()
    report = check(study, repair=True)
    assert [finding.lost for finding in report.damaged if finding.lost] == ["the model rounds/1"]
    assert Rounds.open(folder).roles.best == "teacher"
    assert check(study).damaged


def test_a_round_under_way_that_cannot_go_on_begins_anew(study):
    folder = study / "distillations" / "0001"
    (folder / "checkpoint.pt").write_bytes(b"PK nothing")
    report = check(study, repair=True)
    assert report.damaged[0].lost.startswith("the epochs")
    assert not (folder / "checkpoint.pt").exists()


def test_what_an_interruption_leaves_is_no_damage(study, slide):
    (slide / ".slide.json.abc.partial").write_bytes(b"{")
    os.utime(slide / ".slide.json.abc.partial", (1e9, 1e9))
    (slide / "predictions" / "0001-0002" / "probability.ome.zarr").mkdir(parents=True)
    (study / "distillations" / "0002" / "teacher").mkdir(parents=True)
    (slide / "corrections.journal").open("ab").write(b"\x89HDS\x10")
    report = check(study, repair=True)
    assert report.sound
    assert len(report.findings) == 4
    assert all(finding.harmless for finding in report.findings)
    assert not (slide / ".slide.json.abc.partial").exists()


def test_a_copy_that_a_full_disk_left_behind_is_brought_up_to_date(study, slide):
    (entry,) = Study.open(study).slides()
    older = (slide / "slide.json.copy").read_bytes()
    entry.label = SlideLabel.NORMAL
    entry.save()
    (slide / "slide.json.copy").write_bytes(older)
    report = check(study, repair=True)
    assert [(finding.path.rpartition("/")[2], finding.harmless) for finding in report.findings] == [
        ("slide.json.copy", True)
    ]
    (slide / "slide.json").write_text("{")
    assert Study.open(study).slides()[0].label is SlideLabel.NORMAL
    assert check(study, repair=True).sound
    assert check(study).findings == []


@pytest.mark.parametrize("where", [".slide.json.abc.partial", "exports/.partial-mask.ome.zarr/0/c/0"])
def test_what_may_be_being_written_at_this_moment_is_left_alone_and_told(study, slide, where):
    path = slide / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"{")
    left = slide / "/".join(where.split("/")[: 1 + where.count("partial-")])
    report = check(study, repair=True)
    (finding,) = report.findings
    assert finding.path == left.relative_to(study).as_posix()
    assert "left alone" in finding.remedy
    assert (report.sound, path.exists()) == (True, True)
    for one in (left, *left.rglob("*")):
        os.utime(one, (time.time() - 600,) * 2)
    assert check(study, repair=True).findings[0].repaired
    assert not left.exists()


# Links, and what may not be read


@pytest.mark.parametrize("where", ["exports", "runs/0001/probability.ome.zarr/0/c/9", "runs/0001/more"])
def test_a_link_in_a_slide_is_told_and_the_check_goes_on(study, slide, tmp_path, where):
    (slide / where).symlink_to(tmp_path / "elsewhere")
    (study / "distillations" / "0001" / "checkpoint.pt").write_bytes(b"PK nothing")
    report = check(study, repair=True)
    (finding,) = report.unchecked
    assert "is a link" in finding.problem
    assert [one.path for one in report.damaged] == ["distillations/0001/checkpoint.pt"]
    assert report.damaged[0].repaired
    assert not report.sound
    assert (slide / where).is_symlink()
    assert CliRunner().invoke(main, ["check", str(study)]).exit_code == 2


def test_a_link_in_the_place_of_a_slide_is_told_and_nothing_is_written_where_it_leads(study, slide, tmp_path):
    shutil.copytree(slide, tmp_path / "other")
    for lock in (tmp_path / "other").glob("*.lock"):
        lock.unlink()
    (study / "slides" / "other").symlink_to(tmp_path / "other")
    before = names(tmp_path / "other")
    assert [finding.path for finding in check(study, repair=True).unchecked] == ["slides/other"]
    assert names(tmp_path / "other") == before


@pytest.mark.parametrize("name", ["removed", "damaged", "slides", "distillations"])
def test_a_link_that_leads_out_of_the_study_is_refused_before_anything_is_written(study, tmp_path, name):
    (tmp_path / "outside").mkdir()
    if (study / name).exists():
        (study / name).rename(study / "kept")
    (study / name).symlink_to(tmp_path / "outside")
    with pytest.raises(StudyError, match=f"{name} is a link"):
        check(study, repair=True)
    if name != "damaged":
        with pytest.raises(StudyError, match=f"{name} is a link"):
            Study.open(study)


CLOSED = """
import os, sys
sys.path[:] = {path!r}
from pathlib import Path
from click.testing import CliRunner
from napari_histodistill.check import CheckRequest, check_study
from napari_histodistill.cli import main
from napari_histodistill.jobs import InlineControl
from napari_histodistill.study import Study
study = Path({study!r})
CliRunner().invoke(main, ["check", str(study)])  # loads what the next user may not be able to read
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
result = CliRunner().invoke(main, ["check", str(study)])
print(result.exit_code, result.stdout, result.stderr)
"""


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="closes files to another user")
@pytest.mark.parametrize(
    ("closed", "said"),
    [
        ("slides/*/slide.json", "slide.json: may not be read by you"),
        ("slides/*/runs/0001/probability.ome.zarr/0/c/0/0", "c/0/0: may not be read by you"),
        ("slides/*/slide.lock", "slide.lock: may not be read by you"),
        ("slides", "slides: may not be read by you"),
        ("study.json", "study.json may not be read by you"),
    ],
)
def test_what_may_not_be_read_is_no_damage(study, closed, said):
    Study.open(study).slides()[0].lock().acquire()
    shutil.copytree(study, public := Path("/var/tmp") / f"histodistill-check-{os.getpid()}")
    try:
        subprocess.run(["chmod", "-R", "a=rX", str(public)], check=True)
        (path,) = public.glob(closed)
        path.chmod(0)
        code = CLOSED.format(path=sys.path, study=str(public))
        environment = {**os.environ, "HOME": "/nonexistent"}
        told = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
        assert said in told.stdout
        assert told.stdout.startswith("2 ")
        assert "--repair" not in told.stdout
    finally:
        path.chmod(0o700)
        shutil.rmtree(public)


# Locks


@pytest.mark.skipif(sys.platform == "win32", reason="asks whether a process runs")
@pytest.mark.parametrize("name", ["corrections.lock", "audit.lock", "review.lock"])
def test_a_lock_that_is_held_for_a_moment_can_be_broken_too(study, slide, name):
    with FileLock(slide / name, "It") as lock:
        lock.path.write_text(json.dumps({"pid": 7, "host": "lab7", "since": "2026-01-02T03:04:05+00:00"}))
        check_study(CheckRequest(study, break_lock=True), InlineControl())
        with FileLock(slide / name, "It"):
            assert Holder.read(lock.path).runs


def test_a_lock_of_a_computer_that_is_gone_can_be_broken_and_one_of_a_running_process_not(study):
    lock = Study.open(study).distillation_lock()
    with lock:
        with pytest.raises(StudyError, match="in use by process"):
            check(study, repair=True)
        assert "held by process" in check(study).held[0]
        breaking = CheckRequest(study, break_lock=True)
        with pytest.raises(StudyError, match="end it instead"):
            check_study(breaking, InlineControl())
        lock.path.write_text(json.dumps({"pid": 7, "host": "lab7", "since": "2026-01-02T03:04:05+00:00"}))
        assert Holder.read(lock.path).host == "lab7"
        report = check_study(breaking, InlineControl())
        assert "lab7" in report.held[0]
        with Study.open(study).distillation_lock():
            assert Holder.read(lock.path).runs


# The command


def test_the_command_says_what_it_found_a_line_each_and_its_exit_code_tells(study, slide):
    run = CliRunner().invoke
    result = run(main, ["check", str(study)])
    assert (result.exit_code, "0 found damaged" in result.stdout) == (0, True)
    spoil(slide / "tissue.ome.zarr" / "0" / "c" / "0" / "0")
    result = run(main, ["check", str(study), "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["damaged"], found["sound"]) == (1, 1, False)
    assert found["findings"][0]["lost"].startswith("the tissue mask")
    assert run(main, ["check", str(study), "--repair"]).exit_code == 1
    assert run(main, ["check", str(study)]).exit_code == 0
    result = run(main, ["check", str(study / "slides")])
    assert (result.exit_code, "holds no study" in result.stderr) == (2, True)


def test_checking_loads_no_torch():
    code = "import sys, napari_histodistill.check; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
