"""Iterative fusion-knowledge distillation (He, Li and Zemp 2024): a teacher's fused maps teach students in rounds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_histodistill.distill.curves import write_curves
from napari_histodistill.distill.losses import student_loss
from napari_histodistill.distill.material import from_dataset
from napari_histodistill.distill.recipe import DistillRecipe
from napari_histodistill.distill.rounds import Round, Rounds, RoundsError, record_of
from napari_histodistill.distill.selection import NoEvidence, Select, evidence_of
from napari_histodistill.distill.targets import make_targets, pixel_weights
from napari_histodistill.mil.data import load_dataset
from napari_histodistill.mil.evaluate import stain_reference
from napari_histodistill.mil.families import TEACHERS
from napari_histodistill.mil.sampler import NEGATIVE, Sampler
from napari_histodistill.mil.store import ArrayStore
from napari_histodistill.mil.train import check_trainable
from napari_histodistill.mil.trainer import CHECKPOINT, Trainer, TrainingError, make_fabric
from napari_histodistill.nets.card import model_folder, read_card
from napari_histodistill.nets.model import Model, load_model, save_model
from napari_histodistill.nets.network import SideNetwork
from napari_histodistill.nets.registry import ENCODERS
from napari_histodistill.nets.threads import torch_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from lightning_fabric import Fabric
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_histodistill.distill.material import Material
    from napari_histodistill.distill.selection import Evidence
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.nets.card import ModelCard


@dataclass(frozen=True)
class DistillRequest:
    """What to distil, from whom, on what, and how.

    Attributes
    ----------
    teacher : str
        Folder of the first teacher, or "bundled".
    data : Path
        As `load_dataset` takes it. Training patients teach; validation patients decide what is promoted.
    out : Path
        Folder for rounds and the best model.
    rounds : int
    epochs : int, optional
        Of each round; the recipe's if None.
    seed : int
    mpp : float, optional
        µm per pixel of the data, in place of what it says.
    encoder : str, optional
        Of students that start new; the teacher's if None.
    select : {"bags", "masks"}
        What decides: bag labels of validation patients; or their masks, which are thereby declared validation
        annotations.
    device : str
    threads : int, optional
        CPU threads, see `nets.threads.torch_threads`.
    resume : bool
        Go on with what lies in ``out``.
    recipe : DistillRecipe
    """

    teacher: str
    data: Path
    out: Path
    rounds: int = 3
    epochs: int | None = None
    seed: int = 0
    mpp: float | None = None
    encoder: str | None = None
    select: Select = "bags"
    device: str = "auto"
    threads: int | None = None
    resume: bool = False
    recipe: DistillRecipe = field(default_factory=DistillRecipe)


@dataclass(frozen=True)
class DistillResult:
    """A finished distillation: its folder, the rounds, and the folder of the best model within."""

    folder: Path
    rounds: tuple[Round, ...]
    best: str


def distill(request: DistillRequest, control: JobControl) -> DistillResult:
    """Distil a teacher into students on a data set, round by round; the folder then holds the best model.

    The same request gives the same weights on one device, however often it was stopped and resumed.

    Raises
    ------
    TrainingError, DatasetError, ModelError, RoundsError
        If teacher, data or folder cannot be used as asked.
    JobCancelled
        After a cancel; finished epochs are kept for ``resume``.
    """
    if request.rounds < 1 or (request.epochs is not None and request.epochs < 1):
        raise TrainingError("A distillation needs at least one round of one epoch.")
    with torch_threads(request.threads):
        return _distill(request, control)


def _distill(request: DistillRequest, control: JobControl) -> DistillResult:
    teacher = model_folder(request.teacher)
    card = read_card(teacher)
    encoder = request.encoder or card.architecture.encoder
    fabric = make_fabric(request.device, encoder)
    dataset = load_dataset(request.data, request.mpp).with_splits()
    train = dataset.part("train")
    check_trainable(dataset, card.training.family)
    reference = stain_reference(card) if card.stain_normalisation else None
    recipe = request.recipe if request.epochs is None else replace(request.recipe, epochs=request.epochs)
    settings = settings_of(request, recipe, card, dataset.name)
    there = (request.out / "state.json").is_file()
    fabric.barrier()  # every process has looked before one of them begins
    if there and not request.resume:
        raise RoundsError(f"{request.out} holds a distillation: resume it, or choose another folder for a new one.")
    if fabric.is_global_zero and not there:
        Rounds.begin(request.out, teacher, settings)
    fabric.barrier()
    rounds = Rounds.open(request.out, settings)
    if rounds.next <= request.rounds:
        material = from_dataset(train, card.mpp, reference, both_stains=recipe.both_stains)
        evidence = evidence_of(dataset, request.select, reference)
        student = StudentPlan(encoder, card, dataset.name)
        distil_rounds(rounds, material, evidence, recipe, student, request.rounds, request.seed, fabric, control)
    return DistillResult(request.out, tuple(rounds.rounds), rounds.roles.best)


def settings_of(request: DistillRequest, recipe: DistillRecipe, card: ModelCard, data: str) -> dict[str, Any]:
    """What decides the weights, as JSON: rounds go on only under the same."""
    settings = {
        "teacher": card.name,
        "data": data,
        "mpp": request.mpp,
        "seed": request.seed,
        "encoder": request.encoder,
        "select": request.select,
        "recipe": asdict(recipe),
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


@dataclass(frozen=True)
class StudentPlan:
    """What students are: their encoder where they start new, the first teacher's card, and the data they learn from."""

    encoder: str
    teacher: ModelCard
    data: str


