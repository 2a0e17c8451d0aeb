"""The model card: a round trip, and one sentence for everything that can be wrong with it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from napari_histodistill.nets import Architecture, ModelCard, ModelError, Training, read_card


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(
        name="a teacher",
        architecture=Architecture("efficientnet-lite0", (0.2, 0.35, 0.45)),
        mpp=1.5,
        scope=("Research use only.", "Ångström"),
        training=Training(data="cohort", patients={"train": ["1"], "val": ["2"]}, recipe={"lr": 1e-3}),
        figures={"cohort": {"dice_pooled": 0.8}},
    )


def test_a_card_survives_json(card):
    assert ModelCard.from_json(card.to_json()) == card


def broken(card: ModelCard, **changes: object) -> str:
    return json.dumps(json.loads(card.to_json()) | changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "something"}, "not the card"),
        ({"version": 99}, "update"),
        ({"version": "1"}, "update"),
        ({"mpp": 99.0}, "mpp"),
        ({"mpp": "1.5"}, "mpp"),
        ({"threshold": 1.5}, "threshold"),
        ({"margin": -1}, "negative margin"),
        ({"scope": "one sentence"}, "scope"),
        ({"surprise": 1}, "surprise"),
        ({"architecture": {"encoder": "efficientnet-lite0"}}, "weights"),
        ({"architecture": {"encoder": "efficientnet-lite0", "weights": [0.9, 0.9]}}, "sum to one"),
        ({"architecture": {"encoder": "swin-t", "weights": [1.0], "attention": "yes"}}, "attention"),
        ({"architecture": None}, "not complete"),
        ({"training": {"data": 3}}, "data"),
    ],
)
def test_a_wrong_entry_is_named_in_one_sentence(card, changes, says):
    with pytest.raises(ModelError, match=says) as error:
        ModelCard.from_json(broken(card, **changes), "model.json")
    assert "\n" not in str(error.value)


def test_a_card_of_version_1_is_read_as_one_without_attention(card):
    data = json.loads(card.to_json())
    data["version"] = 1
    del data["architecture"]["attention"], data["training"]["start"], data["support"]
    assert ModelCard.from_json(json.dumps(data)) == card
    assert not read_card("bundled").architecture.attention


def test_a_card_of_version_2_is_read_as_one_without_support(card):
    data = json.loads(replace(card, support=0.0).to_json())
    assert data["version"] == 3  # who knows version 2 only must be told to update
    data["version"] = 2
    del data["support"]
    assert ModelCard.from_json(json.dumps(data)).support == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"card"'])
def test_text_that_is_no_card_is_refused(text):
    with pytest.raises(ModelError):
        ModelCard.from_json(text)


def test_a_missing_entry_is_refused(card):
    data = json.loads(card.to_json())
    del data["mpp"]
    with pytest.raises(ModelError, match="mpp"):
        ModelCard.from_json(json.dumps(data))


def test_a_folder_without_a_card_is_refused(tmp_path):
    with pytest.raises(ModelError, match="There is no model in"):
        read_card(tmp_path)


def test_a_card_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "model.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ModelError, match="cannot be read"):
        read_card(tmp_path)


def test_the_bundled_card_says_what_the_model_is_for():
    card = read_card("bundled")
    scope = " ".join(card.scope).lower()
    assert "low-grade" in scope
    assert "serrated" in scope
    assert "research" in scope
    assert card.organ
    assert "CC BY 4.0" in card.training.terms
    assert not set(card.training.patients["train"]) & set(card.training.patients["val"])


def test_reading_the_bundled_card_does_not_import_torch():
    code = (
        "import sys, napari_histodistill.nets as n, napari_histodistill.mil as m; "
        "n.read_card('bundled'); m.load_dataset; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
