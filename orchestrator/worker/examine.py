"""A look at a user's own model and data before anything starts, in a process of its own.

Run as `python -m orchestrator.worker.examine`, with the job's sections as JSON on stdin; answers
with JSON on stdout: the number of parameters, or the key to blame and what is wrong with it. The
model is built on the meta device, where weights take no memory, if it can be.
"""

import inspect
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from orchestrator.data.build import build_data
from orchestrator.data.samples import Batch
from orchestrator.errors import UsageError
from orchestrator.models.build import build_model
from orchestrator.models.checkpointing import enable_activation_checkpointing
from orchestrator.spec.factory import describe_error
from orchestrator.spec.job import JobSpec
from orchestrator.spec.model import FactoryModel, Gpt2Model, ModelSection
from orchestrator.worker.objective import IGNORED_LABEL, check_labels, parts_of, read_output

_MOST_PARAMETERS = 100_000_000
"""A model that cannot run without values is built with them up to this size (0.4 GB in fp32)."""
# What a user's `forward` may well raise.
_USER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
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


def examine(spec: JobSpec, *, folder: Path) -> Findings:
    """Build model and data once and pass the shapes of one batch through the model."""
    try:
        datasets = build_data(spec.data, folder=folder)
        # BatchNorm needs two samples, where the size is not given.
        n_samples = min(spec.training.micro_batch_size or 2, len(datasets.train))
        batch = datasets.train.batch(range(n_samples))
    except UsageError as err:
        return Findings(problem_key="data", problem=str(err))
    try:
        model = _build_without_memory(spec, folder=folder)
        if spec.training.activation_checkpointing:
            enable_activation_checkpointing(model)
    except UsageError as err:
        return Findings(problem_key="model", problem=str(err))
    problem = _problem_with_one_batch(spec, model, batch, folder=folder)
    if problem is not None:
        return Findings(problem_key="model", problem=problem)
    n_params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if n_params == 0:
        return Findings(problem_key="model", problem="it has no trainable parameter")
    return Findings(n_params=n_params)


def _build_without_memory(spec: JobSpec, *, folder: Path) -> torch.nn.Module:
    try:
        with torch.device("meta"):
            return build_model(spec.model, folder=folder)
    except (UsageError, NotImplementedError, RuntimeError):
        # A model that reads values while it is built, or loads weights, needs real tensors.
        return build_model(spec.model, folder=folder)


def _problem_with_one_batch(
    spec: JobSpec, model: torch.nn.Module, batch: Batch, *, folder: Path
) -> str | None:
    try:
        inspect.signature(model.forward).bind(**batch)
    except TypeError as err:
        return f"it cannot be called with the batch's keys {sorted(batch)}: {err}"
    try:
        _check_values(spec.model, batch)
        _run(spec, model, batch)
    except _WrongError as err:
        return str(err)
    except _USER_ERRORS as err:
        if _device_of(model).type != "meta":
            return f"it fails on one batch: {describe_error(err)}"
        if sum(p.numel() for p in model.parameters()) <= _MOST_PARAMETERS:
            # Perhaps an operation that needs values; if not, it fails again.
            with_values = build_model(spec.model, folder=folder)
            two = {name: value[:2] for name, value in batch.items()}
            return _problem_with_one_batch(spec, with_values, two, folder=folder)
    return None


def _run(spec: JobSpec, model: torch.nn.Module, batch: Batch) -> None:
    device = _device_of(model)
    on_device = {name: value.to(device) for name, value in batch.items()}
    output = model(**on_device)
    own_loss, logits = parts_of(output)
    try:
        read_output(output, on_device, loss=spec.training.loss)
        if own_loss is None and logits is not None and spec.training.loss == "cross_entropy":
            # Once more: on the meta device labels had no values.
            check_labels(batch["labels"], n_classes=logits.shape[-1])
    except (ValueError, RuntimeError) as err:
        raise _WrongError(str(err)) from err


def _device_of(model: torch.nn.Module) -> torch.device:
    return next(iter(model.parameters()), torch.empty(0)).device


class _WrongError(Exception):
    """What a model returned cannot be trained on, or a label or token is one it does not know."""


def _check_values(model: ModelSection, batch: Batch) -> None:
    """Compare labels and tokens with a built-in model; torch's own words for it name neither."""
    if isinstance(model, FactoryModel):
        return
    name = "vocab_size" if isinstance(model, Gpt2Model) else "num_labels"
    n_known = getattr(model.config, name)
    for key in ("input_ids", "labels"):
        values = batch.get(key)
        if values is None or n_known is None or values.is_floating_point():
            continue
        kept = values[values != IGNORED_LABEL] if key == "labels" else values
        if kept.numel() and not 0 <= int(kept.min()) <= int(kept.max()) < n_known:
            raise _WrongError(
                f"{key} reach from {int(kept.min())} to {int(kept.max())} and "
                f"model.config.{name} is {n_known}; change one of the two"
            )


def main() -> int:
    """Read the request, answer it; always 0 unless the process itself is broken."""
    request: dict[str, Any] = json.load(sys.stdin)
    spec = JobSpec.model_validate_json(json.dumps(request["spec"]))
    # What a user's module prints must not end up in the answer.
    answer, sys.stdout = sys.stdout, sys.stderr
    findings = examine(spec, folder=Path(request["folder"]))
    json.dump(asdict(findings), answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
