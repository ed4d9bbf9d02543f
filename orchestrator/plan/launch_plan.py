"""The LaunchPlan: everything a launch sends, and the only thing that can be launched.

`plan` prints it and `launch` sends it. Made from a checked job file and what the machine or the
cluster offers; touches nothing outside but a JSON file that `deepspeed:` may name.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.forecast.forecast import Forecast
from orchestrator.plan.batch import Batch, BatchError, resolve_batch
from orchestrator.plan.deepspeed_config import deepspeed_config, merge_user_config, needs_cpu_adam
from orchestrator.plan.parameters import n_parameters, open_sizes
from orchestrator.plan.resources import Machine, Resources, resolve_resources
from orchestrator.spec.finding import Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.load import JobFile
from orchestrator.spec.shapes import resolve_shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """What will run, exactly."""

    spec: JobSpec
    """The job with every size filled in."""
    strategy: str
    """Short name of how it is sharded, such as `zero3-optim-cpu-bf16`."""
    folder: Path
    """Where the job file lies; factories and relative paths start here."""
    batch: Batch
    resources: Resources
    n_params: int
    """Trainable parameters of the whole model."""
    deepspeed: dict[str, Any] | None
    """The exact dict DeepSpeed gets; `None` under the plain torch engine."""
    compiled_ops: tuple[str, ...]
    """DeepSpeed's C++ extensions that must be built before the ranks start."""
    notes: tuple[str, ...]
    """What the user should know and need not act on."""
    forecast: Forecast | None = None
    """What it will cost; `None` where that was not asked for."""
    forced: bool = False
    """It is launched although its forecast says that it does not fit."""

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {
            "name": self.spec.name,
            "strategy": self.strategy,
            "job": self.spec.model_dump(mode="json"),
            "batch": asdict(self.batch),
            "resources": asdict(self.resources),
            "n_params": self.n_params,
            "deepspeed": self.deepspeed,
            "compiled_ops": list(self.compiled_ops),
            "notes": list(self.notes),
            "forecast": None if self.forecast is None else self.forecast.to_json(),
            "forced": self.forced,
        }


def make_plan(
    job: JobFile, *, machine: Machine, n_params: int | None = None, cpu_adam: bool = True
) -> LaunchPlan:
    """Resolve a job against a machine.

    Args:
        job: the checked job file.
        machine: what there is to run on.
        n_params: parameters of a factory's model, counted by building it; not needed for the
            built-in families.
        cpu_adam: whether DeepSpeed's compiled CPU Adam can be built here, and so its Lion.

    Raises:
        SpecError: batch sizes, shapes or DeepSpeed settings do not fit together, or the precision
            or the optimizer does not go with the device.
        InfeasibleError: the machine has less than is asked for.
        ValueError: a factory's model was not counted.
    """
    spec = resolve_shapes(job)
    resources = resolve_resources(job, machine=machine)
    if unfit := tuple(_unfit_for_device(spec, device=resources.device, compiler=cpu_adam)):
        raise SpecError([job.problem(found.key, found.message) for found in unfit])
    try:
        batch = resolve_batch(spec.training, workers=resources.workers)
    except BatchError as err:
        raise SpecError([job.problem(err.key, err.message)]) from err
    if names := open_sizes(spec.model):
        message = "missing; a data factory does not tell it, so write a number"
        raise SpecError([job.problem(f"model.config.{name}", message) for name in names])
    count = n_parameters(spec.model) or n_params
    if count is None:
        raise ValueError("a factory's model must be counted before it can be planned")
    config = _deepspeed(job, spec, batch=batch, n_params=count, cpu_adam=cpu_adam, on=resources)
    return LaunchPlan(
        spec=spec,
        strategy=strategy_name(spec),
        folder=job.path.absolute().parent,
        batch=batch,
        resources=resources,
        n_params=count,
        deepspeed=config,
        compiled_ops=_compiled_ops(spec, cpu_adam=cpu_adam),
        notes=tuple(_notes(spec, config=config or {}, cpu_adam=cpu_adam)),
    )