def distil_rounds(
    rounds: Rounds,
    material: Material,
    evidence: Evidence,
    recipe: DistillRecipe,
    plan: StudentPlan,
    count: int,
    seed: int,
    fabric: Fabric,
    control: JobControl,
    correction_weight: float = 5.0,
    preview: Callable[[Model], None] | None = None,
) -> None:
    """Do the rounds up to ``count``; reports carry an `Epoch` after every epoch and a `Round` after every round.

    ``preview`` is shown the student after every epoch.
    """
    device = str(fabric.device)
    if rounds.roles.score is None:
        control.progress(0, 0, "Judging the teacher")
        rounds.set_best_score(fabric.broadcast(judge_best(rounds, evidence, device)))
    while rounds.next <= count:
        number, roles = rounds.next, rounds.roles
        control.progress(0, 0, f"Round {number}: the teacher looks at the training images")
        teacher = load_model(rounds.model(roles.teacher), device)
        targets = ArrayStore(make_targets(teacher, material, recipe.targets, control))
        start = start_of(recipe, rounds)
        network, fresh_card = build_student(plan, rounds, start, seed + number)
        card = student_card(fresh_card, plan, recipe, number, seed)
        trainer = Trainer(
            network,
            student_loss(recipe, family_bag_loss(plan.teacher)),
            make_sampler(material, targets, recipe, fabric, correction_weight),
            recipe.optimisation,
            recipe.epochs,
            fabric,
            keep_best=True,
            name=f"round {number}",
        )
        checkpoint = rounds.folder / CHECKPOINT
        if checkpoint.is_file():
            trainer.load(checkpoint)

        def judge(student: SideNetwork, card: ModelCard = card) -> float | None:
            model = Model(student, card, device)
            if preview is not None:
                preview(model)
            score: float | None = fabric.broadcast(evidence.score(model))
            return score

        # The seed of a round is its own, so that a round that was not promoted is not merely repeated.
        trainer.run(seed + 1000 * number, control, checkpoint, judge)
        best = trainer.best or trainer.epochs[-1]
        folder = f"rounds/{number}"
        if fabric.is_global_zero:
            save_model(rounds.make_room(folder), trainer.model, card)
        fabric.barrier()
        after, outcome = roles.after(folder, best.score, always=recipe.promote == "always")
        record = record_of(number, roles, start, outcome, best.score, trainer.epochs)
        if fabric.is_global_zero:
            rounds.finish(record, after)
            write_curves(rounds.folder / "curves.png", rounds.rounds, rounds.rounds[0].best_before, evidence.name)
        else:
            rounds.rounds.append(record)
            rounds.roles = after
        fabric.barrier()
        control.progress(number, count, str(record), record)


