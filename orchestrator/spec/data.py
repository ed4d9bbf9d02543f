"""The `data:` section: a built-in source, or the user's own factory."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from orchestrator.spec.base import (
    Bytes,
    FactoryPath,
    Positive,
    PositiveInt,
    Section,
    WholeNumber,
)

Fraction = Annotated[Positive, Field(lt=1)]


class DigitsData(Section):
    """1,797 handwritten digits, 8 x 8, that ship with scikit-learn; resized and standardised."""

    source: Literal["digits"]
    """Handwritten digits."""
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    """Height and width in pixels after resizing (bilinear)."""
    channels: Annotated[Literal[1, 3], WholeNumber] = 1
    """1, or 3 equal ones."""
    eval_fraction: Fraction = 0.2
    """Share of the images held out for evaluation, the same ones for every seed."""


class TextData(Section):
    """Local text files as bytes: the vocabulary is the 256 byte values."""

    source: Literal["text"]
    """Text files."""
    path: str | None = None
    """A file or a folder (every text file in it); null: the Python standard library's sources."""
    sequence_length: PositiveInt = 128
    """Tokens in one sample."""
    max_bytes: Bytes | None = 4_000_000
    """Read no more than this, in bytes or as a size such as 4MiB; null: everything."""
    eval_fraction: Fraction = 0.1
    """Share of the sequences held out for evaluation, spread evenly over the text."""


class SyntheticData(Section):
    """Random samples of a given shape, fixed by a seed: for memory and speed, not accuracy."""

    source: Literal["synthetic"]
    """Random samples."""
    kind: Literal["images", "tokens"] = "images"
    """What the samples look like."""
    n_samples: PositiveInt = 2048
    """Samples to train on."""
    n_eval_samples: PositiveInt = 256
    """Samples to evaluate on."""
    image_size: PositiveInt = 32
    """Height and width of an image."""
    channels: PositiveInt = 3
    """Channels of an image."""
    num_classes: PositiveInt = 10
    """Classes of an image."""
    sequence_length: PositiveInt = 128
    """Tokens of a sequence."""
    vocab_size: PositiveInt = 256
    """Distinct tokens."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the samples."""


class FactoryData(Section):
    """`build(**config)` returns `{"train": ..., "eval": ...}`, map-style datasets of dicts."""

    factory: FactoryPath
    """`module:callable`, found beside the job file or in the current folder."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the callable."""


SOURCES = ("digits", "text", "synthetic")


def data_kind(value: Any) -> str | None:
    """Tell which section a mapping (or a section) is: a source's name, `factory`, or unknown."""
    if isinstance(value, Section):
        return str(getattr(value, "source", "factory"))
    if not isinstance(value, dict):
        return None
    if "factory" in value and "source" not in value:
        return "factory"
    source = value.get("source")
    return source if source in SOURCES else None


DataSection = Annotated[
    Annotated[DigitsData, Tag("digits")]
    | Annotated[TextData, Tag("text")]
    | Annotated[SyntheticData, Tag("synthetic")]
    | Annotated[FactoryData, Tag("factory")],
    Discriminator(data_kind),
]
