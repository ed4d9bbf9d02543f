"""How many trainable parameters a built-in model has, from its configuration alone.

Pure arithmetic, so that `plan` can size DeepSpeed's buckets without building the model. Tied
weights count once.

Source: the layers of transformers 5.23.0 `ResNetForImageClassification` and `GPT2LMHeadModel`,
and of our own `cnn` and `mlp`; a test compares every formula with the built model.
"""

from itertools import pairwise

from orchestrator.spec.model import (
    CnnConfig,
    CnnModel,
    FactoryModel,
    Gpt2Config,
    Gpt2Model,
    MlpConfig,
    MlpModel,
    ModelSection,
    ResnetConfig,
    ResnetModel,
)


def n_parameters(model: ModelSection) -> int | None:
    """Count the trainable parameters of a model whose sizes are all filled in.

    Returns:
        The count; `None` for a factory, which must be built to be counted.
    """
    if isinstance(model, ResnetModel):
        return _resnet(model.config)
    if isinstance(model, Gpt2Model):
        return _gpt2(model.config)
    if isinstance(model, CnnModel):
        return _cnn(model.config)
    if isinstance(model, MlpModel):
        return _mlp(model.config)
    return None


def open_sizes(model: ModelSection) -> tuple[str, ...]:
    """Name the sizes of a built-in model that neither the job nor its data has filled in."""
    if isinstance(model, FactoryModel):
        return ()
    names = _SIZES_FROM_DATA[model.family]
    return tuple(name for name in names if getattr(model.config, name) is None)


_SIZES_FROM_DATA = {
    "resnet": ("num_channels", "num_labels"),
    "gpt2": ("vocab_size", "n_positions"),
    "cnn": ("in_channels", "num_labels"),
    "mlp": ("input_size", "num_labels"),
}


def _known(size: int | None) -> int:
    if size is None:
        raise ValueError("sizes must be filled in from the data first (spec.shapes)")
    return size


def _conv_norm(n_in: int, n_out: int, kernel: int) -> int:
    """A convolution without bias, then a normalisation's weight and bias."""
    return n_in * n_out * kernel**2 + 2 * n_out


def _resnet_block(n_in: int, n_out: int, *, config: ResnetConfig, halves: bool) -> int:
    shortcut = _conv_norm(n_in, n_out, 1) if n_in != n_out or halves else 0
    if config.layer_type == "basic":
        return shortcut + _conv_norm(n_in, n_out, 3) + _conv_norm(n_out, n_out, 3)
    inner = n_out // 4
    return (
        shortcut
        + _conv_norm(n_in, inner, 1)
        + _conv_norm(inner, inner, 3)
        + _conv_norm(inner, n_out, 1)
    )


def _resnet(config: ResnetConfig) -> int:
    total = _conv_norm(_known(config.num_channels), config.embedding_size, 7)
    n_in = config.embedding_size
    for index, (n_out, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True)):
        halves = index > 0 or config.downsample_in_first_stage
        total += _resnet_block(n_in, n_out, config=config, halves=halves)
        total += (depth - 1) * _resnet_block(n_out, n_out, config=config, halves=False)
        n_in = n_out
    return total + (n_in + 1) * _known(config.num_labels)


def _gpt2(config: Gpt2Config) -> int:
    width = config.n_embd
    inner = config.n_inner or 4 * width
    embeddings = (_known(config.vocab_size) + _known(config.n_positions)) * width
    attention = width * 3 * width + 3 * width + width * width + width
    feed_forward = width * inner + inner + inner * width + width
    block = attention + feed_forward + 2 * 2 * width
    head = 0 if config.tie_word_embeddings else _known(config.vocab_size) * width
    return embeddings + config.n_layer * block + 2 * width + head


def _cnn(config: CnnConfig) -> int:
    channels = (_known(config.in_channels), *config.channels)
    convolutions = sum(_conv_norm(n_in, n_out, 3) for n_in, n_out in pairwise(channels))
    return convolutions + (channels[-1] + 1) * _known(config.num_labels)


def _mlp(config: MlpConfig) -> int:
    widths = (_known(config.input_size), *config.hidden_sizes, _known(config.num_labels))
    return sum((n_in + 1) * n_out for n_in, n_out in pairwise(widths))
