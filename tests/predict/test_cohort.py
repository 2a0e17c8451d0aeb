"""Several slides, here and on the workers of a dask cluster that is really there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import InlineControl, JobCancelled
from napari_histodistill.nets import Architecture, ModelCard, save_model
from napari_histodistill.nets.network import SideNetwork
from napari_histodistill.nets.stain import StainStatistics
from napari_histodistill.predict import CohortRequest, Notice, PredictRequest, SlideFailure, predict_cohort
from napari_histodistill.predict.stain import Recolouring
from napari_histodistill.predict.writer import BlockWriter
from napari_histodistill.study import RunState, Study

SILENT = InlineControl()
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A small network with weights by chance that normalises stain: as a person's own model, in a folder."""
    torch.manual_seed(0)
    architecture = Architecture("mobilenet-v3-small", (0.3, 0.3, 0.4))
    network = SideNetwork(architecture.encoder, architecture.weights)
    reference = StainStatistics((65.0, 25.0, -15.0), (12.0, 8.0, 6.0)).to_card()
    card = ModelCard("small", architecture, 1.0, margin=32, stain_normalisation="reinhard", stain_reference=reference)
    return str(save_model(tmp_path_factory.mktemp("small"), network, card))


@pytest.fixture(scope="module")
def slides(slide_path, tmp_path_factory, write_tiff, tissue_like) -> tuple[Path, Path]:
    """Two slides, of 4 tiles and of 1."""
    image = np.full((800, 800, 3), 243, np.uint8)
    image[100:700, 100:700] = tissue_like((600, 600), seed=1)
    return slide_path, write_tiff(tmp_path_factory.mktemp("second") / "second.tiff", image)


def cohort(slides, study: Path, model: str, **options) -> CohortRequest:
    how = {"model": model, "device": "cpu", "threads": 1}
    requests = tuple(PredictRequest(path, study, **how) for path in slides)
    return CohortRequest(requests, **options)


@pytest.fixture(scope="module")
def serial(slides, model, tmp_path_factory) -> Path:
    """The study that one process leaves, one slide after another."""
    study = tmp_path_factory.mktemp("serial") / "study"
    assert not predict_cohort(cohort(slides, study, model), SILENT).failures
    return study


def files_of(study: Path) -> dict[str, bytes]:
    """Every file of the arrays of a study."""
    paths = [path for path in (study / "slides").rglob("*.ome.zarr/**/*") if path.is_file()]
    assert len(paths) > 20
    return {str(path.relative_to(study)): path.read_bytes() for path in paths}


