"""What strokes are worth: a simulated annotator corrects training images, with distillation in between and without.

    python scripts/annotator.py DATA --teacher WORK/teacher-gm-0 [--seed 0] [--arms distil strokes] [--work DIR]

Between two points of the curve the annotator makes strokes, each through the largest error of the worst training image
(`distill.annotator`), and one round is done: with pseudo-targets and corrections (``distil``), or with corrections and
bag labels only (``strokes``). Pooled Dice on test patients, and on the corrected images themselves, is written to
docs/results/annotator-ARM-SEED.json after every point; a run that was cut begins its arm anew.

    python scripts/annotator.py --slide [FILE --truth PNG] [--strokes 10 20 40] [--rounds 1] [--work DIR]

does the same in the tool: the controllers behind napari's docks run the bundled teacher on a slide (a generated one by
default), paint with the brush and distil, and the curve of strokes against Dice is written to WORK/annotator-slide.json
and, as a picture, WORK/annotator-slide.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_histodistill.distill import find_recipe
from napari_histodistill.distill.annotator import next_stroke
from napari_histodistill.distill.distillation import StudentPlan, distil_rounds
from napari_histodistill.distill.material import Material, from_dataset
from napari_histodistill.distill.rounds import Rounds
from napari_histodistill.distill.selection import MaskEvidence
from napari_histodistill.jobs import InlineControl
from napari_histodistill.metrics import score_image, summarise
from napari_histodistill.mil import evaluate_model, load_dataset
from napari_histodistill.mil.evaluate import stain_reference
from napari_histodistill.mil.store import ArrayStore
from napari_histodistill.mil.train import mask_targets
from napari_histodistill.mil.trainer import make_fabric
from napari_histodistill.nets import load_model, read_card

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
STROKES = (0, 40, 80, 160, 320)
ARMS = {"distil": "default", "strokes": "corrections-only"}
EPOCHS = 2


class Annotator:
    """The training images, what strokes have set on them, and how many there were."""

    def __init__(self, material: Material, truth: list[NDArray[np.bool_]]) -> None:
        self.material, self.truth = material, truth
        self.by_hand = [np.full(t.shape, 255, np.uint8) for t in truth]
        self.strokes = 0

    def correct(self, folder: Path, until: int) -> None:
        """Make strokes on what the model in a folder says, until there were so many."""
        model = load_model(folder, "cpu")
        found = [
            model.predict(image[None])[0] >= model.card.threshold if label else np.zeros(image.shape[:2], bool)
            for image, label in zip(self.material.seen, self.material.place_labels, strict=True)
        ]
        while self.strokes < until:
            stroke = next_stroke(found, self.truth, self.by_hand)
            if stroke is None:
                return
            self.by_hand[stroke.image][stroke.pixels] = stroke.value
            self.strokes += 1

    @property
    def corrected(self) -> Material:
        """The material with the corrections."""
        return replace(self.material, set_by_hand=ArrayStore(self.by_hand))

    def share(self) -> float:
        """Percent of all training pixels that strokes touched."""
        return 100 * sum(np.count_nonzero(h != 255) for h in self.by_hand) / sum(h.size for h in self.by_hand)

    def own_score(self, folder: Path) -> float | None:
        """Pooled Dice of a model on the corrected images alone, corrections laid over what it says."""
        model, scores = load_model(folder, "cpu"), []
        for image, truth, hand in zip(self.material.seen, self.truth, self.by_hand, strict=True):
            if (hand != 255).any():
                found = model.predict(image[None])[0] >= model.card.threshold
                scores.append(score_image(np.where(hand == 255, found, hand == 1), truth, 0, ""))
        return summarise(scores)["dice_pooled"] if scores else None


def curve(arm: str, data: Path, teacher: Path, work: Path, seed: int) -> list[dict[str, Any]]:
    """The points of one arm."""
    card, control = read_card(teacher), InlineControl(lambda e: print(e.message, flush=True) if e.payload else None)
    reference = stain_reference(card) if card.stain_normalisation else None
    dataset = load_dataset(data / "ebhi-seg").with_splits()
    train = dataset.part("train")
    truth = [target >= 128 for target in mask_targets(train, card.mpp)]
    annotator = Annotator(from_dataset(train, card.mpp, reference), truth)
    evidence = MaskEvidence(dataset.part("val"), reference)
    recipe = replace(find_recipe(ARMS[arm]), epochs=EPOCHS)
    shutil.rmtree(work, ignore_errors=True)
    rounds = Rounds.begin(work, teacher, {})
    points = []
    for number, strokes in enumerate(STROKES):
        if strokes:
            annotator.correct(rounds.folder, strokes)
            plan = StudentPlan(card.architecture.encoder, card, dataset.name)
            distil_rounds(
                rounds, annotator.corrected, evidence, recipe, plan, number, seed, make_fabric("cpu"), control
            )
        figures = evaluate_model(load_model(rounds.folder, "cpu"), load_dataset(data / "ebhi-seg")).to_json()
        points.append(
            {
                "strokes": annotator.strokes,
                "percent_of_training_pixels": annotator.share(),
                "dice_pooled": figures["dice_pooled"],
                "f1_negative": figures["f1_negative"],
                "dice_of_corrected_images": annotator.own_score(rounds.folder),
                "outcome": rounds.rounds[-1].outcome if rounds.rounds else "teacher",
            }
        )
        print(arm, points[-1], flush=True)
        out = ROOT / "docs" / "results" / f"annotator-{arm}-{seed}.json"
        out.write_text(json.dumps({"arm": arm, "seed": seed, "points": points}, indent=1) + "\n")
    return points


def draw_on_slide(args: argparse.Namespace) -> None:
    """The curve of the tool on one slide."""
    from PIL import Image

    from napari_histodistill.slide.synthetic import sample_slide_path, sample_truth
    from slide_annotator import SlideAnnotator
    from slide_annotator import curve as slide_curve

    path = Path(args.slide) if args.slide else sample_slide_path()
    truth = np.asarray(Image.open(args.truth).convert("L")) > 0 if args.truth else sample_truth(path)
    args.work.mkdir(parents=True, exist_ok=True)
    study = args.work / f"{path.stem}-study"
    shutil.rmtree(study, ignore_errors=True)
    annotator = SlideAnnotator(path, truth, study)
    annotator.settings.rounds = args.rounds
    for name, value in (("epochs", args.epochs), ("most_tiles", args.tiles)):
        if value is not None:
            setattr(annotator.settings, name, value)
    points = slide_curve(annotator, tuple(args.strokes))
    annotator.close()
    for point in points:
        print(point)
    (args.work / "annotator-slide.json").write_text(json.dumps({"slide": path.name, "points": points}, indent=1) + "\n")
    write_picture(points, args.work / "annotator-slide.png")


def write_picture(points: list[dict[str, Any]], path: Path) -> None:
    """Strokes against Dice."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, label in (
        ("dice", "on screen, corrections laid over"),
        ("dice_not_painted", "where nothing was painted"),
    ):
        axes.plot([point["strokes"] for point in points], [point[name] for point in points], marker="o", label=label)
    axes.set(xlabel="strokes", ylabel="Dice with the truth")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with ebhi-seg")
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--work", type=Path, default=ROOT / ".work" / "annotator")
    parser.add_argument("--slide", nargs="?", const="", help="through the tool's controllers, on this slide")
    parser.add_argument("--truth", type=Path, help="picture of the slide's tumour; the generated slide has its own")
    parser.add_argument("--strokes", type=int, nargs="*", default=[10, 20, 40], help="in all, before each distillation")
    parser.add_argument("--rounds", type=int, default=1, help="after each of them")
    parser.add_argument("--epochs", type=int, help="of a round on the slide")
    parser.add_argument("--tiles", type=int, help="that a round on the slide learns from")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.slide is not None:
        if args.slide and args.truth is None:
            parser.error("a slide of your own needs --truth, a picture of its tumour")
        draw_on_slide(args)
        return
    if args.data is None or args.teacher is None:
        parser.error("name the folder of the data and --teacher, or --slide")
    for arm in args.arms:
        curve(arm, args.data, args.teacher, args.work / f"{arm}-{args.seed}", args.seed)


if __name__ == "__main__":
    main()
