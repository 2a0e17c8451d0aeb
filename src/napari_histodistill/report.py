"""What a report of an error should hold: versions, devices, settings, the end of the log; no names, no paths."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from napari_histodistill import __version__
from napari_histodistill.logs import tail, without_names

if TYPE_CHECKING:
    from napari_histodistill.jobs import JobControl

PACKAGES: Final = (
    "napari", "PyQt6", "PySide6", "qtpy", "vispy", "torch", "numpy", "scipy", "scikit-image", "zarr", "dask",
    "tifffile", "imagecodecs", "openslide-python", "openslide-bin",
)  # fmt: skip
LOG_LINES: Final = 60


@dataclass(frozen=True)
class ReportRequest:
    """What a report is made of beside what the machine says.

    Attributes
    ----------
    state : mapping of str to str
        What a window knows of itself, such as settings and the state of its docks; names are taken out.
    """

    state: Mapping[str, str] = field(default_factory=dict)


def make_report(request: ReportRequest, control: JobControl) -> str:
    """The report as text. It asks torch for devices, which takes a second or two: let a child process do it.

    Parameters
    ----------
    request : ReportRequest
    control : JobControl

    Returns
    -------
    str
    """
    control.checkpoint()
    parts = [
        _section("napari-histodistill", {"version": __version__}),
        _section("machine", machine()),
        _section("packages", {name: found for name in PACKAGES if (found := _version(name))}),
        _section("devices", devices()),
        _section("environment", {k: "set" for k in sorted(os.environ) if k.startswith("HISTODISTILL_")}),
        _section("state", {name: without_names(value) for name, value in request.state.items()}),
        "log, last lines\n" + (tail(LOG_LINES) or "  none"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def machine() -> dict[str, str]:
    """System, Python, cores and memory."""
    facts = {"system": platform.platform(), "python": sys.version.split()[0], "cores": str(os.cpu_count())}
    with_sysconf = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    if with_sysconf:
        facts["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GB"
    return facts


def devices() -> dict[str, str]:
    """What torch can compute on."""
    import torch

    found = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = (
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GB, CUDA {torch.version.cuda}"
        )
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _section(title: str, facts: Mapping[str, str]) -> str:
    return "\n".join([title, *(f"  {name}: {value}" for name, value in facts.items())]) if facts else ""
