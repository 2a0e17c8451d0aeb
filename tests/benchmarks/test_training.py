"""A training step of a student beside the authors' network and losses written plainly, same images, same run."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn
from torch.nn import functional

from napari_histodistill.distill import RECIPES
from napari_histodistill.distill.losses import student_loss
from napari_histodistill.mil.augment import Batch
from napari_histodistill.mil.losses import gm_loss
from napari_histodistill.nets.model import normalise
from napari_histodistill.nets.network import Maps, SideNetwork

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


def test_a_step_beside_the_authors_network_and_losses(bench):
    torch.manual_seed(0)
    images, targets = torch.rand(BATCH, 3, SIZE, SIZE), torch.rand(BATCH, 1, SIZE, SIZE)
    batch = Batch(images, torch.arange(BATCH), torch.ones(BATCH), torch.ones(BATCH, SIZE, SIZE), targets)
    plain, ours = Plain(), SideNetwork("efficientnet-lite0", (0.2, 0.35, 0.45)).to(memory_format=torch.channels_last)
    same = SideNetwork("vgg16", (0.3, 0.3, 0.4)).to(memory_format=torch.channels_last)
    loss = student_loss(RECIPES["paper"], gm_loss)

    def step(network: nn.Module, cost) -> float:
        optimiser = step.optimisers.setdefault(id(network), torch.optim.Adam(network.parameters(), 5e-5))
        start = time.perf_counter()
        optimiser.zero_grad()
        cost().backward()
        optimiser.step()
        return time.perf_counter() - start

    step.optimisers = {}

    def our_cost(network: SideNetwork):
        def cost() -> torch.Tensor:
            maps: Maps = network(normalise(batch.images))
            return sum(loss(maps, batch).values())

        return cost

    costs = {
        "authors' network": (plain, lambda: plain_loss(plain(images), targets[:, 0])),
        "default encoder": (ours, our_cost(ours)),
        "vgg16 here": (same, our_cost(same)),
    }
    seconds = {name: [] for name in costs}
    for _ in range(STEPS + 1):  # side by side, the first not counted
        for name, (network, cost) in costs.items():
            seconds[name].append(step(network, cost))
    reference = seconds["authors' network"]
    rates = {name: [a / b for a, b in zip(reference, values, strict=True)][1:] for name, values in seconds.items()}
    bench.add("train_rate_vs_authors_cpu", rates["default encoder"], target=5)
    bench.add("train_rate_vs_authors_cpu_vgg16", rates["vgg16 here"])
    bench.missing("train_rate_vs_authors_gpu_vgg16", "no GPU", target=2)
    print(f"\nthe authors' network: {BATCH / statistics.median(reference[1:]):.2f} images/s")
    assert rates["default encoder"]
