"""The optimisation of a network over epochs: teachers and students alike, on one device or several."""

from __future__ import annotations

import copy
import math
import os
import pickle
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from torch import nn

from napari_histodistill.errors import HistodistillError
from napari_histodistill.mil.settings import Epoch
from napari_histodistill.nets.model import normalise, pick_device
from napari_histodistill.nets.network import Maps, SideNetwork
from napari_histodistill.nets.registry import ENCODERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.mil.augment import Batch
    from napari_histodistill.mil.sampler import Sampler
    from napari_histodistill.mil.settings import Optimisation

    Loss = Callable[[Maps, Batch], Mapping[str, Tensor]]
    Score = Callable[[SideNetwork], float | None]

CHECKPOINT = "checkpoint.pt"


class TrainingError(HistodistillError):
    """A training that cannot be done as asked."""


def make_fabric(device: str = "auto", encoder: str | None = None) -> Fabric:
    """The device or devices to train on: all that ``torchrun`` started processes for, else one.

    In mixed precision (bfloat16) on CUDA, and on CPUs that multiply in bfloat16 for an encoder that says it pays
    there; else in single precision.
    """
    name = pick_device(device).split(":")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    devices: Any = [int(name[1])] if len(name) > 1 and processes == 1 else processes
    fabric = Fabric(
        accelerator=name[0],
        devices=devices,
        num_nodes=int(os.environ.get("WORLD_SIZE", "1")) // processes,
        strategy="ddp" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else "auto",
        precision="bf16-mixed" if _mixed_pays(name[0], encoder) else "32-true",
    )
    fabric.launch()
    return fabric


def _mixed_pays(device: str, encoder: str | None) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device != "cpu" or encoder is None or not ENCODERS.load(encoder).mixed_on_cpu:
        return False
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions do not tell
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class _AllMaps(nn.Module):
    """A network whose maps come as one tensor, which wrappers for several devices can pass on."""

    def __init__(self, network: SideNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).all()  # type: ignore[no-any-return]


