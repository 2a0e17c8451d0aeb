"""Slides through napari's reader: as multiscale layers in µm, and one sentence for what cannot be opened."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

import napari_histodistill
from napari_histodistill.errors import HistodistillError
from napari_histodistill.slide import synthetic
from napari_histodistill.viewer import samples
from napari_histodistill.viewer.layers import SLIDE_KEY
from napari_histodistill.viewer.reader import get_reader, read_slides
from napari_histodistill.viewer.samples import CMU_SHA256, SampleError, download_cmu

PLUGIN = "napari-histodistill"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTODISTILL_CACHE", str(tmp_path / "cache"))


def test_a_slide_is_a_multiscale_rgb_layer_in_micrometres(mark):
    (levels, settings, kind), *others = read_slides(str(mark.path))
    assert (kind, others) == ("image", [])
    assert [level.shape for level in levels] == [(*shape, 3) for shape in mark.levels]
    assert settings["multiscale"]
    assert settings["rgb"]
    assert settings["scale"] == (0.5, 0.5)
    assert settings["translate"] == (0, 0)
    assert settings["units"] == ("um", "um")
    assert settings["metadata"][SLIDE_KEY].shape == mark.shape


def test_a_stack_of_files_is_left_to_others():
    assert get_reader(["a.tiff", "b.tiff"]) is None


def test_without_a_window_an_error_is_raised(tmp_path):
    with pytest.raises(HistodistillError, match="does not exist"):
        read_slides(str(tmp_path / "none.svs"))


@pytest.mark.viewer
def test_a_file_that_is_no_slide_is_told_in_one_sentence(window, tmp_path):
    path = tmp_path / "broken.svs"
    path.write_bytes(b"no slide at all")
    assert window.viewer.open(path, plugin=PLUGIN) == []
    notification = notification_manager.records[-1]
    assert "broken.svs" in notification.message
    assert "\n" not in notification.message
    assert not hasattr(notification, "exception")  # nothing that napari would offer a traceback for


@pytest.mark.viewer
@pytest.mark.parametrize(
    "name", ["ct-not-a-slide.dcm", "fixtures/unopenable.tiff", "fixtures", "CMU-1-Small-Region-unsupported.jp2.tiff"]
)
def test_real_files_open_or_are_refused_in_one_sentence(window, slides_dir, name):
    before = len(notification_manager.records)
    layers = window.viewer.open(slides_dir / name, plugin=PLUGIN)
    if not layers:
        assert len(notification_manager.records) == before + 1
        assert "\n" not in notification_manager.records[-1].message
    else:
        window.settle()
        assert all(SLIDE_KEY in layer.metadata for layer in layers)


@pytest.mark.viewer
def test_unreadable_regions_are_shown_as_background(window, slides_dir):
    (layer,) = window.viewer.open(slides_dir / "fixtures" / "unreadable.svs", plugin=PLUGIN)
    window.settle(0.3)
    assert layer.metadata[SLIDE_KEY].unreadable > 0


@pytest.mark.viewer
def test_an_absurd_pixel_size_is_not_believed_and_asked_for(window, slides_dir):
    (layer,) = window.viewer.open(slides_dir / "CMU-1-Small-Region-wrong-mpp.jpeg.tiff", plugin=PLUGIN)
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]
    assert tuple(layer.scale) == (1, 1)
    assert "pixel size" in notification_manager.records[-1].message


@pytest.mark.viewer
def test_added_levels_are_built_in_the_background_and_then_shown(window, tmp_path):
    import tifffile

    path = tmp_path / "one-level.tiff"
    picture = np.full((2600, 2600, 3), 250, np.uint8)
    picture[800:1800, 800:1800] = (200, 30, 120)
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3)
    (layer,) = window.viewer.open(path, plugin=PLUGIN)
    slide = layer.metadata[SLIDE_KEY]
    assert len(layer.data) > 1
    window.wait(lambda: slide.added_levels_complete)
    window.settle(0.5)
    assert abs(int(layer.data[-1][325, 325, 0]) - 200) < 4
    thumbnail = layer.thumbnail
    middle = thumbnail[thumbnail.shape[0] // 2, thumbnail.shape[1] // 2]
    assert middle[1] < 100, "the thumbnail still shows the placeholder"


def test_the_generated_sample_comes_with_its_truth_in_place(monkeypatch):
    draw = synthetic.draw_slide
    monkeypatch.setattr(synthetic, "draw_slide", lambda: draw((1024, 1536)))
    (levels, settings, _), (truth, placed, kind) = samples.generated_slide()
    assert kind == "labels"
    assert truth.any()
    assert placed["scale"][0] * truth.shape[0] == pytest.approx(settings["scale"][0] * levels[0].shape[0])


def test_the_sample_is_checked_by_its_hash(tmp_path, slides_dir):
    import hashlib

    real = slides_dir / "CMU-1-Small-Region.svs"
    assert hashlib.sha256(real.read_bytes()).hexdigest() == CMU_SHA256
    path = download_cmu(real.as_uri().replace("file://", "http://localhost:1"), _with(tmp_path, real))
    assert path.read_bytes() == real.read_bytes()


def _with(folder: Path, file: Path) -> Path:
    """A cache folder that holds the file already, so nothing is downloaded."""
    (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_offline_the_sample_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(SampleError, match="check the network"):
        download_cmu("http://localhost:1/CMU-1-Small-Region.svs", tmp_path)


def test_a_wrong_download_is_refused(tmp_path, monkeypatch):
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"something else")

        def log_message(self, *_arguments):
            pass

    server = HTTPServer(("localhost", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(SampleError, match="not the file it should be"):
        download_cmu(f"http://localhost:{server.server_port}/CMU-1-Small-Region.svs", tmp_path)
    server.shutdown()


def test_the_manifest_is_valid_and_its_commands_can_be_imported():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(Path(napari_histodistill.__file__).with_name("napari.yaml"))
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), command.id
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", "--imports", PLUGIN], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_reading_a_slide_does_not_import_torch(mark):
    code = (
        "import sys; from napari_histodistill.widgets.contributions import get_reader; "
        f"get_reader({str(mark.path)!r})({str(mark.path)!r}); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
