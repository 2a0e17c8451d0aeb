"""Training in small: it learns from image labels, repeats itself under a seed, resumes, and refuses bad data."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histodistill.mil import DatasetError, Recipe, TrainRequest, evaluate_model, load_dataset, train_teacher
from napari_histodistill.mil.sampler import Sampler
from napari_histodistill.mil.store import ArrayStore
from napari_histodistill.mil.train import architecture_of, loss_of
from napari_histodistill.mil.trainer import CHECKPOINT, TrainingError
from napari_histodistill.nets import load_model
from napari_histodistill.nets.model import normalise
from napari_histodistill.nets.network import SideNetwork
from napari_histodistill.nets.registry import RegistryError

RECIPE = Recipe(crop=64, batch=8, lr=1e-3, average=0.8, normalise=False)

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def request_for(cohort, tmp_path):
    def make(name: str = "out", **changes: object) -> TrainRequest:
        request = TrainRequest(data=cohort, out=tmp_path / name, epochs=6, recipe=RECIPE, device="cpu")
        return replace(request, **changes)

    return make


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["dice", "gm", "attention", "masks"])
def test_a_few_epochs_learn_to_rank_bags(request_for, recorder, method):
    result = train_teacher(request_for(method=method, epochs=8), recorder)
    losses = [epoch.loss for epoch in result.epochs]
    assert losses[-1] < losses[0]
    assert result.epochs[-1].score == 1.0
    assert load_model(result.folder).card == result.card
    assert not (result.folder / CHECKPOINT).exists()


def test_the_swin_family_trains_and_its_model_says_what_it_is(request_for, recorder):
    recipe = replace(RECIPE, crop=48, normalise=False)
    result = train_teacher(request_for(method="swin", epochs=2, recipe=recipe), recorder)
    assert result.epochs[-1].loss < result.epochs[0].loss
    card = load_model(result.folder, "cpu").card
    assert card == result.card
    assert (card.architecture.encoder, card.architecture.weights) == ("swin-t", (0.3, 0.4, 0.3))
    assert (card.multiple, card.training.start) == (112, "random weights")


def test_the_encoder_is_the_requests_else_the_recipes_else_the_familys(request_for):
    recipe = replace(RECIPE, encoder="vgg16")
    asked = [request_for(method="swin"), request_for(method="swin", recipe=recipe)]
    asked.append(replace(asked[1], encoder="mobilenet-v3-small"))
    assert [architecture_of(r).encoder for r in asked] == ["swin-t", "vgg16", "mobilenet-v3-small"]


def test_attention_is_the_requests_else_the_familys(request_for):
    assert [architecture_of(request_for(method=m)).attention for m in ("gm", "attention")] == [False, True]
    assert architecture_of(request_for(method="masks", attention=True)).attention
    assert not architecture_of(request_for(method="attention", attention=False)).attention


@pytest.mark.parametrize("encoder", ["vgg16", "mobilenet-v3-small"])
@pytest.mark.parametrize("method", ["dice", "attention"])
def test_any_family_trains_any_encoder(request_for, recorder, method, encoder):
    result = train_teacher(request_for(method=method, encoder=encoder, epochs=1), recorder)
    model = load_model(result.folder, "cpu")
    assert (model.card.architecture.encoder, model.card.training.recipe["encoder"]) == (encoder, encoder)
    assert model.card.architecture.attention == (method == "attention")
    assert "random weights" in recorder.messages[0]
    assert model.card.training.start.startswith("random weights")


@pytest.mark.parametrize("method", ["gm", "attention"])
@pytest.mark.parametrize("bias", [-200.0, 0.0, 200.0])
def test_gm_takes_finite_steps_from_the_first_one_even_from_maps_of_zeros_or_ones(method, bias, request_for):
    torch.manual_seed(0)
    plan = architecture_of(request_for(method=method))
    network = SideNetwork(plan.encoder, plan.weights, plan.attention)
    for head in network.heads:
        torch.nn.init.constant_(head.bias, bias)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(8)]
    recipe = replace(RECIPE, prior=0.0)
    sampler = Sampler(ArrayStore(images), [0, 1] * 4, 64, 8, recipe.augmentation)
    loss, optimiser = loss_of(method, recipe), torch.optim.AdamW(network.parameters(), 1e-2)
    for batch in [*sampler.epoch(0, 0), *sampler.epoch(0, 1), *sampler.epoch(0, 2)]:
        value = loss(network(normalise(batch.images)), batch)["bags"]
        optimiser.zero_grad()
        value.backward()
        assert torch.isfinite(value)
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())
        optimiser.step()
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_an_unknown_encoder_is_refused(request_for, recorder):
    with pytest.raises(RegistryError, match="efficientnet-lite0"):
        train_teacher(request_for(encoder="resnet"), recorder)


def test_the_bag_loss_alone_learns_too(request_for, recorder):
    result = train_teacher(request_for(epochs=8, recipe=replace(RECIPE, prior=0.0)), recorder)
    assert result.epochs[-1].score == 1.0


def test_a_model_trained_in_two_colours_of_every_image_asks_for_normalisation(request_for, recorder):
    result = train_teacher(request_for(epochs=1, recipe=replace(RECIPE, normalise=True)), recorder)
    assert recorder.checks == 3  # 24 images in batches of 8
    assert result.card.stain_normalisation == "reinhard"
    assert load_model(result.folder, "cpu").card.stain_reference == result.card.stain_reference


def test_the_same_seed_gives_the_same_weights_and_another_does_not(request_for, recorder):
    folders = [
        train_teacher(request_for(name, seed=seed, epochs=1), recorder).folder
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert weights(folders[0]) == weights(folders[1])
    assert weights(folders[0]) != weights(folders[2])


def test_every_epoch_is_told_in_a_line(request_for, recorder):
    result = train_teacher(request_for(epochs=2), recorder)
    assert [m for m in recorder.messages if m.startswith("epoch 2: loss") and "score" in m]
    assert recorder.payloads[-1] == result.epochs[-1]
    assert recorder.checks >= 4


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(request_for, recorder):
    class StopError(Exception):
        pass

    class Stopping(type(recorder)):
        def progress(self, done, total, message="", payload=None):
            if done == 2:
                raise StopError

    whole = train_teacher(request_for("whole", epochs=3), recorder).folder
    with pytest.raises(StopError):
        train_teacher(request_for("cut", epochs=3), Stopping())
    cut = train_teacher(request_for("cut", epochs=3, resume=True), recorder)
    assert len(cut.epochs) == 3
    assert weights(cut.folder) == weights(whole)


@pytest.mark.parametrize("there", [CHECKPOINT, "model.json"])
def test_nothing_that_was_trained_is_replaced_by_a_new_training(request_for, recorder, there):
    request = request_for()
    request.out.mkdir()
    (request.out / there).write_text("hours of training")
    with pytest.raises(TrainingError, match="resume it, or choose another folder"):
        train_teacher(request, recorder)
    assert (request.out / there).read_text() == "hours of training"


def test_a_finished_training_is_not_resumed_over_its_model(request_for, recorder):
    request = request_for()
    request.out.mkdir()
    (request.out / "model.json").write_text("hours of training")
    with pytest.raises(TrainingError, match="is finished: choose another folder"):
        train_teacher(replace(request, resume=True), recorder)
    assert (request.out / "model.json").read_text() == "hours of training"


def test_a_checkpoint_of_another_training_is_refused(request_for, recorder):
    request = request_for(epochs=2)
    request.out.mkdir()
    (request.out / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match="checkpoint"):
        train_teacher(replace(request, resume=True), recorder)


def test_the_card_names_data_patients_and_recipe(request_for, recorder):
    card = train_teacher(request_for(epochs=1, seed=3), recorder).card
    assert card.training.data.startswith("cohort-")
    assert card.training.patients == {"train": ["p0", "p1", "p2", "p3", "p4", "p5"], "val": ["p6", "p7", "p8"]}
    assert (card.training.seed, card.training.recipe["epochs"]) == (3, 1)
    assert card.training.labels == "image-level labels"


def test_a_trained_model_beats_calling_everything_tumour_on_patients_it_has_not_seen(request_for, recorder, cohort):
    folder = train_teacher(request_for(epochs=12), recorder).folder
    result = evaluate_model(load_model(folder, "cpu"), load_dataset(cohort)).to_json()
    assert (result["n_images"], result["n_left_out"], result["n_patients"]) == (6, 18, 3)
    assert result["dice_pooled"] > result["all_foreground"]["dice_pooled"] + 0.1
    assert result["f1_negative"] > 0.9


def test_an_unknown_method_and_no_epochs_are_refused(request_for, recorder):
    with pytest.raises(TrainingError, match="magic"):
        train_teacher(request_for(method="magic"), recorder)
    with pytest.raises(TrainingError, match="one epoch"):
        train_teacher(request_for(epochs=0), recorder)


def rewritten(cohort: Path, name: str, change) -> Path:
    rows = list(csv.DictReader(cohort.open()))
    path = cohort.parent / name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row for row in map(change, rows) if row)
    return path


def test_data_of_one_kind_only_are_refused(request_for, recorder, cohort):
    path = rewritten(cohort, "positive.csv", lambda row: row if row["label"] == "1" else None)
    with pytest.raises(DatasetError, match="no negative image"):
        train_teacher(request_for(data=path), recorder)


def test_full_masks_are_asked_for_only_where_they_are_needed(request_for, recorder, cohort):
    path = rewritten(cohort, "maskless.csv", lambda row: row | {"mask": ""})
    with pytest.raises(DatasetError, match="needs a mask"):
        train_teacher(request_for(data=path, method="masks"), recorder)
    train_teacher(request_for(data=path, epochs=1), recorder)
