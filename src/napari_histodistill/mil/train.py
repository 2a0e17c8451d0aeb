"""Train a teacher from image-level labels (He, Li and Zemp 2024, section 2.1), or with full masks as its ceiling."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from napari_histodistill.mil.augment import Batch, dense_tissue
from napari_histodistill.mil.data import Bag, BagDataset, DatasetError, load_dataset
from napari_histodistill.mil.families import MASKS, family_of, methods
from napari_histodistill.mil.losses import pixel_loss
from napari_histodistill.mil.sampler import Sampler
from napari_histodistill.mil.settings import Augmentation, Epoch, Optimisation
from napari_histodistill.mil.store import ArrayStore
from napari_histodistill.mil.trainer import CHECKPOINT, Trainer, TrainingError, make_fabric
from napari_histodistill.nets.card import CARD_NAME, Architecture, ModelCard, Training
from napari_histodistill.nets.model import Model, save_model
from napari_histodistill.nets.network import SideNetwork
from napari_histodistill.nets.registry import ENCODERS
from napari_histodistill.nets.stain import REINHARD, typical_stain
from napari_histodistill.nets.threads import torch_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.mil.trainer import Loss
    from napari_histodistill.nets.network import Maps
    from napari_histodistill.nets.stain import StainStatistics


@dataclass(frozen=True)
class Recipe:
    """Settings of a training that seldom change.

    Attributes
    ----------
    encoder : str, optional
        A name in `nets.registry.ENCODERS`; the family's own if None.
    mpp : float
        µm per pixel that the network reads.
    crop, batch : int
        Side of the training images in px, and their number in a batch.
    lr : float
        Peak learning rate of the encoder, after a warm-up along half a cosine to zero; the heads' is ten times that.
    weight_decay : float
    prior : float
        Weight of the density prior beside the bag loss: the pixel loss against the dense tissue of positive bags.
    density : float
        Share of the mean density of an image's tissue from which a place counts as dense, see `dense_tissue`.
    enough : float
        How well a positive bag must be found before it costs nothing, see `losses`.
    average : float
        Decay per step of the running average of the weights; the average is the model.
    normalise : bool
        Train on every image twice, in its own colours and with its stain normalised to that of all training images,
        and normalise the stain where the model is used.
    augmentation : Augmentation
    """

    encoder: str | None = None
    mpp: float = 1.5
    crop: int = 144
    batch: int = 16
    lr: float = 3e-4
    weight_decay: float = 1e-2
    prior: float = 1.0
    density: float = 0.85
    enough: float = 0.8
    average: float = 0.99
    normalise: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def optimisation(self) -> Optimisation:
        """The optimiser's part of the settings."""
        return Optimisation(lr=self.lr, weight_decay=self.weight_decay, average=self.average)


TEACHER_RECIPES = {
    # The best found on validation patients, see docs/teacher.md.
    "default": Recipe(),
    # The losses as the families' papers have them, on whole images.
    "published": Recipe(prior=0.0, enough=1.0, augmentation=Augmentation(mosaic=0.0, glass=0.0)),
}


@dataclass(frozen=True)
class TrainRequest:
    """What to train a teacher on, and how.

    Attributes
    ----------
    data : Path
        As `load_dataset` takes it.
    out : Path
        Folder for the model and, while it trains, the checkpoint.
    method : str
        Family of the bag loss, or "masks": full supervision, the ceiling to compare with.
    encoder : str, optional
        In place of the recipe's.
    attention : bool, optional
        Criss-cross attention at every depth, in place of what the family has: for the ceiling of ``attention``.
    epochs, seed : int
    mpp : float, optional
        µm per pixel of the data, in place of what it says.
    device : str
    threads : int, optional
        CPU threads, see `nets.threads.torch_threads`.
    resume : bool
        Go on from the checkpoint in ``out``.
    recipe : Recipe
    """

    data: Path
    out: Path
    method: str = "gm"
    encoder: str | None = None
    attention: bool | None = None
    epochs: int = 8
    seed: int = 0
    mpp: float | None = None
    device: str = "auto"
    threads: int | None = None
    resume: bool = False
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class TrainResult:
    """A finished training: where the model lies, its card, and the record of its epochs."""

    folder: Path
    card: ModelCard
    epochs: tuple[Epoch, ...]


