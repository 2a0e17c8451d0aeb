"""How a distillation is done: every choice that the paper or a measurement makes, under a name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from napari_histodistill.errors import HistodistillError
from napari_histodistill.mil.settings import Augmentation, Optimisation


class RecipeError(HistodistillError):
    """A recipe that does not exist."""


@dataclass(frozen=True)
class Targets:
    """What a teacher's maps become before a student learns from them.

    Attributes
    ----------
    views : {1, 4, 8}
        Views of an image that the teacher's maps are averaged over: as it is, four rotations, these and their mirrors.
    cut : {"soft", "fixed", "otsu", "relative"}
        The probabilities as they are; cut at ``threshold``; cut at each image's own threshold (Otsu 1979); or, in a bag
        that is known to hold tumour, at ``threshold`` times the bag's own score, the generalised mean of its map: a
        weak teacher stays below any fixed threshold in most of the tumour.
    threshold : float
        Where to cut. In a bag that is known to hold tumour less evidence is enough than anywhere else.
    temperature : float
        Divides the logits of the averaged map: above 1 softer, below 1 sharper.
    holes_mm2 : float
        Holes up to this area in a cut target belong to what surrounds them: lumens, mostly.
    density : float
        Only tissue stained at least this share as densely as the image's tissue on average can be a target of tumour
        (`mil.augment.dense_tissue`); 0 for all. A bag loss says which image holds tumour, hardly where in it.
    per_side : bool
        Every side output learns from the teacher's own output at that depth instead of from the fusion.
    """

    views: Literal[1, 4, 8] = 4
    cut: Literal["soft", "fixed", "otsu", "relative"] = "fixed"
    threshold: float = 0.4
    temperature: float = 1.0
    holes_mm2: float = 0.0
    density: float = 0.85
    per_side: bool = False


@dataclass(frozen=True)
class DistillRecipe:
    """Settings of a distillation.

    Attributes
    ----------
    targets : Targets
    distance : {"dice", "semimetric"}
        What L_kd is made of: the Dice dissimilarity of the paper, or the Dice semimetric loss (Wang et al. 2023), which
        a soft target does not bend.
    background : bool
        Compare a positive bag by its background too: the mean of D(f, t) and D(1 - f, 1 - t) instead of D(f, t).
    wce : float
        Weight lambda of the weighted cross-entropy L_wce.
    wce_sides : bool
        Whether L_wce is asked of every side output too, not of the fusion only.
    trust : bool
        Whether L_wce trusts pixels less that the student contradicts (OEEM, Li et al. 2022); else all alike.
    bags : float
        Weight of the teacher's bag loss beside the distillation.
    pseudo : float
        Weight of pseudo-targets in bags that may hold tumour; at 0 only corrections and bag labels teach.
    start : {"warm", "reversal", "new"}
        What a student starts from: the best model; the teacher that the last promotion displaced (the paper's role
        reversal; the first student is new); or always a new network.
    promote : {"better", "always"}
        Whether a student must beat the best model on the selection score to become the teacher.
    epochs : int
        Epochs of a round, unless asked for otherwise.
    optimisation : Optimisation
    augmentation : Augmentation
        What the student sees; the teacher sees the images as they are.
    crop, batch : int
        Side of the training images in px, and their number in a batch.
    both_stains : bool
        Show the student every image in its own colours too, where the teacher's stain normalisation changes them.
    smoothing_px : float
        Sigma of the Gaussian, in px that the network reads, that smooths the student's probabilities where it is used;
        0 keeps the teacher's.
    """

    targets: Targets = field(default_factory=Targets)
    distance: Literal["dice", "semimetric"] = "dice"
    background: bool = True
    wce: float = 1.0
    wce_sides: bool = True
    trust: bool = False
    bags: float = 0.0
    pseudo: float = 1.0
    start: Literal["warm", "reversal", "new"] = "warm"
    promote: Literal["better", "always"] = "better"
    epochs: int = 3
    optimisation: Optimisation = field(default_factory=Optimisation)
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(stain=0.5, shift=0.1, blur=2.0))
    crop: int = 144
    batch: int = 16
    both_stains: bool = True
    smoothing_px: float = 0.0


_PLAIN = Augmentation(zoom=(1.0, 1.0), stain=0.0, shift=0.0, blur=0.0, noise=0.0, mosaic=0.0, glass=0.0)
_DEFAULT = DistillRecipe()

RECIPES: dict[str, DistillRecipe] = {
    # The best found on validation patients, see docs/distillation.md.
    "default": _DEFAULT,
    # He, Li and Zemp 2024, section 3.2: soft fused targets, Adam at 5e-5 throughout, 256 px, rounds of 30 epochs,
    # teacher and student always exchanged; sigma 3 px at evaluation.
    "paper": DistillRecipe(
        targets=Targets(views=1, cut="soft", density=0.0),
        background=False,
        wce=2.0,
        wce_sides=False,
        trust=True,
        start="reversal",
        promote="always",
        epochs=30,
        optimisation=Optimisation(
            optimiser="adam", lr=5e-5, head_factor=1.0, weight_decay=5e-5, schedule="constant", warmup=0, average=0.0
        ),
        augmentation=_PLAIN,
        crop=256,
        both_stains=False,
        smoothing_px=3.0,
    ),
    # One change each, to see what a part does.
    "paper-loss": replace(
        _DEFAULT,
        targets=Targets(cut="soft", density=0.0),
        background=False,
        wce=2.0,
        wce_sides=False,
        trust=True,
    ),
    "no-density": replace(_DEFAULT, targets=Targets(threshold=0.5, density=0.0)),
    "faint": replace(_DEFAULT, targets=Targets(cut="relative", threshold=0.3)),
    "no-fusion": replace(_DEFAULT, targets=replace(_DEFAULT.targets, per_side=True)),
    "reversal": replace(_DEFAULT, start="reversal"),
    "no-wce": replace(_DEFAULT, wce=0.0),
    "trust": replace(_DEFAULT, trust=True),
    "corrections-only": replace(_DEFAULT, pseudo=0.0, bags=1.0),
    "self-training": replace(_DEFAULT, targets=Targets(views=1, threshold=0.5, density=0.0)),
}


def find_recipe(name: str) -> DistillRecipe:
    """The recipe of that name.

    Raises
    ------
    RecipeError
        If there is none.
    """
    if name not in RECIPES:
        raise RecipeError(f"There is no recipe {name!r}: choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
