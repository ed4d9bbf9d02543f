"""The engine a plan asks for; only that one's library is imported."""

import importlib

import torch

from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.worker.engine import Engine


def import_engine(plan: LaunchPlan) -> None:
    """Import what `build_engine` will need for a plan."""
    name = "torch_engine" if plan.spec.training.engine == "torch" else "deepspeed_engine"
    importlib.import_module(f"orchestrator.worker.{name}")


def build_engine(plan: LaunchPlan, model: torch.nn.Module, *, device: torch.device) -> Engine:
    """Wrap a model for training as the plan says. Collective: every rank calls it."""
    if plan.spec.training.engine == "torch":
        from orchestrator.worker.torch_engine import TorchEngine

        return TorchEngine(plan, model, device=device)
    from orchestrator.worker.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(plan, model, device=device)
