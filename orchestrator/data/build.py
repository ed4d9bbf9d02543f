"""From the `data:` section to samples."""

from pathlib import Path

from orchestrator.data.digits import build_digits
from orchestrator.data.samples import Datasets, Samples, UserSamples
from orchestrator.data.synthetic import build_synthetic
from orchestrator.data.text import build_text
from orchestrator.errors import UsageError
from orchestrator.spec.data import (
    DataSection,
    DigitsData,
    FactoryData,
    SyntheticData,
    TextData,
)
from orchestrator.spec.factory import call_factory, describe_error, load_factory


def build_data(data: DataSection, *, folder: Path) -> Datasets:
    """Build the training and the evaluation set of a job.

    Args:
        data: Section.
        folder: Where the job file lies, for relative paths and factories.

    Returns:
        Both sets, neither of them empty.

    Raises:
        UsageError: Files are missing, or the user's factory fails or returns something else.
    """
    match data:
        case DigitsData():
            return build_digits(data)
        case TextData():
            return build_text(data, folder=folder)
        case SyntheticData():
            return build_synthetic(data)
        case FactoryData():
            return _build_factory_data(data, folder=folder)


def _build_factory_data(data: FactoryData, *, folder: Path) -> Datasets:
    factory = load_factory(data.factory, folder=folder)
    built = call_factory(factory, path=data.factory, config=data.config)
    if not isinstance(built, dict) or not {"train", "eval"} <= built.keys():
        raise UsageError(
            f"factory {data.factory} returned {_describe(built)}; "
            'return {"train": dataset, "eval": dataset}'
        )
    return Datasets(
        train=_checked(built["train"], path=data.factory, part="train"),
        eval=_checked(built["eval"], path=data.factory, part="eval"),
    )


def _checked(dataset: object, *, path: str, part: str) -> Samples:
    """Wrap a user's dataset after a look at its first item."""
    name = f"factory {path}: {part} dataset"
    if not hasattr(dataset, "__getitem__"):
        raise UsageError(
            f"{name} is a {type(dataset).__name__} without __getitem__; return a map-style dataset"
        )
    samples = UserSamples(dataset, name=name)
    try:
        n_samples = len(samples)
    except Exception as err:
        raise UsageError(f"{name} has no length: {describe_error(err)}; add __len__") from err
    if n_samples < 1:
        raise UsageError(f"{name} is empty; it needs at least one sample")
    samples.batch([0])
    return samples


def _describe(value: object) -> str:
    if isinstance(value, dict):
        return f"a dict with the keys {sorted(map(str, value))}"
    return f"a {type(value).__name__}"
