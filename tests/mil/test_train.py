"""Training in small: it learns from image labels, repeats itself under a seed, resumes, and refuses bad data."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_histodistill.mil import DatasetError, Recipe, TrainRequest, evaluate_model, load_dataset, train_teacher
from napari_histodistill.mil.train import METHODS
from napari_histodistill.mil.trainer import CHECKPOINT, TrainingError
from napari_histodistill.nets import load_model

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


@pytest.mark.parametrize("method", METHODS)
def test_a_few_epochs_learn_to_rank_bags(request_for, recorder, method):
    result = train_teacher(request_for(method=method, epochs=8), recorder)
    losses = [epoch.loss for epoch in result.epochs]
    assert losses[-1] < losses[0]
    assert result.epochs[-1].score == 1.0
    assert load_model(result.folder).card == result.card
    assert not (result.folder / CHECKPOINT).exists()


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
