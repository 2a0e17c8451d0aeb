"""One rule for how many threads torch computes with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_histodistill.distill import DistillRequest, StudyRequest, distill, distill_study
from napari_histodistill.distill import distillation as on_data
from napari_histodistill.distill import study as on_study
from napari_histodistill.mil import TrainRequest, train_teacher
from napari_histodistill.mil import train as training
from napari_histodistill.nets import threads
from napari_histodistill.nets.threads import torch_threads
from napari_histodistill.study import Study

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def four_cores(monkeypatch) -> Iterator[None]:
    """Of which torch would use all."""
    monkeypatch.setattr(threads, "cores", lambda: 4)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def used(count: int | None) -> int:
    with torch_threads(count):
        return torch.get_num_threads()


def test_a_core_is_left_unless_told_otherwise():
    assert used(None) == 3
    assert used(4) == 4
    assert used(1) == 1
    assert torch.get_num_threads() == 4


def test_fewer_that_somebody_chose_are_kept(monkeypatch):
    torch.set_num_threads(2)  # as with OMP_NUM_THREADS=2
    assert used(None) == 2
    monkeypatch.setattr(threads, "cores", lambda: 1)
    assert used(None) == 1


class Asked(Exception):  # noqa: N818 - no error
    """What stands in for work: says with how many threads it would have begun."""


@pytest.mark.parametrize(("given", "expected"), [(None, 3), (2, 2)])
@pytest.mark.parametrize("work", ["train-teacher", "distill --data", "distill --study"])
def test_training_takes_them_and_gives_them_back(work, given, expected, monkeypatch, tmp_path: Path):
    def ask(*_: Any, **__: Any) -> None:
        raise Asked(torch.get_num_threads())

    Study.create(tmp_path / "study")
    module, name, function, request = {
        "train-teacher": (training, "load_dataset", train_teacher, TrainRequest(tmp_path, tmp_path / "out")),
        "distill --data": (on_data, "read_card", distill, DistillRequest("bundled", tmp_path, tmp_path / "out")),
        "distill --study": (on_study, "_entries", distill_study, StudyRequest(tmp_path / "study")),
    }[work]
    monkeypatch.setattr(module, name, ask)
    with pytest.raises(Asked, match=str(expected)):
        function(replace(request, threads=given), None)
    assert torch.get_num_threads() == 4
