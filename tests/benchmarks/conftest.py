"""Figures of the benchmarks: collected over the run, written to ``build/bench.json``, printed as a table.

Two things that are compared are measured in turn (A B A B) in one run, so that the ratio holds on a busy machine.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "build"
AT_MOST = ("MB", "ms", "s")
"""Units of which less is better; of ratios ("x") more is."""
PACKAGES = ("napari", "openslide-python", "openslide-bin", "tifffile", "imagecodecs", "zarr", "torch", "numpy")


class Bench:
    """Figures in the order in which they come; those that could not be measured have no median."""

    def __init__(self) -> None:
        self.figures: list[dict] = []
        self.notes: dict[str, str] = {}

    def add(self, name, values, target=None, unit="x") -> None:
        """Keep the median and range of what was measured several times; ``target`` is met as `AT_MOST` says."""
        low, middle, high = min(values), statistics.median(values), max(values)
        entry = {"name": name, "median": middle, "min": low, "max": high, "target": target, "unit": unit}
        self.figures.append({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in entry.items()})

    def missing(self, name, why, target=None, unit="x") -> None:
        entry = {"name": name, "median": None, "min": None, "max": None, "target": target, "unit": unit}
        self.figures.append(entry)
        self.notes[name] = why

    def table(self) -> str:
        lines = ["| figure | median | range | target | |", "| --- | --- | --- | --- | --- |"]
        for f in self.figures:
            less = f["unit"] in AT_MOST
            target = "" if f["target"] is None else f"{'<=' if less else '>='} {f['target']:g}"
            if f["median"] is None:
                lines.append(f"| `{f['name']}` | missing | | {target} | {self.notes[f['name']]} |")
                continue
            met = "" if not target else "met" if (f["median"] <= f["target"]) == less else "not met"
            if target and f["median"] == f["target"]:
                met = "met"
            spread = f"{f['min']:g} to {f['max']:g}"
            lines.append(f"| `{f['name']}` | {f['median']:g} {f['unit']} | {spread} | {target} | {met} |")
        return "\n".join(lines)


BENCH = Bench()


@pytest.fixture(scope="session")
def bench() -> Bench:
    return BENCH


@pytest.fixture(scope="session")
def build() -> Path:
    """Folder for what is made once and kept between runs."""
    BUILD.mkdir(exist_ok=True)
    return BUILD


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not BENCH.figures:
        return
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench.json").write_text(json.dumps(BENCH.figures, indent=1) + "\n")
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    load = "/".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    terminalreporter.write_line(f"\n{platform.machine()}, {os.cpu_count()} cores, load at the end {load} (1/5/15 min)")
    terminalreporter.write_line(f"Python {platform.python_version()}, {packages}\n\n{BENCH.table()}")
