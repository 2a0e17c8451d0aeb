"""The log and the report help to find an error and name no patient."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

from napari_histodistill import logs
from napari_histodistill.cli import main
from napari_histodistill.jobs import InlineControl, ThreadJob
from napari_histodistill.report import ReportRequest, make_report

logger = logging.getLogger("napari_histodistill.tests")
NAME = "Doe Jane B07-1234"


@pytest.fixture(autouse=True)
def own_log(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_LOG", str(tmp_path / "log"))
    monkeypatch.delenv("HISTODISTILL_LOG_LEVEL", raising=False)
    monkeypatch.setattr(logs, "_hidden", set())  # names of slides that other tests opened
    yield
    logs.start_log("error")  # closes the file


def written() -> str:
    return logs.log_file().read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        f"cannot read '/data/{NAME}/slide 7.svs'",
        f"cannot read /data/jane/{NAME.replace(' ', '_')}.ndpi: permission denied",
        f'OSError: [Errno 2] No such file: "C:\\\\scans\\\\{NAME}.tif"',
        f"\\\\\\\\server\\\\share\\\\{NAME.replace(' ', '')}",
        f"{NAME}.svs is damaged",
        f"study of {NAME}, round 2",
    ],
)
def test_nothing_that_names_a_slide_is_logged_at_the_default_level(text):
    logs.hide(f"/somewhere/{NAME}.svs")
    logs.start_log()
    logger.warning("%s", text)
    logger.debug("%s", text)
    assert "WARNING" in written()
    assert not [part for part in (*NAME.split(), "slide 7", "server") if part in written()]


def test_tracebacks_keep_modules_and_lines_and_lose_the_folders():
    logs.start_log()
    try:
        Path("/data/Jane/none.svs").read_text()
    except OSError:
        logger.exception("it failed")
    assert "FileNotFoundError" in written()
    assert "Jane" not in written()
    frame = 'File "/home/jane/env/lib/python3.12/site-packages/zarr/core/array.py", line 7, in get'
    assert logs.without_names(frame) == "File [zarr/core/array.py], line 7, in get"


def test_debug_holds_names_but_a_report_made_of_it_does_not():
    logs.start_log("debug")
    logger.info("begins")
    logger.debug("%s cannot be read\nand a second line about Jane", "/data/Jane/a.svs")
    logger.info("ends")
    assert "/data/Jane/a.svs" in written()
    report = make_report(ReportRequest({"model": "/models/Jane/mine"}), InlineControl(None))
    assert "Jane" not in report
    assert "begins" in report
    assert "ends" in report
    assert "torch: " in report


def test_a_full_file_is_put_aside_and_old_ones_go(monkeypatch):
    monkeypatch.setattr(logs, "LARGEST_FILE", 2000)
    logs.start_log()
    for number in range(200):
        logger.info("line %d", number)
    files = sorted(path.name for path in logs.log_file().parent.iterdir())
    assert files == ["histodistill.log", *(f"histodistill.log.{n}" for n in range(1, logs.BACKUPS + 1))]
    assert "line 199" in written()


def test_a_log_that_cannot_be_written_is_told_and_stops_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HISTODISTILL_LOG", str(tmp_path / "file"))
    logs.start_log()
    assert "no log file" in capsys.readouterr().err
    assert logs.tail() == ""


def work(request: str, control: InlineControl) -> str:
    return request


def test_jobs_are_logged_by_what_they_do_and_how_they_end():
    logs.start_log()
    ThreadJob(work, "/data/Jane").wait()
    assert "work, begins" in written()
    assert "done after" in written()
    assert "Jane" not in written()


def test_commands_log_how_they_ended_and_say_more_when_asked():
    missing = f"{NAME}.svs"
    result = CliRunner().invoke(main, ["info", missing])
    assert result.exit_code == 2
    assert "info refused (SlideError)" in written()
    assert NAME not in written()
    told = CliRunner().invoke(main, ["--verbose", "--log-level", "debug", "info", missing])
    assert "info refused" in told.stderr
    assert missing in written()
    assert CliRunner().invoke(main, ["--log-level", "loud", "info", missing]).exit_code == 2


def test_the_report_command_prints_versions_and_devices_and_no_path():
    result = CliRunner().invoke(main, ["report"])
    assert result.exit_code == 0, result.output
    assert "napari-histodistill" in result.stdout
    assert "cpu: " in result.stdout
    assert str(logs.log_file()) not in result.stdout
    assert str(logs.log_file()) in result.stderr
