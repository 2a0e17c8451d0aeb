"""The plugin is found by napari from a wheel, from an sdist and from this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

LARGEST_WHEEL = 30_000_000
ROOT = Path(__file__).parents[1]
MANIFEST = "napari_histodistill/napari.yaml"
ASK_NPE2 = """
from npe2 import PluginManifest
manifest = PluginManifest.from_distribution("napari-histodistill")
import napari_histodistill
print(manifest.display_name, len(manifest.contributions.widgets or ()), napari_histodistill.__file__)
"""


WIDGETS = (ROOT / "napari.yaml").read_text().split("  widgets:")[1].split("  sample_data:")[0].count("- command:")


def run(*args: str, **env: str) -> str:
    done = subprocess.run(args, capture_output=True, text=True, check=False, env={**os.environ, **env}, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip_install(package: Path, target: Path) -> None:
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(package))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel built from that sdist, as a release makes them."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT))
    return folder


def test_npe2_accepts_the_manifest():
    out = run(sys.executable, "-m", "npe2", "validate", str(ROOT / "napari.yaml"))
    assert "valid" in out.lower()


def test_top_level_manifest_is_the_packages_own():
    assert (ROOT / "napari.yaml").resolve() == (ROOT / "src" / MANIFEST).resolve()


def test_checkout_is_found_by_npe2():
    assert run(sys.executable, "-c", ASK_NPE2).startswith(f"HistoDistill {WIDGETS} ")


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_built_distribution_is_found_by_npe2(built, tmp_path, kind):
    pip_install(next(built.glob(kind)), tmp_path)
    out = run(sys.executable, "-c", ASK_NPE2, PYTHONPATH=str(tmp_path))
    assert out.startswith(f"HistoDistill {WIDGETS} ")
    assert str(tmp_path) in out


def test_wheel_carries_weights_manifest_and_licence_and_nothing_of_the_tests(built):
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    assert MANIFEST in names
    assert any(n.endswith("model.safetensors") for n in names)
    assert any(n.endswith("model.json") for n in names)
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert any(n.endswith("py.typed") for n in names)
    assert not [n for n in names if n.startswith(("tests", "docs"))]


def test_the_wheel_stays_small_and_brings_the_pages_of_the_help(built):
    wheel = next(built.glob("*.whl"))
    assert wheel.stat().st_size < LARGEST_WHEEL
    pages = {n.rpartition("/")[2] for n in zipfile.ZipFile(wheel).namelist() if "/data/share/doc/" in n}
    assert {"tutorial.md", "napari.md", "troubleshooting.md", "slide.jpg"} <= pages


def test_twine_accepts_what_would_be_uploaded(built):
    out = run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir()))
    assert out.count("PASSED") == 2


def test_the_version_is_the_tag_the_sdists_or_a_fallback(built, tmp_path):
    from hatchling.metadata.core import ProjectMetadata
    from hatchling.plugin.manager import PluginManager

    def version_in(folder: Path) -> str:
        return ProjectMetadata(str(folder), PluginManager()).version

    sdist = next(built.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    assert version_in(unpacked) == unpacked.name.rpartition("-")[2]
    (unpacked / "PKG-INFO").unlink()
    assert version_in(unpacked) == "0.1.0.dev0"
    git = ("git", "-C", str(unpacked), "-c", "user.name=a", "-c", "user.email=a@b")
    run(*git, "init", "--quiet")
    run(*git, "add", "pyproject.toml")
    run(*git, "commit", "--quiet", "-m", "a")
    run(*git, "tag", "-a", "v1.2.3", "-m", "a")
    assert version_in(unpacked) == "1.2.3"


def test_importing_the_package_and_opening_a_slide_load_neither_torch_nor_qt(tmp_path):
    code = """
import sys
import numpy as np
from PIL import Image
Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(sys.argv[1])
import napari_histodistill
from napari_histodistill.slide import open_slide
open_slide(sys.argv[1]).close()
print([m for m in ("torch", "napari", "qtpy", "PyQt6") if m in sys.modules])
"""
    assert run(sys.executable, "-c", code, str(tmp_path / "a.png")).strip() == "[]"
