"""Models on disk and in use: round trip, broken files, devices, and predictions of any size."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save

from napari_histodistill.nets import Architecture, Model, ModelCard, ModelError, load_model, pick_device, save_model
from napari_histodistill.nets.card import WEIGHTS_NAME, bundled_models, model_folder
from napari_histodistill.nets.model import DeviceError, build_network

CARD = ModelCard("a model", Architecture("efficientnet-lite0", (0.2, 0.35, 0.45)), mpp=1.5)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model(build_network(CARD), CARD)


@pytest.fixture
def folder(model, tmp_path):
    return save_model(tmp_path / "model", model.network, CARD)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), np.uint8)


def test_a_saved_model_predicts_the_same(model, folder, images):
    loaded = load_model(folder, "cpu")
    assert loaded.card == CARD
    np.testing.assert_array_equal(loaded.predict(images), model.predict(images))


def test_half_precision_halves_the_file_and_changes_little(model, folder, tmp_path, images):
    half = save_model(tmp_path / "half", model.network, CARD, half=True)
    assert (half / WEIGHTS_NAME).stat().st_size < 0.55 * (folder / WEIGHTS_NAME).stat().st_size
    np.testing.assert_allclose(load_model(half, "cpu").predict(images), model.predict(images), atol=0.01)


def test_anybody_may_read_the_files(folder):
    assert all(path.stat().st_mode & 0o044 for path in folder.iterdir())


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16), (37, 53), (64, 128), (130, 7)])
def test_predictions_have_the_images_size_and_are_probabilities(model, size):
    images = np.random.default_rng(1).integers(0, 256, (3, *size, 3), np.uint8)
    result = model.predict(images)
    assert result.shape == (3, *size)
    assert result.dtype == np.float32
    assert result.min() >= 0
    assert result.max() <= 1


def test_no_images_give_no_maps(model):
    assert model.predict(np.empty((0, 32, 48, 3), np.uint8)).shape == (0, 32, 48)


def test_a_batch_is_predicted_as_its_images_one_by_one(model, monkeypatch, images):
    together = model.predict(images)
    monkeypatch.setattr("napari_histodistill.nets.model._PIXELS_AT_ONCE", 1)
    np.testing.assert_allclose(model.predict(images), together, atol=1e-5)


@pytest.mark.parametrize("wrong", [np.zeros((32, 32, 3), np.uint8), np.zeros((1, 32, 32, 3), np.float32)])
def test_other_arrays_are_refused(model, wrong):
    with pytest.raises(ValueError, match="uint8"):
        model.predict(wrong)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="There is no model in"):
        load_model(tmp_path)


def test_missing_weights_are_named(folder):
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(ModelError, match="no weights"):
        load_model(folder)


def test_damaged_weights_are_refused(folder):
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        load_model(folder)


def test_weights_of_another_network_are_refused(folder):
    weights = load_file(folder / WEIGHTS_NAME)
    weights.pop("heads.0.weight")
    (folder / WEIGHTS_NAME).write_bytes(save(weights))
    with pytest.raises(ModelError, match="do not fit"):
        load_model(folder)


def test_an_unknown_encoder_is_refused(folder):
    card = json.loads((folder / "model.json").read_text())
    card["architecture"]["encoder"] = "resnet-1000"
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="resnet-1000"):
        load_model(folder)


def test_weights_for_another_number_of_depths_are_refused(folder):
    card = json.loads((folder / "model.json").read_text())
    card["architecture"]["weights"] = [0.5, 0.5]
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="2 fusion weights for 3"):
        load_model(folder)


def test_a_model_with_attention_is_saved_and_loaded_with_it(tmp_path, images):
    card = replace(CARD, architecture=Architecture("vgg16", (0.2, 0.35, 0.45), attention=True))
    torch.manual_seed(0)
    network = build_network(card)
    for layer in network.attention:
        layer.gamma.data.fill_(0.5)
    model = Model(network, card)
    loaded = load_model(save_model(tmp_path / "model", model.network, card), "cpu")
    assert len(loaded.network.attention) == 3
    np.testing.assert_array_equal(loaded.predict(images), model.predict(images))


def test_predictions_lie_on_their_pixels_where_the_encoder_pools_in_blocks(images):
    """A mirrored image is predicted mirrored by mirror-symmetric filters; half a pixel of shift would show."""
    card = replace(CARD, architecture=Architecture("vgg16", (0.2, 0.35, 0.45)))
    torch.manual_seed(0)
    network = build_network(card)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.add_(layer.weight.flip(-1)).mul_(2)
    model = Model(network, card)
    image = images[:, :64, :64]
    a, b = model.predict(image), model.predict(image[:, :, ::-1])
    np.testing.assert_allclose(a[:, :, ::-1], b, atol=1e-4)
    assert np.abs(np.diff(a)).mean() > 1e-3


def test_the_device_is_chosen_or_refused():
    assert pick_device() in ("cpu", "cuda", "mps")
    assert pick_device("cpu") == "cpu"
    with pytest.raises(DeviceError, match="tpu"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda"):
            pick_device("cuda")


def test_the_bundled_weights_are_small():
    for name in bundled_models():
        assert (model_folder(name) / WEIGHTS_NAME).stat().st_size <= 8_000_000


def test_the_bundled_model_finds_no_tumour_on_empty_glass():
    glass = np.full((1, 256, 256, 3), 245, np.uint8)
    assert load_model(device="cpu").predict(glass).max() < 0.5


def test_two_tilings_of_the_bundled_model_agree(data_dir):
    """Windows shifted by half a tile differ by less than 0.02 on 99% of the pixels beyond the margin."""
    image = np.asarray(Image.open(data_dir / "glas" / "image" / "train_1.jpg"))[:448]
    model = load_model(device="cpu")
    margin = model.card.margin
    whole = np.pad(image, [(0, 0), (0, 1024 - image.shape[1]), (0, 0)], mode="symmetric")[None]
    shift = 256
    a, b = model.predict(whole[:, :, :768])[0], model.predict(whole[:, :, shift:])[0]
    inner = slice(shift + margin, 768 - margin)
    difference = np.abs(a[:, inner] - b[:, shift + margin - shift : 768 - shift - margin])
    assert (difference < 0.02).mean() > 0.99
