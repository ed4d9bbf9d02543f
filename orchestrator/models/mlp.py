"""A multi-layer perceptron on flattened samples. Touches nothing outside."""

from collections.abc import Sequence

import torch
from torch import nn

from orchestrator.models.classifier import ClassifierOutput, classify
from orchestrator.spec.model import MlpConfig


class Mlp(nn.Module):  # type: ignore[misc] # torch is untyped here
    """Linear layers with ReLU between them."""

    def __init__(self, *, input_size: int, hidden_sizes: Sequence[int], num_labels: int) -> None:
        super().__init__()
        widths = [input_size, *hidden_sizes]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(n_in, n_out), nn.ReLU())
            for n_in, n_out in zip(widths, hidden_sizes, strict=False)
        )
        self.head = nn.Linear(widths[-1], num_labels)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None
    ) -> ClassifierOutput:
        """Classify samples.

        Args:
            pixel_values: Samples in the first axis, `input_size` numbers in the others together.
            labels: Class numbers, one a sample; None for no loss.
        """
        features_BF = pixel_values.flatten(start_dim=1)
        for block in self.blocks:
            features_BF = block(features_BF)
        return classify(self.head(features_BF), labels)


def build_mlp(config: MlpConfig) -> Mlp:
    """Build the network of a `model: {family: mlp}` section.

    Raises:
        ValueError: A size that comes from the data is still open.
    """
    if config.input_size is None or config.num_labels is None:
        raise ValueError("mlp: input_size and num_labels must be filled in from the data")
    return Mlp(
        input_size=config.input_size,
        hidden_sizes=config.hidden_sizes,
        num_labels=config.num_labels,
    )
