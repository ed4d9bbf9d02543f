"""The residual network of transformers, built from its configuration. Downloads nothing."""

from torch import nn
from transformers.models.resnet.configuration_resnet import ResNetConfig
from transformers.models.resnet.modeling_resnet import ResNetForImageClassification

from orchestrator.errors import UsageError
from orchestrator.spec.model import ResnetConfig


def build_resnet(config: ResnetConfig) -> nn.Module:
    """Build the network of a `model: {family: resnet}` section.

    It is called with `pixel_values` and `labels`; its loss is the mean cross-entropy. BatchNorm
    makes the loss depend on the micro-batch.

    Raises:
        UsageError: There is only one class.
        ValueError: A size that comes from the data is still open, or `depths` and `hidden_sizes`
            differ in length.
    """
    if config.num_channels is None or config.num_labels is None:
        raise ValueError("resnet: num_channels and num_labels must be filled in from the data")
    if len(config.depths) != len(config.hidden_sizes):
        # transformers would build as many stages as the shorter one has, without a word.
        raise ValueError("resnet: depths and hidden_sizes must have one entry a stage")
    if config.num_labels < 2:
        raise UsageError("resnet: with num_labels 1 there is nothing to tell apart; use at least 2")
    values = config.model_dump(exclude={"depths", "hidden_sizes"})
    return ResNetForImageClassification(
        ResNetConfig(
            **values,
            depths=list(config.depths),
            hidden_sizes=list(config.hidden_sizes),
            # Left open, transformers guesses it from the first batch.
            problem_type="single_label_classification",
        )
    )


def residual_blocks(model: nn.Module) -> list[nn.Module]:
    """List the residual blocks of a transformers ResNet, in order."""
    return [block for stage in model.resnet.encoder.stages for block in stage.layers]
