"""The public interface: few names, nothing heavy at import, every job of the command line; the notebook runs."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import napari_histodistill as hd
from napari_histodistill.cli import main
from napari_histodistill.slide import synthetic

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "examples" / "first-mask.ipynb"

JOBS = {
    "info": "describe_slide",
    "segment": "segment",
    "import": "import_file",
    "export": "export_files",
    "cut": "cut_dataset",
    "train-teacher": "train_teacher",
    "distill": "distill_dataset",
    "evaluate": "evaluate_model",
    "demo": "sample_slide",
    "study": "open_study",
}


def test_every_command_has_a_function_that_the_docs_list():
    assert set(JOBS) <= set(main.commands)
    told = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in hd.__all__:
        assert callable(getattr(hd, name))
        assert inspect.getdoc(getattr(hd, name))
        assert f"`{name}" in told, name
    assert set(JOBS.values()) <= set(hd.__all__) <= set(dir(hd))


def test_the_package_and_its_names_load_nothing_heavy():
    script = (
        "import sys\n"
        "import napari_histodistill as hd\n"
        "light = {'torch', 'napari', 'qtpy', 'numpy', 'zarr', 'distributed'} & set(sys.modules)\n"
        "[getattr(hd, name) for name in hd.__all__]\n"
        "print('loaded:', *light, *{'torch', 'napari', 'qtpy', 'distributed'} & set(sys.modules))\n"
    )
    told = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert told.strip() == "loaded:"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = hd.nonsense


def test_errors_are_the_sentences_of_the_command_line(tmp_path):
    with pytest.raises(hd.HistodistillError, match="does not exist: check the name"):
        hd.describe_slide(tmp_path / "none.svs")
    with pytest.raises(hd.HistodistillError, match="choose a folder that holds a study"):
        hd.export_files(tmp_path, ["png"])


def test_from_slide_to_files_and_back(tmp_path):
    """What the command line does with a slide, by functions; paths may be text."""
    slide = tmp_path / "small.tiff"
    synthetic.write_slide(synthetic.draw_slide((1024, 1536), seed=3), slide)
    assert hd.describe_slide(str(slide))["width"] == 1536
    seen = []
    result = hd.segment(str(slide), str(tmp_path / "study"), device="cpu", threads=1, progress=seen.append)
    assert [one.slide for one in result.summaries] == [str(slide)]
    assert not result.failures
    assert seen
    written = hd.export_files(tmp_path / "study", ["geojson"], out=tmp_path / "out.geojson")
    assert json.loads(written["geojson"].read_text())["features"]
    came = hd.import_file(tmp_path / "study", written["geojson"], "corrections")
    assert came["applied"]
    (entry,) = hd.open_study(tmp_path / "study").slides()
    assert entry.corrections() is not None


def test_the_notebook_runs_headless(tmp_path, monkeypatch):
    """Its code cells, one after another, as a kernel would run them, on a smaller sample slide."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    small = synthetic.draw_slide((1024, 1536), seed=3)
    monkeypatch.setattr(synthetic, "draw_slide", lambda: small)
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))
    hd.sample_slide()
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "cells.py").write_text("\n\n".join(code), encoding="utf-8")
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    told = subprocess.run(
        [sys.executable, "cells.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert int(re.search(r"(\d+) pixels corrected", told)[1]) > 0
    assert (tmp_path / "first-mask" / "study.json").exists()
    assert "geojson" in told
