"""A small convolutional classifier whose loss does not depend on how a batch is split.

B = samples, C = channels, H, W = height, width. Touches nothing outside.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from orchestrator.models.classifier import ClassifierOutput, classify
from orchestrator.spec.model import CnnConfig

MOST_GROUPS = 8


class Cnn(nn.Module):  # type: ignore[misc] # torch is untyped here
    """Blocks of convolution, GroupNorm, ReLU and 2x2 pooling, then a mean and a linear layer."""

    def __init__(self, *, in_channels: int, channels: Sequence[int], num_labels: int) -> None:
        super().__init__()
        widths = [in_channels, *channels]
        self.blocks = nn.ModuleList(map(_block, widths, channels))
        self.head = nn.Linear(channels[-1], num_labels)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None
    ) -> ClassifierOutput:
        """Classify images.

        Args:
            pixel_values: Images, axes B C H W; any height and width.
            labels: Class numbers, axis B; None for no loss.
        """
        features_BCHW = pixel_values
        for block in self.blocks:
            features_BCHW = block(features_BCHW)
        return classify(self.head(features_BCHW.mean(dim=(2, 3))), labels)


def build_cnn(config: CnnConfig) -> Cnn:
    """Build the network of a `model: {family: cnn}` section.

    Raises:
        ValueError: A size that comes from the data is still open.
    """
    if config.in_channels is None or config.num_labels is None:
        raise ValueError("cnn: in_channels and num_labels must be filled in from the data")
    return Cnn(
        in_channels=config.in_channels, channels=config.channels, num_labels=config.num_labels
    )


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        # GroupNorm subtracts the mean, and so any bias of the convolution in part: leave it out.
        nn.Conv2d(n_in, n_out, kernel_size=3, padding=1, bias=False),
        nn.GroupNorm(math.gcd(n_out, MOST_GROUPS), n_out),
        nn.ReLU(),
        # Rounding up keeps at least one pixel, however many blocks a small image passes.
        nn.MaxPool2d(2, ceil_mode=True),
    )
