"""Settings and records of a training that others hold too; read without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Augmentation:
    """How far a training image may be changed.

    Attributes
    ----------
    zoom : (float, float)
        Range of magnification.
    stain : float
        Relative spread of the amount of each stain, and of the optical density of each colour channel.
    shift : float
        Largest shift of the amount of a stain, in optical density.
    blur, noise : float
        Largest Gaussian sigma in px, largest standard deviation of white noise in [0, 1].
    mosaic : float
        Share of the pairs of a positive and a negative image that are cut and exchanged.
    glass : float
        Share of the images that are half covered with empty glass.
    """

    zoom: tuple[float, float] = (0.7, 1.4)
    stain: float = 0.3
    shift: float = 0.05
    blur: float = 1.2
    noise: float = 0.04
    mosaic: float = 0.5
    glass: float = 0.25


@dataclass(frozen=True)
class Optimisation:
    """How a network is optimised.

    Attributes
    ----------
    optimiser : {"adamw", "adam"}
    lr : float
        Peak learning rate of the encoder.
    head_factor : float
        The side outputs' learning rate, as a multiple of the encoder's.
    weight_decay : float
    schedule : {"cosine", "constant"}
        After the warm-up: half a cosine to zero, or the peak throughout.
    warmup : int
        Steps over which the learning rate rises to its peak.
    average : float
        Decay per step of the running average of the weights, which is the model; 0 for the weights themselves.
    frozen_norm : bool
        Keep the statistics of BatchNorm as they are: images of few slides would bend them.
    """

    optimiser: Literal["adamw", "adam"] = "adamw"
    lr: float = 3e-4
    head_factor: float = 10.0
    weight_decay: float = 1e-2
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 30
    average: float = 0.99
    frozen_norm: bool = False

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step ``step`` of ``steps``."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        return self.lr * warm * ((1 + math.cos(math.pi * step / steps)) / 2 if self.schedule == "cosine" else 1.0)


@dataclass(frozen=True)
class Epoch:
    """One line of a training's record: mean loss and its terms, and the score of the model after the epoch."""

    number: int
    loss: float
    terms: dict[str, float]
    score: float | None
    seconds: float

    def __str__(self) -> str:
        terms = " + ".join(f"{name} {value:.4f}" for name, value in self.terms.items())
        score = "no score" if self.score is None else f"score {self.score:.4f}"
        return f"epoch {self.number}: loss {self.loss:.4f} ({terms}), {score}, {self.seconds:.0f} s"
