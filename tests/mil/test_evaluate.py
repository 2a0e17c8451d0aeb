"""Evaluation: which images, at which resolution, and the figures of the bundled model on real images."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.metrics import MEASURES
from napari_histodistill.mil import DatasetError, evaluate_model, load_dataset
from napari_histodistill.mil.evaluate import choose_images, predict_bag
from napari_histodistill.nets import Architecture, ModelCard, Training, load_model
from napari_histodistill.nets.masking import MaskSettings
from napari_histodistill.predict.mask import mask_from_probability
from napari_histodistill.slide.labels import TUMOUR

CARD = ModelCard("a model", Architecture("efficientnet-lite0", (1.0,)), mpp=1.5)


class Redness:
    """A stand-in model that calls red pixels tumour."""

    card = CARD

    def predict(self, images):
        return images[..., 0].astype(np.float32) / 255


@pytest.fixture
def red_square(tmp_path):
    """A positive image at 0.5 µm/px with a red square, and its mask at half that resolution; a negative image."""
    image = np.zeros((300, 360, 3), np.uint8)
    image[60:180, 90:240, 0] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    mask = Image.fromarray(image[..., 0]).resize((180, 150), Image.Resampling.NEAREST)
    mask.save(tmp_path / "m.png")
    Image.fromarray(np.zeros_like(image)).save(tmp_path / "b.png")
    path = tmp_path / "set.csv"
    path.write_text("image,label,mask,patient,split,mpp\na.png,1,m.png,A,train,0.5\nb.png,0,,B,test,0.5\n")
    return load_dataset(path)


def test_a_perfect_model_scores_nearly_one_across_resolutions(red_square):
    result = evaluate_model(Redness(), red_square, split="all").to_json()
    assert result["dice_pooled"] > 0.98
    assert result["f1_negative"] == 1
    assert result["hd95_um"] <= 1.5


def test_the_probability_map_shares_the_edges_of_the_mask(red_square):
    (bag, _) = red_square.bags
    probability, _ = predict_bag(Redness(), bag, (150, 180), CARD.mask_settings)
    inside = np.argwhere(probability >= 0.5)
    assert abs(inside.min(0) - (30, 45)).max() <= 1
    assert abs(inside.max(0) - (89, 119)).max() <= 1


def test_the_result_holds_every_measure_twice_and_says_how_it_was_made(red_square):
    result = evaluate_model(Redness(), red_square, split="all", threshold=0.4, smoothing_um=2.0).to_json()
    assert set(MEASURES) <= set(result)
    assert set(MEASURES) == set(result["all_foreground"])
    assert {f"{name}_95" for name in MEASURES} <= set(result)
    assert sum(entry["pixels"] for entry in result["reliability"]) == 300 * 360 + 150 * 180
    assert (result["n_images"], result["threshold"], result["smoothing_um"]) == (2, 0.4, 2.0)
    assert result["all_foreground"]["f1_negative"] == 0


def test_a_lone_spot_counts_as_tumour_unless_support_is_asked_for(red_square):
    positive = red_square.where(lambda bag: bag.label == 1)
    assert evaluate_model(Redness(), positive, split="all").to_json()["dice_pooled"] > 0.98
    assert evaluate_model(Redness(), positive, split="all", support=0.5).to_json()["dice_pooled"] > 0.98
    strict = evaluate_model(Redness(), positive, split="all", support=0.9).to_json()
    assert (strict["dice_pooled"], strict["support"]) == (0, 0.9)


def test_the_mask_of_an_image_is_that_of_a_slide_with_support_before_smoothing(tmp_path):
    red = np.indices((120, 120)).sum(0) % 2 * np.uint8(255)  # smoothed it is even, and has less support
    Image.fromarray(np.stack([red, red, red], -1).astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full_like(red, 255, np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "set.csv").write_text("image,label,mask,patient,split,mpp\na.png,1,m.png,A,test,1.5\n")
    (bag,) = load_dataset(tmp_path / "set.csv").bags
    settings = MaskSettings(0.4, 4.0, 0.7)
    _, mask = predict_bag(Redness(), bag, red.shape, settings)
    on_slide = mask_from_probability(red.astype(np.uint8), np.ones_like(red, np.uint8), settings, (1.5, 1.5))
    np.testing.assert_array_equal(mask, on_slide == TUMOUR)
    assert mask.all()


def test_the_result_is_json_with_intervals_that_hold_the_measures(red_square):
    result = json.loads(json.dumps(evaluate_model(Redness(), red_square, split="all").to_json(), allow_nan=False))
    for name in MEASURES:
        low, high = result[f"{name}_95"]
        assert low <= result[name] <= high


def test_calling_all_tumour_is_calibrated_as_badly_as_there_is_background(red_square):
    result = evaluate_model(Redness(), red_square, split="all").to_json()
    tumour = sum(bag.read_truth().sum() for bag in red_square.bags) / sum(b.read_truth().size for b in red_square.bags)
    assert result["all_foreground"]["calibration_error"] == pytest.approx(1 - tumour)
    assert result["all_foreground"]["brier"] == pytest.approx(1 - tumour)
    assert result["brier"] < 0.01


def test_scores_of_every_image_can_be_written(red_square, tmp_path):
    result = evaluate_model(Redness(), red_square, split="all")
    result.write_per_image(tmp_path / "each.csv")
    first, second = csv.DictReader((tmp_path / "each.csv").open())
    assert Path(first["image"]) == red_square.bags[0].image
    assert (first["patient"], first["label"], second["label"]) == ("A", "1", "0")
    assert float(first["f1_positive"]) > 0.98
    assert (first["f1_negative"], second["f1_positive"], second["f1_negative"]) == ("", "", "1.0")
    pixels = [sum(int(row[name]) for name in ("tp", "fp", "fn", "tn")) for row in (first, second)]
    assert pixels == [150 * 180, 300 * 360]
    whole = result.to_json()
    assert np.mean([float(row["miou_image"]) for row in (first, second)]) == pytest.approx(whole["miou_image"])


def test_patients_that_the_model_has_seen_are_left_out_of_its_own_data_set_only(red_square):
    seen = replace(CARD, training=Training(data=red_square.name, patients={"train": ["A"], "val": []}))
    other = replace(CARD, training=Training(data="another", patients={"train": ["A"], "val": []}))
    assert choose_images(red_square, seen, "auto").patients() == ["B"]
    assert choose_images(red_square, other, "auto").patients() == ["B"]  # the declared test images
    undeclared = replace(red_square, bags=tuple(replace(bag, split=None) for bag in red_square.bags))
    assert choose_images(undeclared, other, "auto").patients() == ["A", "B"]
    assert choose_images(red_square, other, "train").patients() == ["A"]


def test_images_without_truth_are_counted_as_left_out(red_square):
    maskless = replace(red_square, bags=(replace(red_square.bags[0], mask=None), red_square.bags[1]))
    assert evaluate_model(Redness(), maskless, split="all").left_out == 1
    with pytest.raises(DatasetError, match="has a mask"):
        evaluate_model(Redness(), maskless, split="train")


def test_the_bundled_model_keeps_its_quality_on_other_laboratories_images(data_dir):
    """A floor on a few GlaS images, which it was never trained on."""
    dataset = load_dataset(data_dir / "glas")
    few = replace(dataset, bags=dataset.bags[::8])
    result = evaluate_model(load_model(device="cpu"), few).to_json()
    assert result["dice_pooled"] > result["all_foreground"]["dice_pooled"] + 0.05
    assert result["f1_negative"] > 0.5


def test_the_bundled_model_keeps_its_quality_on_test_patients(data_dir):
    model = load_model(device="cpu")
    unseen = choose_images(load_dataset(data_dir / "ebhi-seg"), model.card, "auto")
    few = replace(unseen, bags=unseen.bags[::8])
    result = evaluate_model(model, few).to_json()
    assert result["dice_pooled"] > 0.75
    assert result["f1_negative"] > 0.9
