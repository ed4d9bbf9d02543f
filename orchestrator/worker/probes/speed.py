"""What a rank computes in a step and what its device could: the two numbers behind MFU.

And what makes a loss depend on how a batch is cut: batch normalisation, random draws.
"""

import functools
import time

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator.measure.sample import RankSpeed
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.worker.engine import Batch
from orchestrator.worker.probes.flops import GEMM_SIZE, count_flops, measured_gemm_flops_per_s

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def find_speed(
    plan: LaunchPlan,
    batch: Batch,
    *,
    model: torch.nn.Module,
    draws_random: bool | None,
    device: torch.device,
    rank: int,
) -> RankSpeed:
    """Count a step's operations, and find out what the device could do at most.

    Args:
        plan: what runs.
        batch: one micro-batch, on the CPU.
        model: what is trained.
        draws_random: whether its forward drew random numbers.
        device: the rank's.
        rank: who asks.
    """
    flops = _flops(plan, batch)
    n_micro_batches = plan.batch.accumulation_steps
    peak, source = _peak(device, precision=plan.spec.training.precision)
    return RankSpeed(
        rank=rank,
        time_unix_s=time.time(),
        model_flops=None if flops is None else float(flops * n_micro_batches),
        peak_flops_per_s=peak,
        peak_source=source,
        batch_norm=any(isinstance(module, _BatchNorm) for module in model.modules()),
        draws_random=draws_random,
    )


def random_state(device: torch.device) -> torch.Tensor:
    """Where the generators stand that a forward on this device draws from."""
    state = torch.get_rng_state()
    if device.type == "cuda":
        state = torch.cat([state, torch.cuda.get_rng_state(device)])
    return state


_COUNTED: dict[str, int | None] = {}
"""Model and shapes of a micro-batch -> operations, of what this process has counted already."""


def _flops(plan: LaunchPlan, batch: Batch) -> int | None:
    shapes = {name: (list(value.shape), str(value.dtype)) for name, value in batch.items()}
    key = f"{plan.folder} {plan.spec.model.model_dump_json()} {shapes}"
    if key not in _COUNTED:
        _COUNTED[key] = count_flops(plan.spec.model, batch, folder=plan.folder)
    return _COUNTED[key]


# Once a process: it takes a moment, and strategies that run one after another are to be shares of
# the same.
@functools.cache
def _peak(device: torch.device, *, precision: str) -> tuple[float | None, str | None]:
    if device.type == "cuda":
        from orchestrator.measure.devices import peak_flops_per_s

        known = peak_flops_per_s(torch.cuda.get_device_name(device), precision=precision)
        return known if known is not None else (None, None)
    # A CPU's data sheet says little of what a rank can reach with its share of the cores.
    measured = measured_gemm_flops_per_s(_DTYPES[precision])
    threads = torch.get_num_threads()
    return measured, (
        f"measured: {precision} product of {GEMM_SIZE} x {GEMM_SIZE} matrices on this CPU, "
        f"{threads} thread{'s' if threads != 1 else ''} a rank, all ranks at once"
    )