class Cluster:
    """A scheduler and two workers, each a process."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack, file = stack, folder / "scheduler.json"
        self._start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file)
        self.workers = [
            self._start(
                "worker",
                "--scheduler-file",
                file,
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
                "--name",
                f"w-{i}",
            )
            for i in range(2)
        ]
        from distributed import Client

        with Client(scheduler_file=str(file), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=90)
            self.address = client.scheduler.address

    def _start(self, *command: object) -> subprocess.Popen:
        code = "import sys; sys.path[:0] = sys.argv.pop(1).split('\\n'); from dask.__main__ import main; main()"
        arguments = [sys.executable, "-c", code, "\n".join(sys.path), *map(str, command)]
        process = self._stack.enter_context(subprocess.Popen(arguments, stderr=subprocess.DEVNULL))
        self._stack.callback(process.kill)
        return process


@contextmanager
def started(folder: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(folder, stack)


@POSIX
def test_a_cluster_gives_the_bytes_of_a_serial_run_although_a_worker_is_killed_midway(
    slides, model, serial, tmp_path, monkeypatch
):
    taken: list[int] = []
    plain = BlockWriter.take
    monkeypatch.setattr(
        BlockWriter, "take", lambda self, index, *rest: (taken.append(index), plain(self, index, *rest))[1]
    )
    shares: list[float] = []
    with started(tmp_path) as cluster:

        def kill_one(progress) -> None:
            shares.append(progress.done / progress.total)
            if taken and cluster.workers[0].poll() is None:
                os.kill(cluster.workers[0].pid, signal.SIGKILL)
                cluster.workers[0].wait()

        request = cohort(slides, tmp_path / "study", model, scheduler=cluster.address)
        result = predict_cohort(request, InlineControl(kill_one))
        assert cluster.workers[0].poll() is not None
        assert cluster.workers[1].poll() is None
    assert not result.failures
    assert [Path(summary.slide) for summary in result.summaries] == list(slides)
    assert [summary.tiles_computed for summary in result.summaries] == [4, 1]
    assert sorted(taken) == [0, *range(4)]  # each once
    assert files_of(tmp_path / "study") == files_of(serial)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_local_cluster_is_started_and_ended(slides, model, serial, tmp_path):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from napari_histodistill.jobs import InlineControl\n"
        "from napari_histodistill.predict import CohortRequest, PredictRequest, predict_cohort\n"
        "if __name__ == '__main__':\n"
        "    slide, study, model = sys.argv[1:]\n"
        "    request = PredictRequest(Path(slide), Path(study), model, device='cpu', threads=1)\n"
        "    predict_cohort(CohortRequest((request,), local_workers=2), InlineControl())\n"
    )
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, tmp_path / "script.py", slides[0], tmp_path / "study", model]
    subprocess.run(command, check=True, env=environment)
    expected = files_of(serial)
    found = files_of(tmp_path / "study")
    assert found == {name: expected[name] for name in found}


@pytest.mark.parametrize("scheduler", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_a_scheduler_that_does_not_answer_is_a_sentence(slides, model, tmp_path, monkeypatch, scheduler):
    monkeypatch.setattr("napari_histodistill.predict.cluster.CONNECT_S", 0.5)
    with pytest.raises(HistodistillError, match="No dask scheduler answers at"):
        predict_cohort(cohort(slides, tmp_path / "study", model, scheduler=scheduler), SILENT)
    dask = pytest.importorskip("dask")
    assert "scheduler" not in dask.config.config  # it is not set, which is more than set to nothing


def test_without_dask_distributed_the_sentence_says_what_to_install(slides, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(HistodistillError, match=r"napari-histodistill\[cluster\]"):
        predict_cohort(cohort(slides, tmp_path / "study", model, local_workers=1), SILENT)


def test_a_slide_that_fails_is_told_and_the_others_go_on(slides, model, tmp_path):
    broken = tmp_path / "broken.tiff"
    broken.write_bytes(b"no slide")
    seen = []
    request = cohort([broken, slides[1]], tmp_path / "study", model)
    result = predict_cohort(request, InlineControl(seen.append))
    assert [failure.slide for failure in result.failures] == [broken]
    assert "not a slide" in result.failures[0].sentence
    assert [Path(summary.slide) for summary in result.summaries] == [slides[1]]
    assert [p.payload for p in seen if isinstance(p.payload, SlideFailure)] == list(result.failures)
    assert (seen[-1].done, seen[-1].total, seen[-1].message) == (200, 200, "1 of 2 slides done, 1 failed")


def test_a_single_slide_that_fails_is_not_called_done(model, tmp_path):
    seen = []
    result = predict_cohort(cohort((tmp_path / "gone.svs",), tmp_path / "study", model), InlineControl(seen.append))
    assert len(result.failures) == 1
    assert [report.message for report in seen if "slides" in report.message] == ["0 of 1 slides done, 1 failed"]


def test_warnings_of_a_cohort_name_their_slide(model, tmp_path, write_tiff):
    blank = write_tiff(tmp_path / "blank.tiff", np.full((600, 600, 3), 240, np.uint8))
    seen = []
    predict_cohort(cohort([blank, tmp_path / "none.tiff"], tmp_path / "study", model), InlineControl(seen.append))
    sentences = [p.payload.sentence for p in seen if isinstance(p.payload, Notice)]
    assert sentences
    assert all(sentence.startswith("blank.tiff: ") for sentence in sentences)


def test_a_cancelled_cohort_keeps_what_was_computed(slides, model, tmp_path):
    control = InlineControl(lambda p: control.cancel() if p.done >= 20 else None)
    with pytest.raises(JobCancelled):
        predict_cohort(cohort(slides, tmp_path / "study", model), control)
    (entry,) = Study.open(tmp_path / "study").slides()
    assert entry.run.record.state is RunState.PARTIAL


def test_a_recolouring_crosses_to_a_worker_as_its_statistics():
    import pickle

    recolour = Recolouring(StainStatistics((60, 20, -10), (10, 5, 5)), StainStatistics((65, 25, -15), (12, 8, 6)))
    frame = pickle.dumps(recolour)
    assert len(frame) < 1000
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert (pickle.loads(frame)(image) == recolour(image)).all()
    assert pickle.loads(frame) is pickle.loads(frame)
