"""The package of docs/extending.md, installed as it stands there, is found, trains and predicts."""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from napari_histodistill.cli import main
from napari_histodistill.mil import TEACHERS, Recipe, TrainRequest, methods, train_teacher
from napari_histodistill.nets import ModelError, load_model
from napari_histodistill.nets.network import SideNetwork
from napari_histodistill.nets.registry import ENCODERS

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
RECIPE = Recipe(crop=32, batch=4, normalise=False)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The page's two files: the module, and the entry points as a build of its pyproject.toml would leave them."""
    block = r"^`([\w.]+)`:\n\n(?:<!--[^\n]*-->\n)?```\w+\n(.*?)^```$"
    files = dict(re.findall(block, PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    project = tomllib.loads(files["pyproject.toml"])["project"]
    folder = tmp_path / "site-packages"
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (folder / "histodistill_pyramid.py").write_text(files["histodistill_pyramid.py"])
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("histodistill_pyramid", None)


@pytest.fixture
def data(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    rows = ["image,label,patient,split,mpp"]
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{i % 2},p{i},train,1.5")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    return tmp_path / "data.csv"


class Silent:
    def progress(self, *_: object) -> None: ...

    def checkpoint(self) -> None: ...


def test_its_names_are_listed_after_the_built_in_ones(package):
    assert ENCODERS.names()[-1] == "pyramid"
    assert methods()[-2:] == ("lse", "masks")
    text = " ".join(CliRunner().invoke(main, ["train-teacher", "--help"]).stdout.split())
    assert "swin|lse|masks" in text
    assert "|pyramid]" in text


@pytest.mark.parametrize(
    ("method", "encoder", "weights"),
    [("lse", None, (0.4, 0.6)), ("gm", "pyramid", (0.5, 0.5)), ("attention", "pyramid", (0.5, 0.5))],
)
def test_it_trains_and_its_model_predicts(package, data, tmp_path, method, encoder, weights):
    request = TrainRequest(data, tmp_path / "out", method, encoder, epochs=1, device="cpu", recipe=RECIPE)
    result = train_teacher(request, Silent())
    assert np.isfinite(result.epochs[0].loss)
    model = load_model(result.folder, "cpu")
    assert (model.card.architecture.encoder, model.card.architecture.weights) == ("pyramid", weights)
    assert model.predict(np.zeros((1, 50, 70, 3), np.uint8)).shape == (1, 50, 70)


def test_its_encoder_keeps_its_promises(package):
    torch.manual_seed(0)
    encoder = ENCODERS.load("pyramid")().double().eval()
    for depth, (stride, offset) in enumerate(zip(encoder.strides, encoder.offsets, strict=True)):
        x = torch.randn(1, 3, 64, 96, dtype=torch.double, requires_grad=True)
        feature = encoder(x)[depth]
        column = feature.shape[-1] // 2
        (feature * torch.randn_like(feature))[..., column].sum().backward()
        seen = x.grad.abs().sum((0, 1, 2)).nonzero()[:, 0]
        centre = column * stride + offset
        assert (seen[0] + seen[-1]) / 2 == centre
        assert seen[-1] - centre <= encoder.margin


def test_its_loss_keeps_its_promises(package):
    family = TEACHERS.load("lse")
    for value in (0.0, 0.5, 1.0):
        for label in (0.0, 1.0):
            maps = torch.full((1, 3, 4, 4), value, requires_grad=True)
            family.loss(maps, torch.tensor([label]), torch.ones(1, 4, 4), 0.8).sum().backward()
            assert torch.isfinite(maps.grad).all()


def test_its_model_without_the_package_says_what_is_missing(package, data, tmp_path, monkeypatch):
    request = TrainRequest(data, tmp_path / "out", "lse", epochs=1, device="cpu", recipe=replace(RECIPE, batch=2))
    folder = train_teacher(request, Silent()).folder
    assert isinstance(load_model(folder, "cpu").network, SideNetwork)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(package)])
    with pytest.raises(ModelError, match="install the package that adds it"):
        load_model(folder, "cpu")