def train_teacher(request: TrainRequest, control: JobControl) -> TrainResult:
    """Train on the training patients of a data set, save the model, and return the record.

    The model is the running average of the weights after the last epoch: nothing is selected.

    Raises
    ------
    TrainingError, DatasetError, MissingWeightsError, RegistryError
        If the method or the encoder is unknown, the data lack positive or negative training images or (for "masks")
        masks, weights are not installed, or the folder holds a model or a training that is not to be resumed.
    """
    if request.method not in methods():
        raise TrainingError(f"There is no method {request.method!r}: choose one of {', '.join(methods())}.")
    if request.epochs < 1:
        raise TrainingError("A training needs at least one epoch.")
    finished, stopped = ((request.out / name).exists() for name in (CARD_NAME, CHECKPOINT))
    if request.resume and finished and not stopped:
        raise TrainingError(f"The training in {request.out} is finished: choose another folder for a new one.")
    if not request.resume and (finished or stopped):
        raise TrainingError(
            f"{request.out} holds a model or a stopped training: resume it, or choose another folder for a new one."
        )
    with torch_threads(request.threads):
        return _train(request, control)


def _train(request: TrainRequest, control: JobControl) -> TrainResult:
    dataset = load_dataset(request.data, request.mpp).with_splits()
    check_trainable(dataset, request.method)
    recipe, train = request.recipe, dataset.part("train")
    torch.manual_seed(request.seed)
    architecture = architecture_of(request)
    fabric = make_fabric(request.device, architecture.encoder)
    network = SideNetwork(architecture.encoder, architecture.weights, architecture.attention)
    start = network.encoder.load_imagenet()
    colours = typical_stain(bag.read_image(recipe.mpp) for bag in train.bags)
    reference = colours if recipe.normalise else None
    sampler = make_sampler(train, recipe, request.method, reference, (fabric.global_rank, fabric.world_size))
    control.progress(0, request.epochs * sampler.steps, f"{architecture.encoder} starts from {start}")
    card = make_card(request, dataset, network, start, colours)
    trainer = Trainer(network, loss_of(request.method, recipe), sampler, recipe.optimisation, request.epochs, fabric)
    checkpoint = request.out / CHECKPOINT
    request.out.mkdir(parents=True, exist_ok=True)
    if request.resume and checkpoint.is_file():
        trainer.load(checkpoint)
    validation = read_images(dataset.part("val"), recipe.mpp, reference)
    device = str(fabric.device)
    trainer.run(request.seed, control, checkpoint, lambda network: bag_auc(Model(network, card, device), validation))
    if fabric.is_global_zero:
        save_model(request.out, trainer.model, card)
        checkpoint.unlink(missing_ok=True)
    return TrainResult(request.out, card, tuple(trainer.epochs))


def check_trainable(dataset: BagDataset, method: str) -> None:
    """Raise `DatasetError` if the training part lacks positive or negative images, or masks that a method needs."""
    train = dataset.part("train")
    for label, word in ((1, "positive"), (0, "negative")):
        if not any(bag.label == label for bag in train.bags):
            raise DatasetError(f"The training part of {dataset.name} has no {word} image: a teacher needs both kinds.")
    if method == MASKS and not all(bag.has_truth for bag in train.bags):
        raise DatasetError(f"The method 'masks' needs a mask for every positive training image of {dataset.name}.")


def architecture_of(request: TrainRequest) -> Architecture:
    """The network that a request asks for.

    Raises
    ------
    RegistryError
        If the encoder or the family is unknown or broken.
    """
    family = family_of(request.method)
    encoder = request.encoder or request.recipe.encoder or family.encoder
    weights = family.fusion_weights(len(ENCODERS.load(encoder).channels))
    attention = family.attention if request.attention is None else request.attention
    return Architecture(encoder, weights, attention)


def loss_of(method: str, recipe: Recipe) -> Loss:
    """The loss of a batch: of its bags (mean, weighted by the root of their area) and the density prior, or of pixels.

    The pixels' loss alone is for the method "masks".
    """
    if method == MASKS:
        return lambda maps, batch: {"pixels": target_loss(maps, batch)}
    family = family_of(method)

    def loss(maps: Maps, batch: Batch) -> dict[str, Tensor]:
        inside = maps.sample(batch.bag_inside)
        weight = inside.mean((1, 2)).sqrt()
        losses = family.loss(maps.all()[batch.bag_image], batch.bag_label, inside, recipe.enough)
        terms = {"bags": (losses * weight).sum() / weight.sum()}
        return terms | {"prior": recipe.prior * target_loss(maps, batch)} if recipe.prior else terms

    return loss