def judge_best(rounds: Rounds, evidence: Evidence, device: str) -> float | None:
    """How well the best model does; without evidence it is not even loaded."""
    if isinstance(evidence, NoEvidence):
        return None
    return evidence.score(load_model(rounds.model(rounds.roles.best), device))


def start_of(recipe: DistillRecipe, rounds: Rounds) -> str:
    """The folder of the model that the next student starts from, "" for a new network, see `DistillRecipe.start`.

    After a round that was not promoted the student starts from the best model whatever the recipe, unless it is "new".
    """
    roles = rounds.roles
    if recipe.start == "new" or (recipe.start == "reversal" and not rounds.rounds):
        return ""
    if recipe.start == "reversal" and (rounds.rounds[-1].outcome == "promoted" or recipe.promote == "always"):
        return roles.displaced
    return roles.best


def build_student(plan: StudentPlan, rounds: Rounds, start: str, seed: int) -> tuple[SideNetwork, ModelCard]:
    """The student's network with the weights it starts from, and a card of its architecture.

    A start of another encoder than the one asked for cannot be taken: the student is then new.
    """
    if start and read_card(rounds.model(start)).architecture.encoder == plan.encoder:
        model = load_model(rounds.model(start), "cpu")
        return model.network, model.card
    torch.manual_seed(seed)
    architecture = replace(plan.teacher.architecture, encoder=plan.encoder)
    sides = len(ENCODERS.load(plan.encoder).channels)
    if sides != len(architecture.weights):
        architecture = replace(architecture, weights=(1 / sides,) * sides)
    network = SideNetwork(architecture.encoder, architecture.weights, architecture.attention)
    training = replace(plan.teacher.training, start=network.encoder.load_imagenet())
    return network, replace(
        plan.teacher,
        architecture=architecture,
        margin=network.margin,
        multiple=network.period,
        training=training,
    )


def student_card(card: ModelCard, plan: StudentPlan, recipe: DistillRecipe, number: int, seed: int) -> ModelCard:
    """The card of a round's student: its teacher's, with what it learnt from."""
    first = plan.teacher.training
    distilled = {"teacher": plan.teacher.name, "data": plan.data, "round": number, "seed": seed, **asdict(recipe)}
    recipe_entry = {**first.recipe, "distillation": json.loads(json.dumps(distilled))}
    return replace(
        card,
        name=f"{plan.teacher.name.split(', round')[0]}, round {number}",
        smoothing_um=recipe.smoothing_px * card.mpp or card.smoothing_um,
        training=replace(first, recipe=recipe_entry, start=card.training.start),
        figures={},
    )


def family_bag_loss(card: ModelCard) -> Any:
    """The bag loss (maps, labels, inside) of the teacher's family; ``gm`` where it has none."""
    name = card.training.family
    family = TEACHERS.load(name if name in TEACHERS.names() else "gm")

    def loss(maps: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
        return family.loss(maps, labels, inside, 1.0)

    return loss


def make_sampler(
    material: Material,
    targets: Sequence[NDArray[np.uint8]],
    recipe: DistillRecipe,
    fabric: Fabric,
    correction_weight: float = 5.0,
) -> Sampler:
    """Batches of the material with the targets of its places and, where a person set something, weights."""
    by_hand = material.set_by_hand
    weights = None
    if by_hand is not None:
        weights = ArrayStore(
            pixel_weights(place, correction_weight, 1.0 if label == NEGATIVE else recipe.pseudo)
            for place, label in zip(by_hand, material.place_labels, strict=True)
        )
    return Sampler(
        material.images,
        material.labels,
        recipe.crop,
        recipe.batch,
        recipe.augmentation,
        [targets[place] for place in material.places],
        None if weights is None else [weights[place] for place in material.places],
        share=(fabric.global_rank, fabric.world_size),
    )
