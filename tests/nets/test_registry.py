"""Choices by name: built-in ones first, others from installed packages, broken ones apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from napari_histodistill.nets.encoders.base import Encoder
from napari_histodistill.nets.encoders.lite0 import EfficientNetLite0
from napari_histodistill.nets.registry import ENCODERS, RegistryError


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package as pip would leave it: a module and the folder with its entry points."""

    def make(name: str, source: str, entries: str) -> None:
        folder = tmp_path / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{name}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[histodistill.encoders]\n{entries}\n")
        monkeypatch.syspath_prepend(str(folder))

    return make


def test_the_built_in_encoders_come_first_and_load():
    assert ENCODERS.names()[:4] == ("efficientnet-lite0", "vgg16", "mobilenet-v3-small", "swin-t")
    for name in ENCODERS.names()[:4]:
        assert issubclass(ENCODERS.load(name), Encoder)


def test_an_unknown_name_lists_the_others():
    with pytest.raises(RegistryError, match=r"'resnet'.*efficientnet-lite0, vgg16"):
        ENCODERS.load("resnet")


def test_a_broken_package_is_named_in_one_sentence_and_breaks_no_other(install):
    install("torn_package", "raise ValueError('no licence')", "torn = torn_package:Torn")
    install("odd_package", "Odd = 3", "odd = odd_package:Odd\nhollow = odd_package:Missing")
    install(
        "whole_package",
        "from napari_histodistill.nets.encoders.lite0 import EfficientNetLite0\nclass Whole(EfficientNetLite0): ...",
        "whole = whole_package:Whole",
    )
    assert {"torn", "odd", "hollow", "whole"} <= set(ENCODERS.names())
    with pytest.raises(RegistryError, match=r"'torn' of torn_package cannot be loaded.*ValueError: no licence"):
        ENCODERS.load("torn")
    with pytest.raises(RegistryError, match="'hollow' of odd_package cannot be loaded"):
        ENCODERS.load("hollow")
    with pytest.raises(RegistryError, match="odd_package registers as the encoder 'odd'"):
        ENCODERS.load("odd")
    assert issubclass(ENCODERS.load("whole"), EfficientNetLite0)


def test_a_built_in_name_cannot_be_taken(install):
    install("greedy_package", "Other = 3", "vgg16 = greedy_package:Other")
    assert ENCODERS.names().count("vgg16") == 1
    assert ENCODERS.load("vgg16").__name__ == "TruncatedVGG16"


def test_listing_names_imports_neither_torch_nor_the_packages(install, tmp_path):
    install("loud_package", "raise SystemExit(3)", "loud = loud_package:Loud")
    code = """
import sys
from napari_histodistill.mil import methods
from napari_histodistill.nets.registry import ENCODERS
methods()
sys.exit('loud' not in ENCODERS.names() or 'torch' in sys.modules or 'loud_package' in sys.modules)
"""
    paths = ":".join([str(tmp_path / "loud_package"), str(Path(__file__).parents[2] / "src")])
    done = subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": paths})
    assert done.returncode == 0
