"""Prediction of whole slides: alignment, seams, resume, cancel, refusals."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import InlineControl, JobCancelled, ProcessJob
from napari_histodistill.nets import load_model
from napari_histodistill.predict import Notice, PredictRequest, TileDone, TooCoarseError, engine, predict, predict_slide
from napari_histodistill.predict.tiling import Tiling
from napari_histodistill.slide import MppError, open_slide
from napari_histodistill.slide.labels import IGNORE, OUTSIDE, TUMOUR
from napari_histodistill.study import RunState, Study, StudyError

SILENT = InlineControl()


@pytest.fixture
def request_(slide_path, tmp_path):
    return PredictRequest(slide_path, tmp_path / "study")


def entry_of(request: PredictRequest):
    (entry,) = Study.open(request.study_folder).slides()
    return entry


@pytest.fixture(scope="session")
def whole(slide_path, tmp_path_factory, fake_model):
    """Request of an uninterrupted prediction with the plain fake model, done once; not to be changed."""
    request = PredictRequest(slide_path, tmp_path_factory.mktemp("whole") / "study")
    predict_slide(request, SILENT, fake_model())
    return request


@pytest.fixture
def predicted(whole, tmp_path):
    """A copy of that study, to go on with."""
    shutil.copytree(whole.study_folder, tmp_path / "study")
    return dataclasses.replace(whole, study_folder=tmp_path / "study")


def files_of(entry) -> dict[str, bytes]:
    """Every file of the run's arrays."""
    folder = entry.run.folder
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("run.json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# Results


def test_a_prediction_leaves_probability_mask_and_figures(request_, fake_model):
    seen = []
    summary = predict_slide(request_, InlineControl(seen.append), fake_model())
    entry = entry_of(request_)
    probability, mask = entry.probability()[:], entry.pseudo_mask()[:]
    assert probability.shape == mask.shape == entry.grid.shape == (1200, 1400)
    assert summary.pixel_size_um == (1.0, 1.0)
    assert (summary.tiles, summary.tiles_computed, summary.unreadable) == (9, 9, 0)
    assert summary.tumour_mm2 == pytest.approx(np.count_nonzero(mask == TUMOUR) * 1e-6)
    assert summary.tissue_mm2 == pytest.approx(1.3125, rel=0.05)
    assert 0.2 < summary.mean_probability < 0.8
    assert (mask == TUMOUR).sum() == ((probability >= 128) & (entry.tissue_on_grid()[:, :] == 1)).sum()
    assert (probability[mask == OUTSIDE] == 0).all()
    assert entry.run.record.state is RunState.COMPLETE
    assert not list(entry.run.tiles.glob("*"))
    json.dumps(summary.as_dict())
    predicting = [p for p in seen if p.message == "Predicting"]
    assert {(p.payload.y, p.payload.x) for p in predicting if p.payload} >= {(0, 0), (512, 512), (1024, 1024)}
    assert all(isinstance(p.payload, TileDone) for p in predicting if p.payload)
    assert (predicting[-1].done, predicting[-1].total) == (9, 9)
    assert any(p.eta is not None for p in predicting)


def all_tissue(request: PredictRequest, model) -> None:
    """Have the study hold a tissue mask that covers the slide, as if a person had drawn it."""
    with open_slide(request.slide_path, mpp=request.mpp) as slide:
        entry = Study.open_or_create(request.study_folder).add_slide(slide, target_mpp=2 * model.card.mpp)
    entry.save_tissue(np.ones((9, 9), np.uint8), settings={}, edited=True)


@pytest.mark.parametrize("mpp", [0.5, 0.47])
def test_a_square_at_known_level_0_px_is_at_the_same_um_in_probability_and_mask(tmp_path, fake_model, mpp, write_tiff):
    """On a grid whose ratio to the slide is no whole number, to a quarter and to half a pixel, at each edge."""
    image = np.full((1811, 2707, 3), 230, np.uint8)
    edges = (401, 903), (1005, 2009)
    image[slice(*edges[0]), slice(*edges[1])] = 50
    request = PredictRequest(write_tiff(tmp_path / "square.tiff", image, mpp), tmp_path / "study")
    model = fake_model(blur=1)
    all_tissue(request, model)
    predict_slide(request, SILENT, model)
    entry = entry_of(request)
    size = entry.grid.pixel_size_um
    probability, mask = entry.probability()[:] / 255, entry.pseudo_mask()[:]
    for axis, (low, high) in enumerate(edges):
        profile = probability.sum(axis=1 - axis) / probability.sum(axis=1 - axis).max()
        middle = (profile @ (np.arange(len(profile)) + 0.5) / profile.sum()) * size[axis]
        assert abs(middle - profile.sum() * size[axis] / 2 - low * mpp) < 0.25 * size[axis]
        assert abs(middle + profile.sum() * size[axis] / 2 - high * mpp) < 0.25 * size[axis]
        found = np.flatnonzero((mask == TUMOUR).any(axis=1 - axis))
        assert abs(found[0] * size[axis] - low * mpp) < 0.6 * size[axis]
        assert abs((found[-1] + 1) * size[axis] - high * mpp) < 0.6 * size[axis]


def shifted_maps(request, monkeypatch, model) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities in [0, 1] of two tilings that are shifted by half a tile."""
    maps = []
    for offset in (0, 256):
        plain = Tiling.for_model
        with monkeypatch.context() as patch:
            patch.setattr(Tiling, "for_model", lambda *args, offset=offset, plain=plain: plain(*args, offset=offset))
            again = dataclasses.replace(request, study_folder=request.study_folder.with_name(f"shifted{offset}"))
            predict_slide(again, SILENT, model)
        maps.append(entry_of(again).probability()[:] / 255)
    return maps[0], maps[1]


def test_two_tilings_shifted_by_half_a_tile_agree(request_, monkeypatch, fake_model):
    first, second = shifted_maps(request_, monkeypatch, fake_model(blur=31, margin=32))
    assert (np.abs(first - second) < 0.02).mean() > 0.9999


def test_no_seam_shows_with_the_bundled_model_on_a_real_slide(slides_dir, tmp_path, monkeypatch, write_tiff):
    with tifffile.TiffFile(slides_dir / "crc-section-pyramid.tiff") as tif:
        region = tif.series[0].levels[0].asarray()[2000:5072, 1000:5608]
    path = write_tiff(tmp_path / "region.tiff", region)
    request = PredictRequest(path, tmp_path / "study")
    first, second = shifted_maps(request, monkeypatch, load_model("bundled", "cpu"))
    assert first.max() > 0.5
    border = 64
    difference = np.abs(first - second)[border:-border, border:-border]
    assert (difference < 0.02).mean() >= 0.99


def test_the_order_begins_at_the_centre_and_does_not_change_the_result(request_, whole, fake_model):
    seen = []
    centred = dataclasses.replace(request_, center=(2350.0, 2750.0))
    predict_slide(centred, InlineControl(seen.append), fake_model())
    first = next(p.payload for p in seen if isinstance(p.payload, TileDone))
    assert (first.y, first.x) == (1024, 1024)
    assert files_of(entry_of(centred)) == files_of(entry_of(whole))


# Stopping and going on


def cancel_after(tiles: int) -> InlineControl:
    control = InlineControl(lambda p: control.cancel() if p.done >= tiles and p.payload else None)
    return control


def test_cancel_keeps_what_was_computed_as_a_partial_run(request_, fake_model):
    with pytest.raises(JobCancelled):
        predict_slide(request_, cancel_after(4), fake_model(delay=0.05))
    entry = entry_of(request_)
    assert entry.run.record.state is RunState.PARTIAL
    assert entry.probability()[:512, :512].any()
    assert entry.pseudo_mask() is None
    assert not entry.lock().held_by_anyone()


def test_a_cancelled_rerun_leaves_the_complete_result_alone(predicted, fake_model):
    before = files_of(entry_of(predicted))
    with pytest.raises(JobCancelled):
        predict_slide(predicted, cancel_after(2), fake_model(blur=3, delay=0.05))
    assert files_of(entry_of(predicted)) == before


def test_resume_after_a_cancel_computes_only_the_rest_and_gives_the_same_bytes(request_, whole, fake_model):
    with pytest.raises(JobCancelled):
        predict_slide(request_, cancel_after(4), fake_model(delay=0.05))
    model = fake_model()
    summary = predict_slide(dataclasses.replace(request_, resume=True), SILENT, model)
    assert summary.tiles_computed == model.calls <= 5
    assert files_of(entry_of(request_)) == files_of(entry_of(whole))


KILLED = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from histodistill_fake_model import FakeModel
from napari_histodistill.jobs import InlineControl
from napari_histodistill.predict import PredictRequest, predict_slide
request = PredictRequest(Path(sys.argv[2]), Path(sys.argv[3]))
predict_slide(request, InlineControl(lambda p: print(p.done, flush=True)), FakeModel(delay=0.1))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
@pytest.mark.parametrize("tiles", [1, 6])
def test_resume_after_kill_9_computes_no_tile_twice_and_gives_the_same_bytes(
    request_, whole, fake_model, model_folder, tiles
):
    command = [sys.executable, "-c", KILLED, model_folder, request_.slide_path, request_.study_folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if int(line) >= tiles:
                os.kill(child.pid, signal.SIGKILL)
                break
    entry = entry_of(request_)
    assert entry.run.record.state is RunState.RUNNING  # it had no chance to say otherwise
    finished = set(entry.run.record.finished)
    model = fake_model()
    with pytest.MonkeyPatch.context() as patch:
        written = []
        plain = predict.BlockWriter._write
        patch.setattr(predict.BlockWriter, "_write", lambda self, block: (written.append(block), plain(self, block)))
        predict_slide(dataclasses.replace(request_, resume=True), SILENT, model)
    assert model.calls <= 9 - tiles
    assert not finished & set(written)
    assert files_of(entry_of(request_)) == files_of(entry_of(whole))


def test_resume_of_a_complete_run_computes_nothing_and_takes_a_new_threshold(predicted, fake_model):
    first = entry_of(predicted).run.record.summary
    model = fake_model()
    again = predict_slide(dataclasses.replace(predicted, resume=True, threshold=0.3), SILENT, model)
    assert model.calls == again.tiles_computed == 0
    assert again.tumour_mm2 > first["tumour_mm2"]
    assert again.mean_probability == first["mean_probability"]


def test_tiles_that_a_kill_left_behind_go_with_the_next_resume(predicted, fake_model):
    folder = entry_of(predicted).run.tiles
    np.save(folder / "4.npy", np.zeros((4, 4), np.float32))  # its block and all around it are finished
    predict_slide(dataclasses.replace(predicted, resume=True), SILENT, fake_model())
    assert list(folder.iterdir()) == []


def test_resume_without_an_earlier_run_starts_one(request_, fake_model):
    assert predict_slide(dataclasses.replace(request_, resume=True), SILENT, fake_model()).tiles_computed == 9


def test_resume_with_another_model_or_tissue_is_refused(request_, fake_model):
    with pytest.raises(JobCancelled):
        predict_slide(request_, cancel_after(1), fake_model(delay=0.05))
    resumed = dataclasses.replace(request_, resume=True)
    with pytest.raises(StudyError, match=r"its model was fake .*, now it is other .*; use the same, or start anew"):
        predict_slide(resumed, SILENT, fake_model(name="other"))
    entry = entry_of(request_)
    entry.save_tissue(np.ones((10, 10), np.uint8), settings={}, edited=True)
    with pytest.raises(StudyError, match="its tissue was"):
        predict_slide(resumed, SILENT, fake_model())


def test_a_slide_that_another_process_writes_is_left_alone(request_, fake_model):
    with pytest.raises(JobCancelled):
        predict_slide(request_, cancel_after(1), fake_model(delay=0.05))
    with entry_of(request_).lock(), pytest.raises(StudyError, match="in use by process"):
        predict_slide(request_, SILENT, fake_model())


def test_a_full_disk_is_a_sentence_and_the_run_can_be_resumed(request_, fake_model, monkeypatch):
    calls = []

    def full(self, index, tile_map):
        calls.append(index)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        return plain(self, index, tile_map)

    from napari_histodistill.predict.writer import TileStore

    plain = TileStore.save
    with monkeypatch.context() as patch:
        patch.setattr(TileStore, "save", full)
        with pytest.raises(StudyError, match="No space left on device"):
            predict_slide(request_, SILENT, fake_model())
    assert entry_of(request_).run.record.state is RunState.PARTIAL
    assert predict_slide(dataclasses.replace(request_, resume=True), SILENT, fake_model()).tiles_computed == 6


# Corrections and tissue


def test_corrections_survive_a_new_prediction_and_count_in_its_figures(predicted, fake_model):
    first = entry_of(predicted).run.record.summary
    entry_of(predicted).save_corrections_region(400, 400, np.full((300, 300), IGNORE, np.uint8), tool="brush")
    second = predict_slide(predicted, SILENT, fake_model())
    assert second.tissue_mm2 == pytest.approx(first["tissue_mm2"] - 0.09)
    assert (entry_of(predicted).corrections().read(400, 400, 300, 300) == IGNORE).all()


def test_tissue_that_a_person_edited_is_used_and_artefacts_are_ignored(predicted, fake_model):
    tissue = np.zeros((120, 140), np.uint8)
    tissue[60:80, 20:120] = 1
    tissue[60:80, 60:80] = 3
    entry_of(predicted).save_tissue(tissue, settings={}, edited=True)
    model = fake_model()
    summary = predict_slide(predicted, SILENT, model)
    mask = entry_of(predicted).pseudo_mask()[:]
    assert summary.tissue_mm2 == pytest.approx(20 * 80 * 100 * 1e-6)
    assert (mask[600:800, 600:800] == IGNORE).all()
    assert model.calls == 3


# What cannot be done


def test_a_slide_much_coarser_than_the_model_is_refused_unless_forced(request_, fake_model):
    model = fake_model(mpp=0.2)
    with pytest.raises(TooCoarseError, match=r"0\.5 µm per pixel, more than 2 times the 0\.2"):
        predict_slide(request_, SILENT, model)
    assert not request_.study_folder.exists()
    small = dataclasses.replace(request_, force=True)
    with pytest.raises(JobCancelled):
        predict_slide(small, cancel_after(1), model)


def test_without_a_pixel_size_it_asks_for_one(tmp_path, fake_model, tissue_like, write_tiff):
    path = write_tiff(tmp_path / "plain.tiff", tissue_like((600, 600)), mpp=None)
    with pytest.raises(MppError, match="--mpp"):
        predict_slide(PredictRequest(path, tmp_path / "study"), SILENT, fake_model())
    summary = predict_slide(PredictRequest(path, tmp_path / "study", mpp=0.5), SILENT, fake_model())
    assert summary.tissue_mm2 > 0


def test_a_folder_without_a_model_is_refused_before_anything_is_made(request_, tmp_path):
    with pytest.raises(HistodistillError, match="There is no model"):
        predict_slide(dataclasses.replace(request_, model=str(tmp_path)), SILENT)
    assert not request_.study_folder.exists()


class Halving:
    """Fits at most ``fits`` images at once."""

    device = "cuda"

    def __init__(self, inner, fits):
        self.inner, self.card, self.fits, self.sizes = inner, inner.card, fits, []

    def predict(self, images):
        self.sizes.append(len(images))
        if len(images) > self.fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return self.inner.predict(images)


def test_a_batch_that_does_not_fit_the_gpu_is_halved(request_, whole, fake_model, monkeypatch):
    monkeypatch.setattr(engine, "GPU_BATCH", 4)
    model = Halving(fake_model(), 1)
    images = [np.full((64, 64, 3), value, np.uint8) for value in range(4)]
    maps = engine._predict(model, images)
    assert np.array_equal(np.stack(maps), fake_model().predict(np.stack(images)))
    assert model.sizes == [4, 2, 1, 1, 2, 1, 1]
    predict_slide(request_, SILENT, Halving(fake_model(), 2))
    assert np.array_equal(entry_of(request_).probability()[:], entry_of(whole).probability()[:])


def test_a_single_tile_that_does_not_fit_is_a_sentence(fake_model):
    with pytest.raises(HistodistillError, match="memory of cuda ran out"):
        engine._predict(Halving(fake_model(), 0), [np.zeros((8, 8, 3), np.uint8)])


def test_other_errors_of_the_model_are_not_taken_for_memory(fake_model):
    class Broken(Halving):
        def predict(self, images):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        engine._predict(Broken(fake_model(), 1), [np.zeros((8, 8, 3), np.uint8)] * 2)


# Real files


def test_a_slide_that_cannot_be_read_gives_no_tissue_and_says_so(slides_dir, tmp_path, fake_model):
    request = PredictRequest(slides_dir / "fixtures" / "unreadable.svs", tmp_path / "study", mpp=0.5)
    summary = predict_slide(request, SILENT, fake_model())
    assert summary.tissue_mm2 == 0
    assert any("could not be read" in warning for warning in summary.warnings)


def test_a_slide_that_does_not_look_like_he_is_warned_of_before_the_model_runs(slides_dir, tmp_path, fake_model):
    seen = []

    class Late(fake_model):
        def predict(self, images):
            raise HistodistillError("the model ran")

    with pytest.raises(HistodistillError, match="the model ran"):
        predict_slide(
            PredictRequest(slides_dir / "hamamatsu-dapi.ndpi", tmp_path / "study"), InlineControl(seen.append), Late()
        )
    assert any(isinstance(p.payload, Notice) and "H&E" in p.payload.sentence for p in seen)


def test_the_bundled_model_runs_in_a_child_process_on_a_real_slide(slides_dir, tmp_path):
    job = ProcessJob(predict_slide, PredictRequest(slides_dir / "CMU-1-Small-Region.svs", tmp_path / "study"))
    payloads = [p.payload for p in job.events() if isinstance(p.payload, TileDone)]
    assert payloads == [TileDone(0, 0, *entry_of(job._request).grid.shape)]
    assert job.result.tissue_mm2 == pytest.approx(0.66, abs=0.15)
