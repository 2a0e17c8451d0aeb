"""The optimisation itself: what is averaged, kept, frozen, written, and what ends it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_histodistill.jobs import InlineControl, JobCancelled
from napari_histodistill.mil.sampler import Sampler
from napari_histodistill.mil.settings import Augmentation, Optimisation
from napari_histodistill.mil.trainer import Trainer, TrainingError, make_fabric
from napari_histodistill.nets.network import SideNetwork

PLAIN = Augmentation(zoom=(1.0, 1.0), stain=0, shift=0, blur=0, noise=0, mosaic=0, glass=0)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def loss(maps, _batch):
    return {"a": maps.fused.mean(), "b": maps.sides.mean()}


def make_trainer(epochs: int = 1, *, loss=loss, keep_best: bool = False, **optimisation: object) -> Trainer:
    """A trainer of two steps an epoch."""
    torch.manual_seed(0)
    images = list(np.random.default_rng(0).integers(0, 255, (4, 48, 48, 3), np.uint8))
    settings = Optimisation(**{"lr": 1e-2, "warmup": 0, "schedule": "constant", **optimisation})
    sampler = Sampler(images, [1, 0, 1, 0], 48, 2, PLAIN)
    network = SideNetwork("mobilenet-v3-small", (0.5, 0.5, 0.5), attention=False)
    return Trainer(network, loss, sampler, settings, epochs, make_fabric("cpu"), keep_best=keep_best)


def state(network: SideNetwork) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def statistics(network: SideNetwork) -> list[torch.Tensor]:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    return [value.clone() for norm in norms for value in (norm.running_mean, norm.running_var)]


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batchnorm_keeps_its_statistics_and_learns_all_the_same(frozen):
    trainer = make_trainer(frozen_norm=frozen)
    networks = trainer.network, trainer.average
    before = [statistics(network) for network in networks], state(trainer.network)
    trainer.run(1, InlineControl())
    for network, kept in zip(networks, before[0], strict=True):
        assert all(map(torch.equal, statistics(network), kept)) is frozen
    assert not same(state(trainer.network), before[1])


def test_the_average_follows_the_weights_by_its_decay(monkeypatch):
    trainer = make_trainer(epochs=2, average=0.15)
    expected, step = state(trainer.average), 0
    original = trainer.step

    def spy(batch, number):
        nonlocal step
        result = original(batch, number)
        decay = min(0.15, (number + 1) / (number + 10))  # less in the first steps, when the start is all there is
        for name, value in trainer.network.state_dict().items():
            counter = not value.is_floating_point()  # of batches that BatchNorm saw
            expected[name] = value.clone() if counter else expected[name] * decay + value * (1 - decay)
        step += 1
        return result

    monkeypatch.setattr(trainer, "step", spy)
    trainer.run(1, InlineControl())
    assert step == 4
    for name, value in trainer.average.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_an_average_of_zero_is_the_weights_themselves():
    trainer = make_trainer(average=0.0)
    trainer.run(1, InlineControl())
    assert same(state(trainer.average), state(trainer.network))


@pytest.mark.parametrize(("keep_best", "expected"), [(True, 1), (False, 2)])
def test_the_model_is_of_the_best_epoch_where_that_is_kept(keep_best, expected):
    trainer = make_trainer(epochs=3, keep_best=keep_best)
    scores, seen = iter([0.1, 0.9, 0.3]), []

    def score(network):
        seen.append(state(network))
        return next(scores)

    trainer.run(1, InlineControl(), score=score)
    assert same(state(trainer.model), seen[expected])
    assert (None if trainer.best is None else trainer.best.number) == (2 if keep_best else None)


def test_without_scores_the_model_is_of_the_last_epoch():
    trainer = make_trainer(epochs=2, keep_best=True)
    trainer.run(1, InlineControl())
    assert trainer.best is None
    assert same(state(trainer.model), state(trainer.average))


def test_a_checkpoint_keeps_the_best_epoch_too(tmp_path):
    scores = {1: 0.9, 2: 0.1}
    first = make_trainer(epochs=2, keep_best=True)
    first.run(1, InlineControl(), tmp_path / "checkpoint.pt", lambda _network: scores[len(first.epochs) + 1])
    second = make_trainer(epochs=2, keep_best=True)
    second.load(tmp_path / "checkpoint.pt")
    assert second.best.number == 1
    assert same(state(second.model), state(first.model))
    second.run(1, InlineControl())  # nothing is left to do
    assert [epoch.number for epoch in second.epochs] == [1, 2]


def test_a_cancel_leaves_the_checkpoint_of_the_last_epoch(tmp_path):
    trainer = make_trainer(epochs=3)

    def watch(progress):
        if progress.done == 3:  # in the second epoch
            control.cancel()

    control = InlineControl(watch)
    with pytest.raises(JobCancelled):
        trainer.run(1, control, tmp_path / "checkpoint.pt")
    again = make_trainer(epochs=3)
    again.load(tmp_path / "checkpoint.pt")
    assert [epoch.number for epoch in again.epochs] == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_loss_that_is_not_a_number_ends_the_training_in_words():
    trainer = make_trainer(loss=lambda maps, _batch: {"a": maps.fused.mean() * float("nan")})
    with pytest.raises(TrainingError, match="lower learning rate"):
        trainer.run(1, InlineControl())


def test_a_folder_that_is_gone_and_a_file_that_is_no_checkpoint_are_said(tmp_path):
    trainer = make_trainer()
    with pytest.raises(TrainingError, match="cannot be written"):
        trainer.save(tmp_path / "gone" / "checkpoint.pt")
    trainer.save(tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for content in (b"something else", b"", whole[: len(whole) // 2]):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(TrainingError, match="no checkpoint"):
            trainer.load(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize(
    ("encoder", "capabilities", "precision"),
    [
        ("swin-t", {"avx512_bf16": True}, "bf16-mixed"),
        ("swin-t", {"amx_bf16": True}, "bf16-mixed"),
        ("swin-t", {"avx512_bf16": False}, "32-true"),
        ("mobilenet-v3-small", {"avx512_bf16": True}, "32-true"),
        (None, {"avx512_bf16": True}, "32-true"),
    ],
)
def test_a_cpu_trains_in_bfloat16_where_that_pays(monkeypatch, encoder, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert make_fabric("cpu", encoder).strategy.precision.precision == precision
