"""A vision transformer as a user's own factory, for `forecast_accuracy.py`. Downloads nothing."""

from torch import nn
from transformers.models.vit.configuration_vit import ViTConfig
from transformers.models.vit.modeling_vit import ViTForImageClassification


def build_model(
    *, image_size: int, patch_size: int, hidden_size: int, n_layers: int, n_heads: int
) -> nn.Module:
    """Build the classifier of ten classes; it is called with `pixel_values` and `labels`."""
    model: nn.Module = ViTForImageClassification(
        ViTConfig(
            image_size=image_size,
            patch_size=patch_size,
            num_channels=3,
            hidden_size=hidden_size,
            intermediate_size=4 * hidden_size,
            num_hidden_layers=n_layers,
            num_attention_heads=n_heads,
            num_labels=10,
            # Left open, transformers guesses it from the first batch.
            problem_type="single_label_classification",
        )
    )
    return model
