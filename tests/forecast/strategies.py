"""Setups and profiles to forecast: small, and every number in them given by hand."""

from typing import Any

from orchestrator.forecast.profile import ActivationTrace, ModelProfile, Moment, ParameterShape
from orchestrator.forecast.setup import Setup

DEFAULTS: dict[str, Any] = {
    "engine": "deepspeed",
    "stage": 0,
    "n_ranks": 2,
    "ranks_per_node": 2,
    "precision": "fp32",
    "optimizer": "adamw",
    "n_moments": 2,
    "state_dtype": "fp32",
    "fused_optimizer": False,
    "offload_optimizer": "none",
    "offload_params": "none",
    "pinned": False,
    "activation_checkpointing": False,
    "micro_batch_size": 2,
    "accumulation_steps": 1,
    "grad_accum_dtype": None,
    "communication_dtype": None,
    "overlap_comm": False,
    "gradient_clipping": False,
    "device": "cpu",
    "reduce_bucket_elements": 500_000_000,
    "prefetch_bucket_elements": 50_000_000,
    "persistence_threshold_elements": 0,
    "max_live_elements": 1_000_000_000,
    "max_reuse_distance_elements": 1_000_000_000,
    "sub_group_elements": 1_000_000_000,
    "multi_rank_bucket_allreduce": True,
    "swap_buffer_count": 4,
    "param_buffer_count": 5,
    "param_buffer_elements": 100_000_000,
}


def make_setup(**changes: Any) -> Setup:
    """The default strategy with some settings changed; gradients are as precise as weights."""
    settings = {**DEFAULTS, **changes}
    for name in ("grad_accum_dtype", "communication_dtype"):
        settings[name] = settings[name] or settings["precision"]
    return Setup(**settings)


def make_moment(
    kind: Any, subject: int, *, backward: bool, held: int = 0, peak: int = 0, temporary: int = 0
) -> Moment:
    """A moment at which so much is held, so much of it temporary."""
    return Moment(
        kind=kind,
        subject=subject,
        backward=backward,
        held_bytes=held,
        held_temporary_bytes=temporary,
        peak_bytes=max(peak, held),
        peak_temporary_bytes=temporary,
    )


def make_trace(moments: Any, *, micro_batch_size: int = 2, **bytes_: int) -> ActivationTrace:
    """A trace of some moments."""
    names = ("batch", "forward_peak", "forward_peak_temporary", "forward_end")
    sizes = {**{f"{name}_bytes": 0 for name in names}, **bytes_}
    return ActivationTrace(
        micro_batch_size=micro_batch_size, moments=tuple(moments), flops=0, **sizes
    )


def make_profile(sizes: Any, traces: Any, **changes: Any) -> ModelProfile:
    """A model of layers one below another, each with one parameter and one module.

    Args:
        sizes: elements of each parameter; module 0 is the model, module i + 1 the layer of i.
        traces: what was traced.
        changes: other fields.
    """
    return ModelProfile(
        **{
            "parameters": tuple(
                ParameterShape(name=f"layers.{i}.weight", n_elements=n, trainable=True)
                for i, n in enumerate(sizes)
            ),
            "modules": ((), *((i,) for i in range(len(sizes)))),
            "linears": (),
            "buffer_bytes": 0,
            "build_peak_bytes": 4 * sum(sizes),
            "traces": tuple(traces),
            **changes,
        }
    )


def layered_moments(n_layers: int) -> list[Moment]:
    """Forward through the layers and back, with nothing held beside weights and gradients."""
    layers = range(n_layers)
    moments = [make_moment("enter", 0, backward=False)]
    for i in layers:
        moments.append(make_moment("enter", i + 1, backward=False))
        moments.append(make_moment("leave", i + 1, backward=False))
    moments.append(make_moment("leave", 0, backward=False))
    moments.append(make_moment("enter_backward", 0, backward=True))
    for i in reversed(layers):
        moments.append(make_moment("enter_backward", i + 1, backward=True))
        moments.append(make_moment("gradient", i, backward=True))
        moments.append(make_moment("leave_backward", i + 1, backward=True))
    return moments


def layered_profile(sizes: Any, **changes: Any) -> ModelProfile:
    """Layers that hold nothing but weights and gradients."""
    moments = layered_moments(len(sizes))
    traces = [make_trace(moments, micro_batch_size=m) for m in (2, 4)]
    return make_profile(sizes, traces, **changes)
