"""Shared fixtures: where the real data lies, and how many tests were skipped without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SKIP_REASON = "shared data not found (set HISTODISTILL_DATA to its folder)"


def find_data() -> Path | None:
    """Folder of the shared real data: $HISTODISTILL_DATA, else ../shared/data beside the checkout, else None."""
    candidates = [os.environ.get("HISTODISTILL_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    return next((Path(c) for c in candidates if c and Path(c).is_dir()), None)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The shared data folder; tests that ask for it are skipped where it does not exist."""
    folder = find_data()
    if folder is None:
        pytest.skip(SKIP_REASON)
    return folder


@pytest.fixture(scope="session")
def slides_dir(data_dir: Path) -> Path:
    return data_dir / "slides"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    missing = [r for r in terminalreporter.stats.get("skipped", []) if SKIP_REASON in str(r.longrepr)]
    if missing:
        terminalreporter.write_line(f"{len(missing)} tests need the shared data and were skipped: {SKIP_REASON}")
