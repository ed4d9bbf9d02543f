"""A look at a user's own model and data before anything starts, in a process of its own.

Run as `python -m orchestrator.worker.examine`, with the job's sections as JSON on stdin; answers on
stdout with a line of JSON for each key that user code is about to be run for, so that it can be
blamed if it ends the process, and a last one with what was found. User code cannot write there: its
own stdout is stderr. The model is built on the meta device, where weights take no memory, if it can
be.
"""

import inspect
import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch

from orchestrator.data.build import build_data
from orchestrator.data.samples import Batch, Datasets, Samples
from orchestrator.errors import UsageError
from orchestrator.models.build import build_model
from orchestrator.models.checkpointing import enable_activation_checkpointing
from orchestrator.spec.data import FactoryData, TextData
from orchestrator.spec.factory import describe_error
from orchestrator.spec.job import JobSpec
from orchestrator.spec.model import FactoryModel, Gpt2Model, ModelSection
from orchestrator.worker.objective import IGNORED_LABEL, check_labels, parts_of, read_output

_MOST_PARAMETERS = 100_000_000
"""A model that cannot run without values is built with them up to this size (0.4 GB in fp32)."""
_MOST_SPREAD_SAMPLES = 512
"""Samples of each set whose labels are looked at, beside those of the first batch."""
_SPREAD_TIME_S = 0.5
"""No further sample of a set is read after this; slow data is looked at less."""
# What a user's `forward` may well raise.
_USER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found; `problem_key` is set when the job cannot run."""

    n_params: int | None = None
    problem_key: str | None = None
    problem: str | None = None


def examine(
    spec: JobSpec,
    *,
    folder: Path,
    announce: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Findings:
    """Build model and data once and pass the shapes of one batch through the model.

    Args:
        spec: the job, every size filled in.
        folder: where the job file lies.
        announce: told the key whose code is run next.
        clock: seconds, from any start.
    """
    model_key, data_key = _keys(spec)
    announce(data_key)
    try:
        datasets = build_data(spec.data, folder=folder)
        # BatchNorm needs two samples, where the size is not given.
        n_samples = min(spec.training.micro_batch_size or 2, len(datasets.train))
        batch = datasets.train.batch(range(n_samples))
    except UsageError as err:
        return Findings(problem_key=data_key, problem=str(err))
    announce(model_key)
    try:
        model = _build_without_memory(spec, folder=folder)
        if spec.training.activation_checkpointing:
            enable_activation_checkpointing(model)
        n_classes = _try_batch(spec, model, batch, folder=folder)
    except (UsageError, _WrongError) as err:
        return Findings(problem_key=model_key, problem=str(err))
    n_params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if n_params == 0:
        return Findings(problem_key=model_key, problem="it has no trainable parameter")
    announce(data_key)
    try:
        if isinstance(spec.data, FactoryData):
            _check_spread(spec.model, datasets, n_classes=n_classes, clock=clock)
    except UsageError as err:
        return Findings(problem_key=data_key, problem=str(err))
    except _WrongError as err:
        return Findings(problem_key=model_key, problem=str(err))
    return Findings(n_params=n_params)


def _keys(spec: JobSpec) -> tuple[str, str]:
    """The keys to blame for the model and for the data."""
    data = {FactoryData: "data.factory", TextData: "data.path"}.get(type(spec.data), "data")
    return ("model.factory" if isinstance(spec.model, FactoryModel) else "model"), data


def _build_without_memory(spec: JobSpec, *, folder: Path) -> torch.nn.Module:
    try:
        with torch.device("meta"):
            return build_model(spec.model, folder=folder)
    except (UsageError, NotImplementedError, RuntimeError):
        # A model that reads values while it is built, or loads weights, needs real tensors.
        return build_model(spec.model, folder=folder)


def _try_batch(spec: JobSpec, model: torch.nn.Module, batch: Batch, *, folder: Path) -> int | None:
    """Call the model with one batch.

    Returns:
        How many classes labels may stand for; `None` where they need not be classes.

    Raises:
        _WrongError: it cannot be trained on that batch.
    """
    try:
        inspect.signature(model.forward).bind(**batch)
    except TypeError as err:
        raise _WrongError(
            f"it cannot be called with the batch's keys {sorted(batch)}: {err}"
        ) from err
    try:
        _check_values(spec.model, batch)
        return _run(spec, model, batch)
    except _USER_ERRORS as err:
        if _device_of(model).type != "meta":
            raise _WrongError(f"it fails on one batch: {describe_error(err)}") from err
    if sum(p.numel() for p in model.parameters()) > _MOST_PARAMETERS:
        return None
    # Perhaps an operation that needs values; if not, it fails again.
    with_values = build_model(spec.model, folder=folder)
    two = {name: value[:2] for name, value in batch.items()}
    return _try_batch(spec, with_values, two, folder=folder)


def _run(spec: JobSpec, model: torch.nn.Module, batch: Batch) -> int | None:
    device = _device_of(model)
    on_device = {name: value.to(device) for name, value in batch.items()}
    output = model(**on_device)
    own_loss, logits = parts_of(output)
    try:
        read_output(output, on_device, loss=spec.training.loss)
        if own_loss is not None or logits is None or spec.training.loss != "cross_entropy":
            return None
        # Once more: on the meta device labels had no values.
        check_labels(batch["labels"], n_classes=logits.shape[-1])
    except (ValueError, RuntimeError) as err:
        raise _WrongError(str(err)) from err
    return int(logits.shape[-1])


def _check_spread(
    model: ModelSection,
    datasets: Datasets,
    *,
    n_classes: int | None,
    clock: Callable[[], float],
) -> None:
    """Look at labels and tokens all over both sets: data may be sorted by label.

    Raises:
        _WrongError: the model does not know one of them.
        UsageError: a sample cannot be read.
    """
    for samples in (datasets.train, datasets.eval):
        values = _spread(samples, clock=clock)
        _check_values(model, values)
        if n_classes is not None and "labels" in values:
            try:
                check_labels(values["labels"], n_classes=n_classes)
            except ValueError as err:
                raise _WrongError(str(err)) from err


def _spread(samples: Samples, *, clock: Callable[[], float]) -> Batch:
    """Labels and tokens of samples that stand evenly over a set, each kind in one row."""
    last, n_read = len(samples) - 1, min(len(samples), _MOST_SPREAD_SAMPLES)
    numbers = sorted({round(n * last / max(n_read - 1, 1)) for n in range(n_read)})
    # So that those read before the time is over stand all over the set as well.
    random.Random(0).shuffle(numbers)
    rows: dict[str, list[torch.Tensor]] = {}
    until = clock() + _SPREAD_TIME_S
    for number in (last, *numbers):
        sample = samples.batch([number])
        for key in _CLASSES & sample.keys():
            rows.setdefault(key, []).append(sample[key].flatten())
        if clock() > until:
            break
    return {key: torch.cat(values) for key, values in rows.items()}


def _device_of(model: torch.nn.Module) -> torch.device:
    return next(iter(model.parameters()), torch.empty(0)).device


_CLASSES = {"input_ids", "labels"}


class _WrongError(Exception):
    """What a model returned cannot be trained on, or a label or token is one it does not know."""


def _check_values(model: ModelSection, batch: Batch) -> None:
    """Compare labels and tokens with a built-in model; torch's own words for it name neither."""
    if isinstance(model, FactoryModel):
        return
    name = "vocab_size" if isinstance(model, Gpt2Model) else "num_labels"
    n_known = getattr(model.config, name)
    for key in sorted(_CLASSES):
        values = batch.get(key)
        if values is None or n_known is None or values.is_floating_point():
            continue
        kept = values[values != IGNORED_LABEL] if key == "labels" else values
        if kept.numel() and not 0 <= int(kept.min()) <= int(kept.max()) < n_known:
            raise _WrongError(
                f"{key} reach from {int(kept.min())} to {int(kept.max())} and "
                f"model.config.{name} is {n_known}; change one of the two"
            )


def main(asked: IO[str], answer: IO[str]) -> None:
    """Read the request and answer it."""

    def say(line: object) -> None:
        print(json.dumps(line), file=answer, flush=True)

    request: dict[str, Any] = json.load(asked)
    spec = JobSpec.model_validate_json(json.dumps(request["spec"]))
    say(asdict(examine(spec, folder=Path(request["folder"]), announce=say)))


def take_stdout() -> IO[str]:
    """Keep stdout for the answer; whatever user code writes to it, C libraries too, is stderr's."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answer


if __name__ == "__main__":
    main(sys.stdin, take_stdout())
