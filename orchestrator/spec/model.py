"""The `model:` section: a family built from its configuration, or the user's own factory.

Sizes left out (`null`) come from the data: channels and classes from images, vocabulary and
sequence length from tokens. `spec.shapes` fills them in.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from orchestrator.spec.base import FactoryPath, PositiveInt, Ratio, Section, Sizes


class ResnetConfig(Section):
    """Residual network; the keys are those of transformers' `ResNetConfig`."""

    num_channels: PositiveInt | None = None
    """Channels of an input image; null: as in the data."""
    embedding_size: PositiveInt = 32
    """Channels after the stem, whose convolution and pooling each halve the image."""
    hidden_sizes: Sizes = (32, 64, 128)
    """Channels of each stage."""
    depths: Sizes = (1, 1, 1)
    """Blocks of each stage; as many entries as `hidden_sizes`."""
    layer_type: Literal["basic", "bottleneck"] = "basic"
    """Two 3x3 convolutions a block, or 1x1, 3x3, 1x1."""
    hidden_act: Literal["relu", "gelu", "silu"] = "relu"
    """Activation function."""
    downsample_in_first_stage: bool = False
    """Whether the first stage halves the image too."""
    num_labels: PositiveInt | None = None
    """Classes; null: as many as the data has."""


class Gpt2Config(Section):
    """Decoder-only transformer; the keys are those of transformers' `GPT2Config`.

    Dropout is 0 unless asked for: with it, runs that split a batch differently draw other masks
    and their losses cannot be compared.
    """

    vocab_size: PositiveInt | None = None
    """Tokens known; null: as many as the data has."""
    n_positions: PositiveInt | None = None
    """Longest sequence; null: that of the data."""
    n_embd: PositiveInt = 128
    """Width; a multiple of `n_head`."""
    n_layer: PositiveInt = 4
    """Blocks."""
    n_head: PositiveInt = 4
    """Attention heads."""
    n_inner: PositiveInt | None = None
    """Width of the feed-forward layer; null: four times `n_embd`."""
    activation_function: Literal["gelu_new", "gelu", "relu", "silu"] = "gelu_new"
    """Activation function of the feed-forward layer."""
    resid_pdrop: Ratio = 0.0
    """Dropout after each sub-layer."""
    embd_pdrop: Ratio = 0.0
    """Dropout of the embeddings."""
    attn_pdrop: Ratio = 0.0
    """Dropout of the attention weights."""
    tie_word_embeddings: bool = True
    """Whether input and output embedding are one tensor."""


class CnnConfig(Section):
    """A small convolutional network without BatchNorm: its loss does not depend on splits."""

    in_channels: PositiveInt | None = None
    """Channels of an input image; null: as in the data."""
    channels: Sizes = (32, 64)
    """Channels of each convolution; each is followed by GroupNorm, ReLU and 2x2 pooling."""
    num_labels: PositiveInt | None = None
    """Classes; null: as many as the data has."""


class MlpConfig(Section):
    """Linear layers with ReLU between them, on flattened images."""

    input_size: PositiveInt | None = None
    """Numbers in one sample; null: as in the data."""
    hidden_sizes: Sizes = (256, 256)
    """Width of each hidden layer."""
    num_labels: PositiveInt | None = None
    """Classes; null: as many as the data has."""


class ResnetModel(Section):
    """`model: {family: resnet}`."""

    family: Literal["resnet"]
    """Residual network (transformers)."""
    config: ResnetConfig = ResnetConfig()
    """Its size."""


class Gpt2Model(Section):
    """`model: {family: gpt2}`."""

    family: Literal["gpt2"]
    """Decoder-only transformer (transformers)."""
    config: Gpt2Config = Gpt2Config()
    """Its size."""


class CnnModel(Section):
    """`model: {family: cnn}`."""

    family: Literal["cnn"]
    """Small convolutional network."""
    config: CnnConfig = CnnConfig()
    """Its size."""


class MlpModel(Section):
    """`model: {family: mlp}`."""

    family: Literal["mlp"]
    """Multi-layer perceptron."""
    config: MlpConfig = MlpConfig()
    """Its size."""


class FactoryModel(Section):
    """`model: {factory: my_module:build}`: `build(**config)` returns a `torch.nn.Module`."""

    factory: FactoryPath
    """`module:callable`, found beside the job file or in the current folder."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the callable."""


FAMILIES = ("resnet", "gpt2", "cnn", "mlp")


def model_kind(value: Any) -> str | None:
    """Tell which section a mapping (or a section) is: a family's name, `factory`, or unknown."""
    if isinstance(value, Section):
        return str(getattr(value, "family", "factory"))
    if not isinstance(value, dict):
        return None
    if "factory" in value and "family" not in value:
        return "factory"
    family = value.get("family")
    return family if family in FAMILIES else None


ModelSection = Annotated[
    Annotated[ResnetModel, Tag("resnet")]
    | Annotated[Gpt2Model, Tag("gpt2")]
    | Annotated[CnnModel, Tag("cnn")]
    | Annotated[MlpModel, Tag("mlp")]
    | Annotated[FactoryModel, Tag("factory")],
    Discriminator(model_kind),
]
