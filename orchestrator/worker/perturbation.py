"""First weights moved by as little as their precision can tell: how far does rounding alone lead?

Two strategies add the same numbers in another order, so their losses differ by rounding, which
training amplifies step by step. A run from weights that differ by one unit in the last place shows
how much.
"""

import torch


def move_weights(model: torch.nn.Module, *, by: float, seed: int) -> None:
    """Move every floating weight up or down by a share of its own size, the same on every rank.

    Args:
        model: whole, not sharded yet.
        by: the share; below what the weights' type can tell, each moves to its neighbour.
        seed: which go up and which down.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.is_floating_point():
                continue
            up = torch.rand(weight.shape, generator=generator) < 0.5
            signs = torch.where(up, 1.0, -1.0).to(weight)
            moved = weight * (1 + by * signs)
            neighbour = torch.nextafter(weight, signs * torch.inf)
            weight.copy_(torch.where(moved == weight, neighbour, moved))