def strategy_name(spec: JobSpec) -> str:
    """Name the sharding strategy: stage first, then only what is switched on."""
    parts = [f"zero{spec.zero.stage}"]
    if spec.zero.offload_optimizer != "none":
        parts.append(f"optim-{spec.zero.offload_optimizer}")
    if spec.zero.offload_params != "none":
        parts.append(f"params-{spec.zero.offload_params}")
    if spec.training.precision != "fp32":
        parts.append(spec.training.precision)
    if spec.training.activation_checkpointing:
        parts.append("ckpt")
    return "-".join(parts)


def _unfit_for_device(spec: JobSpec, *, device: str, compiler: bool) -> Iterator[Finding]:
    """Find what the job asks for and this device, or this machine's lack of a compiler, denies."""
    training = spec.training
    if training.precision == "fp16" and device == "cpu":
        message = "fp16 needs a GPU and this run is on the CPU; set bf16 or fp32"
        yield Finding(key="training.precision", message=message)
    if training.optimizer.name != "lion":
        return
    if device == "cpu" and spec.zero.offload_optimizer == "none":
        message = (
            "lion needs a GPU or zero.offload_optimizer: cpu, and this run is on the CPU; "
            "set zero.offload_optimizer: cpu at stage 1 to 3, or choose another optimizer"
        )
        yield Finding(key="training.optimizer.name", message=message)
    elif not compiler:
        message = (
            "lion has to be compiled and there is no C++ compiler; "
            "install g++ (apt-get install g++), or choose another optimizer"
        )
        yield Finding(key="training.optimizer.name", message=message)


def _deepspeed(
    job: JobFile, spec: JobSpec, *, batch: Batch, n_params: int, cpu_adam: bool, on: Resources
) -> dict[str, Any] | None:
    if spec.training.engine == "torch":
        return None
    ours = deepspeed_config(
        spec, batch=batch, n_params=n_params, device=on.device, cpu_adam=cpu_adam
    )
    merged, findings = merge_user_config(ours, _user_config(job, spec), spec=spec)
    if findings:
        raise SpecError([job.problem(f"deepspeed.{f.key}", f.message) for f in findings])
    return merged


def _user_config(job: JobFile, spec: JobSpec) -> dict[str, Any]:
    """The `deepspeed:` section, read from the JSON file it names if it is a path."""
    if isinstance(spec.deepspeed, dict):
        return spec.deepspeed
    path = job.path.absolute().parent / spec.deepspeed
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        message = f"cannot read {path}: {err.strerror}; give a JSON file relative to the job file"
        raise SpecError([job.problem("deepspeed", message)]) from err
    except ValueError as err:
        raise SpecError([job.problem("deepspeed", f"{path} is not JSON: {err}")]) from err
    if not isinstance(config, dict):
        raise SpecError([job.problem("deepspeed", f"{path} holds no JSON object")])
    return config


def _compiled_ops(spec: JobSpec, *, cpu_adam: bool) -> tuple[str, ...]:
    ops = []
    if needs_cpu_adam(spec) and cpu_adam:
        ops.append("cpu_adam")
    if spec.training.optimizer.name == "lion":
        ops.append("fused_lion" if spec.zero.offload_optimizer == "none" else "cpu_lion")
    if "nvme" in (spec.zero.offload_optimizer, spec.zero.offload_params):
        ops.append("async_io")
    return tuple(ops)


def _notes(spec: JobSpec, *, config: dict[str, Any], cpu_adam: bool) -> list[str]:
    notes = []
    if spec.checkpoint.every_steps is not None:
        notes.append("checkpoint.every_steps: checkpoints are not written by this version")
    if needs_cpu_adam(spec) and not cpu_adam:
        notes.append(
            "no C++ compiler: the offloaded optimizer runs as torch's Adam, slower than DeepSpeed's"
        )
    profiler = config.get("flops_profiler")
    if isinstance(profiler, dict) and profiler.get("enabled"):
        notes.append("deepspeed.flops_profiler slows every step; take no throughput from this run")
    return notes
