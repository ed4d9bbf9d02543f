"""What a shadow process can be asked for, and how it answers.

A request is pickled, like everything that goes to a rank; the answer is a line of JSON.
"""

from dataclasses import dataclass
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.forecast.allocator_settings import AllocatorSettings
from orchestrator.forecast.shadow_result import SampleTensor
from orchestrator.plan.launch_plan import LaunchPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowRequest:
    """Run one rank of a plan on fake tensors; answered with a `ShadowResult`."""

    plan: LaunchPlan
    rank: int
    sample: dict[str, SampleTensor] | None
    allocator: AllocatorSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """Trace the bare model of a plan; answered with a `ModelProfile`."""

    plan: LaunchPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTestRequest:
    """Run the small model of the self-test; answered with a `ShadowResult`."""

    stage: int
    precision: str
    fake: bool


Request = ShadowRequest | ProfileRequest | SelfTestRequest

# What fake tensors raise when a model looks at values (torch/_subclasses/fake_tensor.py).
_VALUE_ERRORS = ("DataDependentOutputException", "DynamicOutputShapeException")


def answer(request: Request) -> dict[str, Any]:
    """Do what is asked for, in this process.

    Returns:
        `{"done": ...}`, or `{"problem": ...}`: why it cannot be done, in a line.
    """
    from orchestrator.worker.shadow.run import profile_run, shadow_run
    from orchestrator.worker.shadow.self_test import run_tiny

    try:
        if isinstance(request, SelfTestRequest):
            tiny = run_tiny(stage=request.stage, precision=request.precision, fake=request.fake)
            return {"done": tiny.to_json()}
        if isinstance(request, ProfileRequest):
            return {"done": profile_run(request.plan).to_json()}
        result = shadow_run(
            request.plan, rank=request.rank, sample=request.sample, allocator=request.allocator
        )
        return {"done": result.to_json()}
    except OrchestratorError as err:
        return {"problem": str(err)}
    except Exception as err:  # noqa: BLE001
        # The outermost frame of a user's model on tensors without values; the closed form is left.
        return {"problem": _why(err)}


def _why(err: Exception) -> str:
    name = type(err).__name__
    if name in _VALUE_ERRORS:
        return (
            f"the model's forward depends on the values of its data ({name}: {_first_line(err)}), "
            "which a run on fake tensors does not have"
        )
    return f"it does not run on fake tensors: {name}: {_first_line(err)}"


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [""])[0][:200]
