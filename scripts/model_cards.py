"""Write ``docs/model-cards.md`` from the cards of the bundled models; with ``--check`` say whether it is current."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.nets import bundled_models, read_card
from napari_histodistill.nets.card import model_folder

if TYPE_CHECKING:
    from napari_histodistill.nets import ModelCard

PAGE = Path(__file__).parents[1] / "docs" / "model-cards.md"
HEAD = """# Model cards

Made by `scripts/model_cards.py` from the cards that lie beside the weights (`model.json`); do not edit.
"""
MEASURES = {
    "dice_pooled": "pooled Dice",
    "f1_positive": "F1 positive",
    "f1_negative": "F1 negative",
    "miou": "mIoU",
    "hd95_um": "HD95 µm",
}


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n{card_text(name, read_card(name))}" for name in bundled_models())


def card_text(name: str, card: ModelCard) -> str:
    """A section about one model."""
    training, weights = card.training, card.architecture.weights
    patients = ", ".join(f"{len(names)} patients in {split}" for split, names in training.patients.items())
    facts = {
        "chosen as": f"`--model {name}`",
        "for": f"{card.organ}, {card.stain}",
        "reads at": f"{card.mpp:g} µm per pixel",
        "stain normalisation": card.stain_normalisation or "none",
        "threshold, smoothing, support": f"{card.threshold:g}, {card.smoothing_um:g} µm, {card.support:g}",
        "network": f"{card.architecture.encoder}, side outputs weighted {', '.join(map(str, weights))}",
        "trained on": f"{training.data}: {training.labels}, {patients}",
        "bag loss": training.family,
        "started from": training.start,
        "terms": training.terms,
        "cite": training.citation,
        "weights": f"digest `{card.digest(model_folder(name))}`",
    }
    lines = [f"## {card.name[:1].upper()}{card.name[1:]}", ""]
    lines += [f"- {sentence}" for sentence in card.scope]
    lines += ["", "| | |", "| --- | --- |"]
    lines += [f"| {fact} | {value} |" for fact, value in facts.items() if value]
    return "\n".join([*lines, "", *_figures(card.figures)]) + "\n"


def _figures(figures: dict[str, Any]) -> list[str]:
    lines = [
        f"| measured on | images, patients | {' | '.join(MEASURES.values())} |",
        f"| {'--- | ' * (len(MEASURES) + 2)}",
    ]
    for data, measured in figures.items():
        counts = f"{measured['n_images']}, {measured['n_patients']}"
        for who, of in ((data, measured), ("all-foreground", measured["all_foreground"])):
            lines.append(f"| {who} | {counts} | {' | '.join(_number(of[m]) for m in MEASURES)} |")
    return [line.rstrip() for line in lines]


def _number(value: float) -> str:
    return f"{value:.1f}" if value > 2 else f"{value:.3f}"


def main() -> int:
    """Write, or compare."""
    if sys.argv[1:] == ["--check"]:
        return int(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
