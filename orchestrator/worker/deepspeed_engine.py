"""DeepSpeed behind the engine protocol: ZeRO stages 0 to 3, offload, mixed precision."""

import functools
import importlib
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import cpuinfo
import deepspeed
import torch

from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.worker.compiled_ops import load_built
from orchestrator.worker.engine import Batch, GradientNotFiniteError
from orchestrator.worker.objective import read_output
from orchestrator.worker.roles import Role, inner_optimizer, zero_roles

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class DeepSpeedEngine:
    """One rank of a DeepSpeed job."""

    def __init__(self, plan: LaunchPlan, model: torch.nn.Module, *, device: torch.device) -> None:
        _leave_out_shared_memory_op()
        _leave_out_muon_kernels()
        _remember_the_processor()
        if "TORCH_EXTENSIONS_DIR" in os.environ:
            load_built(plan.compiled_ops, folder=Path(os.environ["TORCH_EXTENSIONS_DIR"]))
        self.device = device
        self._plan = plan
        self._loss = plan.spec.training.loss
        self._dtype = _DTYPES[plan.spec.training.precision]
        parameters = [p for p in model.parameters() if p.requires_grad]
        if plan.spec.zero.offload_params == "nvme" and self._dtype == torch.float32:
            _shard_by_config(model, plan)
        self._engine, *_ = deepspeed.initialize(
            model=model,
            model_parameters=parameters,
            config=plan.deepspeed,
            dist_init_required=False,
        )
        self.module = self._engine.module
        self.torch_optimizer = inner_optimizer(self._engine.optimizer)
        self.updates_on_host = plan.spec.zero.offload_optimizer != "none"

    def forward(self, batch: Batch) -> torch.Tensor:
        """Compute the mean loss of one micro-batch."""
        self._engine.train()
        batch = self._cast(batch)
        return read_output(self._engine(**batch), batch, loss=self._loss)[0]

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add the gradient; ZeRO 2 and 3 also reduce it here, every micro-batch."""
        self._engine.backward(loss)
        if not last:
            self._engine.step()

    def step(self, *, lr: float) -> float | None:
        """Update the weights with this learning rate.

        Raises:
            GradientNotFiniteError: the gradient is not finite, and no loss scale can mend it.
        """
        norm = self._stage0_norm()
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        skipped_before = self._engine.skipped_steps
        self._engine.step()
        if self._engine.skipped_steps > skipped_before and self._dtype != torch.float16:
            # ZeRO 1 to 3 skip such a step without a word, stage 0 takes it: neither may pass.
            raise GradientNotFiniteError("the gradient is not finite")
        if norm is None:
            reported = self._engine.get_global_grad_norm()
            norm = None if reported is None else float(reported)
        return norm

    def predict(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean loss and logits, in evaluation mode."""
        self._engine.eval()
        batch = self._cast(batch)
        with torch.no_grad():
            return read_output(self._engine(**batch), batch, loss=self._loss)

    def skipped_steps(self) -> int:
        """Updates DeepSpeed left out so far."""
        return int(self._engine.skipped_steps)

    def roles(self) -> Iterable[Role]:
        """What ZeRO keeps, on the device or the host."""
        return zero_roles(self._engine.optimizer, self.module, self._plan.spec.zero)

    def swapped_bytes(self) -> int | None:
        """Size of this rank's swap files.

        Source:
            deepspeed 0.19.8, runtime/swap_tensor/: `<nvme_path>/zero_stage_3/<kind>/rank<r>`.
        """
        folders = self._swap_folders()
        if folders is None:
            return None
        return sum(file.stat().st_size for folder in folders for file in folder.glob("*.swp"))

    def close(self) -> None:
        """Destroy the engine, and the swap files it would leave behind."""
        self._engine.destroy()
        for folder in self._swap_folders() or ():
            shutil.rmtree(folder, ignore_errors=True)

    def _swap_folders(self) -> list[Path] | None:
        zero = self._plan.spec.zero
        if "nvme" not in (zero.offload_optimizer, zero.offload_params) or zero.nvme_path is None:
            return None
        rank = torch.distributed.get_rank()
        return list(Path(zero.nvme_path).glob(f"zero_stage_3/*/rank{rank}"))

    def _cast(self, batch: Batch) -> Batch:
        """Floating-point inputs in the type of the weights."""
        if self._dtype == torch.float32:
            return batch
        return {
            name: value.to(self._dtype) if value.is_floating_point() else value
            for name, value in batch.items()
        }

    def _stage0_norm(self) -> float | None:
        """The gradient's norm at stage 0 in fp32, where DeepSpeed neither computes nor checks it.

        Raises:
            GradientNotFiniteError: it is not finite; the step would turn every weight into NaN.
        """
        if self._plan.spec.zero.stage != 0 or self._dtype != torch.float32:
            return None
        gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            raise GradientNotFiniteError("the gradient is not finite")
        return norm


def _shard_by_config(model: torch.nn.Module, plan: LaunchPlan) -> None:
    """Shard the parameters before the engine would, so that they are swapped in their own type.

    The engine names the type to `zero.Init`, which then takes bf16 on every accelerator without
    fp16, such as the CPU, and fp32 weights come back from NVMe as bf16. Reading the type from the
    configuration gets it right.

    Source: deepspeed 0.19.8, runtime/zero/partition_parameters.py, `_set_dtype`.
    """
    deepspeed.init_distributed(dist_init_required=False)
    deepspeed.zero.Init(
        module=model,
        config_dict_or_path=plan.deepspeed,
        remote_device="nvme",
        pin_memory=plan.resources.device == "cuda",
    )


def _remember_the_processor() -> None:
    """Ask for the processor's name once a process: every offloaded Adam starts a Python for it.

    Source: deepspeed 0.19.8, ops/adam/cpu_adam.py; py-cpuinfo 9.0.0, `get_cpu_info_json`.
    """
    if not hasattr(cpuinfo.get_cpu_info, "cache_info"):
        cpuinfo.get_cpu_info = functools.cache(cpuinfo.get_cpu_info)


def _leave_out_shared_memory_op() -> None:
    """Tell DeepSpeed not to compile its shared-memory collectives for CPU ranks.

    They serve inference and are used only with LOCAL_SIZE set; compiling them takes a minute,
    hangs for ever behind a stale lock and leaves 66 MiB a rank in /dev/shm. Whether an op fits this
    machine is looked up in this dict, which else is filled by running the compiler for each op.

    Source: deepspeed 0.19.8, comm/torch.py `build_shm_op` and ops/__init__.py `__getattr__`.
    """
    deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False, "shm_comm": False}


def _leave_out_muon_kernels() -> None:
    """Import DeepSpeed's Muon optimizer without compiling its kernels.

    `deepspeed.initialize` imports it to look at a class, and its `torch.compile` decorators import
    torch's whole compiler: over a second of every start, for an optimizer no job file can name.
    A model that compiles itself still does.

    Source: deepspeed 0.19.8, runtime/zero/utils.py and runtime/zero/muon/original_muon.py; torch
    2.13.0, _dynamo/eval_frame.py, which reads TORCHDYNAMO_DISABLE when a decorator is applied.
    """
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    finally:
        if before is None:
            del os.environ["TORCHDYNAMO_DISABLE"]
        else:
            os.environ["TORCHDYNAMO_DISABLE"] = before
