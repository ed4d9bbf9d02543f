"""Whether the data fits the model, known from the job alone, and the sizes left to the data.

Pure arithmetic on built-in models and data; a factory on either side is left alone.
"""

from dataclasses import dataclass
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.spec.data import DigitsData, SyntheticData, TextData
from orchestrator.spec.finding import Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.load import JobFile
from orchestrator.spec.model import (
    CnnConfig,
    CnnModel,
    FactoryModel,
    Gpt2Config,
    MlpConfig,
    ResnetConfig,
    ResnetModel,
)

_N_DIGITS = 10
_N_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageShape:
    """Samples that are square images with a class."""

    channels: int
    size: int
    """Height and width in pixels."""
    n_classes: int

    @property
    def n_values(self) -> int:
        """Numbers in one image."""
        return self.channels * self.size * self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenShape:
    """Samples that are sequences of tokens."""

    length: int
    n_tokens: int
    """Distinct tokens: the vocabulary."""


def resolve_shapes(job: JobFile) -> JobSpec:
    """Fill the model's sizes that are null from the data.

    Raises:
        SpecError: the data does not fit the model.
    """
    fitted = fit_shapes(job.spec)
    if isinstance(fitted, JobSpec):
        return fitted
    raise SpecError([job.problem(finding.key, finding.message) for finding in fitted])


def fit_shapes(spec: JobSpec) -> JobSpec | tuple[Finding, ...]:
    """Fill the model's sizes that are null from the data, or say why the two do not fit."""
    shape = data_shape(spec)
    if shape is None or isinstance(spec.model, FactoryModel):
        return spec
    config = spec.model.config
    wants_tokens = isinstance(config, Gpt2Config)
    if wants_tokens != isinstance(shape, TokenShape):
        return (_wrong_kind(spec, wants_tokens=wants_tokens),)
    sizes = _sizes(config, shape)
    findings = (*_misfits(config, sizes), *_too_small(spec, shape), *_lonely(spec, shape))
    if findings:
        return findings
    missing = {name: size for name, size in sizes.items() if getattr(config, name) is None}
    filled = config.model_copy(update=missing)
    return spec.model_copy(update={"model": spec.model.model_copy(update={"config": filled})})


def data_shape(spec: JobSpec) -> ImageShape | TokenShape | None:
    """Tell what one sample of the data looks like; None for a factory's."""
    match spec.data:
        case DigitsData(channels=channels, image_size=size):
            return ImageShape(channels=channels, size=size, n_classes=_N_DIGITS)
        case TextData(sequence_length=length):
            return TokenShape(length=length, n_tokens=_N_BYTES)
        case SyntheticData(kind="tokens") as data:
            return TokenShape(length=data.sequence_length, n_tokens=data.vocab_size)
        case SyntheticData() as data:
            return ImageShape(
                channels=data.channels, size=data.image_size, n_classes=data.num_classes
            )
        case _:
            return None


def resnet_halvings(config: ResnetConfig) -> int:
    """Count how often a ResNet halves its image.

    Source:
        transformers 5.23.0, models/resnet/modeling_resnet.py: the stem's convolution and pooling
        have stride 2, and so has each stage but the first, which has it on request.
    """
    return 2 + len(config.hidden_sizes) - 1 + int(config.downsample_in_first_stage)


def _sizes(config: Any, shape: ImageShape | TokenShape) -> dict[str, int]:
    """What the data asks of each size of the model."""
    match config, shape:
        case Gpt2Config(), TokenShape():
            return {"vocab_size": shape.n_tokens, "n_positions": shape.length}
        case ResnetConfig(), ImageShape():
            return {"num_channels": shape.channels, "num_labels": shape.n_classes}
        case CnnConfig(), ImageShape():
            return {"in_channels": shape.channels, "num_labels": shape.n_classes}
        case MlpConfig(), ImageShape():
            return {"input_size": shape.n_values, "num_labels": shape.n_classes}
        case _:
            raise ValueError(f"no sizes of {type(config).__name__} come from {shape}")


def _misfits(config: Any, sizes: dict[str, int]) -> list[Finding]:
    """Compare the sizes the user gave with those of the data."""
    findings = []
    for name, needed in sizes.items():
        given = getattr(config, name)
        if given is None:
            continue
        message = _misfit(name, given=given, needed=needed)
        if message:
            findings.append(Finding(key=f"model.config.{name}", message=message))
    return findings


def _misfit(name: str, *, given: int, needed: int) -> str | None:
    way_out = f"write {needed}, or leave it out"
    if name == "num_labels" and given < needed:
        return f"labels 0..{needed - 1} do not fit num_labels: {given}; {way_out}"
    if name == "vocab_size" and given < needed:
        return f"tokens 0..{needed - 1} do not fit vocab_size: {given}; {way_out}"
    if name == "n_positions" and given < needed:
        return f"sequences of {needed} do not fit n_positions: {given}; {way_out}"
    if name in ("num_channels", "in_channels") and given != needed:
        return f"the images have {needed} channels, not {given}; {way_out}"
    if name == "input_size" and given != needed:
        return f"one image has {needed} numbers, not {given}; {way_out}"
    return None


def _wrong_kind(spec: JobSpec, *, wants_tokens: bool) -> Finding:
    family, source = getattr(spec.model, "family", ""), getattr(spec.data, "source", "")
    if wants_tokens:
        message = f"{family} needs tokens and data.source: {source} has images; use source: text"
    else:
        message = f"{family} needs images and data.source: {source} has tokens; use source: digits"
    if isinstance(spec.data, SyntheticData):
        message = f"{message}, or kind: {'tokens' if wants_tokens else 'images'}"
    return Finding(key="model.family", message=message)


def _too_small(spec: JobSpec, shape: ImageShape | TokenShape) -> list[Finding]:
    """Refuse images that a network's halvings would leave nothing of."""
    if not isinstance(shape, ImageShape):
        return []
    if isinstance(spec.model, ResnetModel):
        n_halvings = resnet_halvings(spec.model.config)
        stages, halve = "hidden_sizes and depths", "stem and stages halve"
    elif isinstance(spec.model, CnnModel):
        n_halvings = len(spec.model.config.channels)
        stages, halve = "channels", "poolings halve"
    else:
        return []
    # Sizes are bounded and exponents are not: compare lengths in bits.
    if shape.size.bit_length() > n_halvings:
        return []
    message = (
        f"{halve} an image of {shape.size} pixels {n_halvings} times; "
        f"{_larger(n_halvings)}shorten model.config's {stages}"
    )
    return [Finding(key="data.image_size", message=message)]


def _lonely(spec: JobSpec, shape: ImageShape | TokenShape) -> list[Finding]:
    """Refuse what BatchNorm cannot train on: one sample of one pixel.

    Source:
        torch 2.13.0, nn/functional.py, `_verify_batch_size`.
    """
    if not isinstance(shape, ImageShape) or not isinstance(spec.model, ResnetModel):
        return []
    ends_at_one_pixel = shape.size == 1 << min(resnet_halvings(spec.model.config), 64)
    if spec.training.micro_batch_size != 1 or not ends_at_one_pixel:
        return []
    message = (
        f"an image of {shape.size} pixels ends as one, and BatchNorm needs two values; "
        "write at least 2, or a larger image"
    )
    return [Finding(key="training.micro_batch_size", message=message)]


def _larger(n_halvings: int) -> str:
    return f"write at least {2**n_halvings}, or " if n_halvings <= 10 else ""
