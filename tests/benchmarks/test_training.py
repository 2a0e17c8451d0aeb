"""A training step of a student beside the authors' network and losses written plainly, same images, same run."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_histodistill.distill import RECIPES
from napari_histodistill.distill.losses import student_loss
from napari_histodistill.mil.augment import Batch
from napari_histodistill.mil.losses import gm_loss
from napari_histodistill.nets.model import normalise
from napari_histodistill.nets.network import Maps, SideNetwork
from napari_histodistill.nets.threads import torch_threads

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE, BATCH, STEPS = 256, 4, 5


class Plain(nn.Module):
    """Three stages of VGG16 with a side output each, upsampled to the image and summed, as the paper describes it."""

    def __init__(self) -> None:
        super().__init__()
        stages, inputs = [], 3
        for channels, convs in ((64, 2), (128, 2), (256, 3)):
            layers: list[nn.Module] = []
            for _ in range(convs):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
                inputs = channels
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.sides = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in (64, 128, 256))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps, size = [], x.shape[-2:]
        for i, (stage, side) in enumerate(zip(self.stages, self.sides, strict=True)):
            x = stage(functional.max_pool2d(x, 2) if i else x)
            maps.append(functional.interpolate(torch.sigmoid(side(x)), size, mode="bilinear")[:, 0])
        return [*maps, 0.3 * maps[0] + 0.3 * maps[1] + 0.4 * maps[2]]


def plain_loss(maps: list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    def dice(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return 1 - (2 * (p * q).sum((1, 2)) + 1) / (p.sum((1, 2)) + q.sum((1, 2)) + 1)

    hard = (target >= 0.5).float()
    entropy = functional.binary_cross_entropy(maps[-1], hard, reduction="none")
    weights = torch.exp(-entropy.detach())
    weights = weights / weights.mean((1, 2), keepdim=True)
    return (sum(dice(f, target) for f in maps) + 2 * (weights * entropy).mean((1, 2))).mean()


def step_rates(device: str) -> dict[str, list[float]]:
    """How often as fast as the authors' network's a step is, by name of ours; in turn, the first not counted."""
    torch.manual_seed(0)
    images, targets = torch.rand(BATCH, 3, SIZE, SIZE, device=device), torch.rand(BATCH, 1, SIZE, SIZE, device=device)
    inside, labels = torch.ones(BATCH, SIZE, SIZE, device=device), torch.ones(BATCH, device=device)
    batch = Batch(images, torch.arange(BATCH, device=device), labels, inside, targets)
    loss = student_loss(RECIPES["paper"], gm_loss)
    mixed = torch.autocast(device, torch.bfloat16, enabled=device == "cuda" and torch.cuda.is_bf16_supported())

    def our_cost(network: nn.Module) -> Callable[[], torch.Tensor]:
        def cost() -> torch.Tensor:
            with mixed:
                maps: Maps = network(normalise(batch.images))
            return sum(loss(replace(maps, sides=maps.sides.float(), fused=maps.fused.float()), batch).values())

        return cost

    plain = Plain().to(device)
    costs: dict[str, tuple[nn.Module, Callable[[], torch.Tensor]]] = {
        "authors": (plain, lambda: plain_loss(plain(images), targets[:, 0]))
    }
    for name, weights in (("efficientnet-lite0", (0.2, 0.35, 0.45)), ("vgg16", (0.3, 0.3, 0.4))):
        network = SideNetwork(name, weights).to(device, memory_format=torch.channels_last)
        costs[name] = network, our_cost(network)
    optimisers = {name: torch.optim.Adam(network.parameters(), 5e-5) for name, (network, _) in costs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in costs}
    for _ in range(STEPS + 1):
        for name, (_, cost) in costs.items():
            start = time.perf_counter()
            optimisers[name].zero_grad()
            cost().backward()
            optimisers[name].step()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    reference = seconds.pop("authors")
    print(f"\nthe authors' network on {device}: {BATCH / statistics.median(reference[1:]):.2f} images/s")
    return {name: [a / b for a, b in zip(reference, values, strict=True)][1:] for name, values in seconds.items()}


def test_a_step_beside_the_authors_network_and_losses(bench):
    with torch_threads(None):  # threads for all cores wait for one another on a machine that does other work too
        rates = step_rates("cpu")
    bench.add("train_rate_vs_authors_cpu", rates["efficientnet-lite0"], target=5)
    bench.add("train_rate_vs_authors_cpu_vgg16", rates["vgg16"])
    assert rates["efficientnet-lite0"]


def test_a_step_on_a_gpu(bench):
    if not torch.cuda.is_available():
        bench.missing("train_rate_vs_authors_gpu_vgg16", "no GPU", target=2)
        pytest.skip("there is no GPU")
    rates = step_rates("cuda")
    bench.add("train_rate_vs_authors_gpu_vgg16", rates["vgg16"], target=2)
    bench.add("train_rate_vs_authors_gpu", rates["efficientnet-lite0"])
    assert rates["vgg16"]
