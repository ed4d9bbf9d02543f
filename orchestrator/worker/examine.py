"""A look at a user's own model and data before anything starts, in a process of its own.

Run as `python -m orchestrator.worker.examine`, with the job's sections as JSON on stdin; answers
with JSON on stdout: the number of parameters, or the key to blame and what is wrong with it. The
model is built on the meta device, where weights take no memory, if it can be.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from orchestrator.data.build import build_data
from orchestrator.data.samples import Datasets
from orchestrator.errors import UsageError
from orchestrator.models.build import build_model
from orchestrator.models.checkpointing import enable_activation_checkpointing
from orchestrator.spec.job import JobSpec
from orchestrator.worker.objective import check_labels, parts_of, read_output


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
    except UsageError as err:
        return Findings(problem_key="data", problem=str(err))
    try:
        model = _build_without_memory(spec, folder=folder)
        if spec.training.activation_checkpointing:
            enable_activation_checkpointing(model)
    except UsageError as err:
        return Findings(problem_key="model", problem=str(err))
    problem = _problem_with_one_batch(spec, model, datasets)
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
    spec: JobSpec, model: torch.nn.Module, datasets: Datasets
) -> str | None:
    n_samples = min(spec.training.micro_batch_size or 1, len(datasets.train))
    batch = datasets.train.batch(range(n_samples))
    device = next(iter(model.parameters()), torch.empty(0)).device
    try:
        output = model(**{name: value.to(device) for name, value in batch.items()})
    except TypeError as err:
        return f"it cannot be called with the batch's keys {sorted(batch)}: {err}"
    except (NotImplementedError, RuntimeError) as err:
        if device.type == "meta":
            # Some operations need real values; the first step will tell.
            return None
        return f"it fails on one batch: {err}"
    own_loss, logits = parts_of(output)
    try:
        if own_loss is None and logits is not None and "labels" in batch and _is_meta(logits):
            # The shapes are known and the values are not: what can be told is told.
            if spec.training.loss == "cross_entropy":
                check_labels(batch["labels"], n_classes=logits.shape[-1])
        else:
            read_output(output, batch, loss=spec.training.loss)
    except (ValueError, RuntimeError) as err:
        return str(err)
    return None


def _is_meta(tensor: torch.Tensor) -> bool:
    return bool(tensor.device.type == "meta")


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
