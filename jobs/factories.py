"""An example of your own model and data: a residual MLP that tells two spirals apart.

`mlp_factory.yaml` names the two `build_...` functions and gives them their `config:` as arguments.
"""

import math

import torch
from torch import nn


class Spirals(torch.utils.data.Dataset):
    """Points on two interleaved spirals: any class with `__len__` and `__getitem__` will do."""

    def __init__(self, *, n_samples: int, noise: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(n_samples) % 2
        turns = torch.rand(n_samples, generator=generator).sqrt() * 1.5
        angles = 2 * math.pi * turns + math.pi * self.labels
        self.points = torch.stack([turns * angles.cos(), turns * angles.sin()], dim=1)
        self.points += noise * torch.randn(n_samples, 2, generator=generator)

    def __len__(self) -> int:
        """Count the points."""
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Give one sample: its keys are the arguments of the model's `forward`."""
        return {"points": self.points[index], "labels": self.labels[index]}


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add what the layers make of `x` to it."""
        return x + self.layers(x)


class SpiralNet(nn.Module):
    """Blocks in a ModuleList can be recomputed (`training.activation_checkpointing`)."""

    def __init__(self, *, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Linear(2, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 2)

    def forward(self, points: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits. Return an object with a `.loss` instead to use a loss of your own."""
        del labels
        x = self.stem(points)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def build_model(width: int, depth: int) -> nn.Module:
    """Build the model: `model.config` in the job file holds these arguments."""
    return SpiralNet(width=width, depth=depth)


def build_data(n_samples: int, noise: float) -> dict[str, Spirals]:
    """Build both data sets: `data.config` in the job file holds these arguments."""
    return {
        "train": Spirals(n_samples=n_samples, noise=noise, seed=0),
        "eval": Spirals(n_samples=n_samples // 4, noise=noise, seed=1),
    }