class Trainer:
    """Optimises a network over epochs, keeps the running average of its weights, and can stop and go on.

    Parameters
    ----------
    network : SideNetwork
    loss : callable
        ``loss(maps, batch)`` gives named terms, whose sum is minimised.
    sampler : Sampler
    optimisation : Optimisation
    epochs : int
        In all.
    fabric : Fabric
    keep_best : bool
        Whether the model is that of the epoch with the best score, not of the last.
    name : str
        Tells its checkpoints from those of other trainings in the folder.

    Attributes
    ----------
    average : SideNetwork
        The running average of the weights, BatchNorm statistics included.
    epochs : list of Epoch
        Finished so far.
    best : Epoch or None
        The one whose model is kept.
    """

    def __init__(
        self,
        network: SideNetwork,
        loss: Loss,
        sampler: Sampler,
        optimisation: Optimisation,
        epochs: int,
        fabric: Fabric,
        *,
        keep_best: bool = False,
        name: str = "",
    ) -> None:
        self.name = name
        self.loss, self.sampler, self.settings, self.total, self.fabric = loss, sampler, optimisation, epochs, fabric
        self.epochs: list[Epoch] = []
        self.best: Epoch | None = None
        self._best_state: dict[str, Tensor] | None = None
        self._keep_best = keep_best
        self.network = network.to(device=fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average: SideNetwork = copy.deepcopy(self.network)
        encoder = list(network.encoder.parameters())
        known = {id(p) for p in encoder}
        heads = [p for p in network.parameters() if id(p) not in known]
        groups = [{"params": encoder, "factor": 1.0}, {"params": heads, "factor": optimisation.head_factor}]
        kind = torch.optim.AdamW if optimisation.optimiser == "adamw" else torch.optim.Adam
        optimiser = kind(groups, lr=optimisation.lr, weight_decay=optimisation.weight_decay)
        self._model, self.optimiser = fabric.setup(_AllMaps(self.network), optimiser)

    def run(
        self, seed: int, control: JobControl, checkpoint: Path | None = None, score: Score = lambda _network: None
    ) -> None:
        """Train the epochs that are left; after each, write the checkpoint and tell ``control`` its record."""
        while len(self.epochs) < self.total:
            start, number = time.monotonic(), len(self.epochs)
            sums: dict[str, float] = {}
            for i, batch in enumerate(self.sampler.epoch(seed, number)):
                control.checkpoint()
                for name, value in self.step(batch, number * self.sampler.steps + i).items():
                    sums[name] = sums.get(name, 0.0) + value / self.sampler.steps
                control.progress(number * self.sampler.steps + i + 1, self.total * self.sampler.steps, "Training")
            if not math.isfinite(sum(sums.values())):
                raise TrainingError(
                    f"The loss of epoch {number + 1} is not a number, so the network is lost: use a lower learning "
                    "rate or another seed."
                )
            record = Epoch(number + 1, sum(sums.values()), sums, score(self.average), time.monotonic() - start)
            self.epochs.append(record)
            self._keep(record)
            if checkpoint is not None and self.fabric.is_global_zero:
                self.save(checkpoint)
            control.progress(
                len(self.epochs) * self.sampler.steps, self.total * self.sampler.steps, str(record), record
            )

    def step(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of the optimiser; the loss terms before it."""
        batch = batch.to(self.fabric.device)
        rate = self.settings.rate(step, self.total * self.sampler.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self._model.train()
        if self.settings.frozen_norm:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        maps = self._model(normalise(batch.images))
        terms = self.loss(Maps(maps[:, :-1], maps[:, -1], self.network.offset), batch)
        self.optimiser.zero_grad()
        self.fabric.backward(sum(terms.values()))  # type: ignore[arg-type]
        self.optimiser.step()
        self._update_average(min(self.settings.average, (step + 1) / (step + 10)))
        values = self.fabric.all_reduce({name: term.detach() for name, term in terms.items()}, reduce_op="mean")
        return {name: float(value) for name, value in values.items()}  # type: ignore[union-attr]

    @property
    def model(self) -> SideNetwork:
        """The trained network: of the best epoch where that is kept, else of the last."""
        if self._best_state is None:
            return self.average
        chosen: SideNetwork = copy.deepcopy(self.average)
        chosen.load_state_dict(self._best_state)
        return chosen

    def _keep(self, record: Epoch) -> None:
        if not self._keep_best or record.score is None:
            return
        if self.best is None or self.best.score is None or record.score > self.best.score:
            self.best = record
            self._best_state = {name: value.clone() for name, value in self.average.state_dict().items()}

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        pairs = zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True)
        for mean, value in pairs:
            if mean.dtype.is_floating_point:
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def save(self, path: Path) -> None:
        """Write everything that going on needs, complete or not at all.

        Raises
        ------
        TrainingError
            If the disk is full or the folder is gone or cannot be written.
        """
        state = {
            "name": self.name,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best": None if self.best is None else self.best.number,
            "best_state": self._best_state,
        }
        partial = path.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
            partial.replace(path)
        except (OSError, RuntimeError) as error:
            raise TrainingError(
                f"{path} cannot be written ({error}): see that the folder is there and its disk has room."
            ) from error

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote; the checkpoint of a training of another name is nothing to go on from.

        Raises
        ------
        TrainingError
            If the file is no checkpoint of this training.
        """
        try:
            state: Mapping[str, Any] = torch.load(path, map_location=self.fabric.device, weights_only=True)
            if state.get("name", self.name) != self.name:
                return
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.epochs = [Epoch(**epoch) for epoch in state["epochs"]]
            self._best_state = state["best_state"]
            self.best = None if state["best"] is None else self.epochs[state["best"] - 1]
        except (
            *(RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError, OSError),
            pickle.UnpicklingError,
        ) as error:
            raise TrainingError(f"{path} is no checkpoint of this training: delete it to start anew.") from error