def target_loss(maps: Maps, batch: Batch) -> Tensor:
    """Pixel loss against the batch's targets, cut at 0.5."""
    if batch.targets is None:
        raise ValueError("the batch has no pixel targets")
    return pixel_loss(maps.all(), (maps.sample(batch.targets[:, 0]) >= 0.5).float())


def make_sampler(
    dataset: BagDataset,
    recipe: Recipe,
    method: str,
    reference: StainStatistics | None = None,
    share: tuple[int, int] = (0, 1),
) -> Sampler:
    """A sampler of the images of a data set with the method's targets.

    With a ``reference`` stain every image is there twice, in its own colours and in the reference's.
    """
    versions = (None,) if reference is None else (None, reference)
    images = ArrayStore(bag.read_image(recipe.mpp, version) for version in versions for bag in dataset.bags)
    labels = [bag.label for _ in versions for bag in dataset.bags]
    targets = mask_targets(dataset, recipe.mpp) if method == MASKS else prior_targets(dataset, recipe)
    if targets is not None:
        targets = targets * len(versions)
    return Sampler(images, labels, recipe.crop, recipe.batch, recipe.augmentation, targets, share=share)


def prior_targets(dataset: BagDataset, recipe: Recipe) -> list[NDArray[np.uint8]] | None:
    """What the density prior takes for tumour (255): the dense tissue of positive images; None without the prior."""
    if not recipe.prior:
        return None
    return [
        dense_tissue(bag.read_image(recipe.mpp), recipe.mpp, recipe.density).astype(np.uint8)
        * np.uint8(255 * bag.label)
        for bag in dataset.bags
    ]


def mask_targets(dataset: BagDataset, mpp: float) -> list[NDArray[np.uint8]]:
    """True tumour masks (0 or 255, blurred at outlines) on the grids of the images at ``mpp``."""
    targets = []
    for bag in dataset.bags:
        h, w = bag.read_image(mpp).shape[:2]
        mask = Image.fromarray(bag.read_truth().astype(np.uint8) * 255)
        targets.append(np.asarray(mask.resize((w, h), Image.Resampling.BILINEAR)))
    return targets


def read_images(
    dataset: BagDataset, mpp: float, reference: StainStatistics | None
) -> list[tuple[Bag, NDArray[np.uint8]]]:
    """Bags with their images at ``mpp``, normalised to a reference stain where there is one."""
    return [(bag, bag.read_image(mpp, reference)) for bag in dataset.bags]


def bag_score(probability: NDArray[np.float32]) -> float:
    """How positive a bag is by its map (h, w): the generalised mean (r = 4) of its probabilities, in [0, 1]."""
    return float(np.mean(probability.astype(np.float64) ** 4) ** 0.25)


def bag_auc(model: Model, images: Sequence[tuple[Bag, NDArray[np.uint8]]]) -> float | None:
    """How often a positive image's bag score exceeds a negative one's; None without one of both.

    The score is `bag_score` of the fused map, so no pixel label is looked at.
    """
    scores: dict[int, list[float]] = {0: [], 1: []}
    for bag, image in images:
        scores[bag.label].append(bag_score(model.predict(image[None])[0]))
    if not scores[0] or not scores[1]:
        return None
    positive, negative = np.array(scores[1])[:, None], np.array(scores[0])[None]
    return float(np.mean((positive > negative) + 0.5 * (positive == negative)))


def make_card(
    request: TrainRequest,
    dataset: BagDataset,
    network: SideNetwork,
    start: str = "",
    colours: StainStatistics | None = None,
) -> ModelCard:
    """The card of a model that a request trains; ``start`` is what `Encoder.load_imagenet` said."""
    architecture = architecture_of(request)
    recipe = replace(request.recipe, encoder=architecture.encoder)
    labels = "full masks" if request.method == MASKS else "image-level labels"
    training = Training(
        data=dataset.name,
        labels=labels,
        family=request.method,
        patients={"train": dataset.part("train").patients(), "val": dataset.part("val").patients()},
        seed=request.seed,
        recipe=json.loads(json.dumps({"epochs": request.epochs, **asdict(recipe)})),
        start=start,
    )
    return ModelCard(
        name=f"{request.method} teacher on {dataset.name}",
        architecture=architecture,
        mpp=recipe.mpp,
        margin=network.margin,
        multiple=network.period,
        stain_normalisation=REINHARD if recipe.normalise and colours else None,
        stain_reference=colours.to_card() if colours else None,
        scope=("Research use only, not for diagnosis.", f"Trained on {dataset.name} from {labels}, not validated."),
        training=training,
    )
