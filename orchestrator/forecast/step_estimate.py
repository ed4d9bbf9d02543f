"""From what a strategy computes and sends to an estimate of its step. Pure arithmetic."""

from collections.abc import Sequence

from orchestrator.errors import UsageError
from orchestrator.forecast.activations import trace_at
from orchestrator.forecast.profile import ModelProfile
from orchestrator.forecast.rates import rates_for
from orchestrator.forecast.setup import BYTES_OF, Setup
from orchestrator.forecast.shadow_result import ShadowResult
from orchestrator.forecast.step_time import StepTime, Traffic, Work, step_time
from orchestrator.forecast.wire import WireTerm
from orchestrator.measure.device_table import DevicePeak


def flops_of(
    setup: Setup, *, shadow: ShadowResult | None, profile: ModelProfile | None
) -> int | None:
    """Operations of one rank in a step, recomputation included; `None` where nothing tells."""
    if shadow is not None:
        return shadow.flops_per_micro_batch * setup.accumulation_steps
    if profile is None:
        return None
    one = trace_at(profile, setup.micro_batch_size).flops * setup.accumulation_steps
    # Forward is a third of it, and comes twice where all blocks are recomputed.
    return one * 4 // 3 if setup.activation_checkpointing else one


def estimate_step(
    setup: Setup,
    wire: Sequence[WireTerm],
    *,
    flops: int | None,
    n_params: int,
    device: DevicePeak | None,
) -> StepTime | None:
    """Estimate the time of one optimizer step; `None` where its work or the rate is not known.

    Args:
        setup: the strategy.
        wire: what it sends.
        flops: operations of one rank in a step.
        n_params: trainable parameters.
        device: `None` for a CPU, or a GPU that is not known.
    """
    on_gpu = setup.device == "cuda"
    if flops is None or (on_gpu and device is None):
        return None
    try:
        rates = rates_for(
            device,
            precision=setup.precision,
            n_ranks=setup.n_ranks,
            ranks_per_node=setup.ranks_per_node,
            backend="nccl" if on_gpu else "gloo",
        )
    except UsageError:
        # The device does not know the precision.
        return None
    offloads = setup.offload_optimizer != "none"
    share = setup.n_ranks if setup.stage > 0 else 1
    update_elements = -(-n_params // share)
    shard = update_elements * setup.weight_bytes
    moved = shard if on_gpu and offloads else 0
    # Offloaded weights come for forward and again for backward, each micro-batch.
    fetched = 2 * shard * setup.accumulation_steps if setup.offload_params != "none" else 0
    return step_time(
        Work(
            flops_per_micro_batch=flops // setup.accumulation_steps,
            accumulation_steps=setup.accumulation_steps,
            update_elements=update_elements,
            update_bytes_per_element=_update_bytes(setup),
            update_on_host=on_gpu and offloads,
            to_host_bytes=moved * setup.accumulation_steps,
            to_device_bytes=moved + (fetched if on_gpu else 0),
            traffic=tuple(
                Traffic(
                    name=term.collective,
                    phase=term.phase,
                    n_calls=term.n_calls,
                    wire_bytes=term.wire_bytes,
                )
                for term in wire
            ),
        ),
        rates=rates,
        stage=setup.stage,
        overlap=setup.overlap_comm and on_gpu,
    )


def _update_bytes(setup: Setup) -> float:
    """Bytes that an update reads and writes a parameter: AdamW in fp32 reads 16 and writes 12."""
    state = BYTES_OF[setup.state_dtype] * setup.n_moments
    cast = 0 if setup.precision == "fp32" else setup.weight_bytes
    return 2 * (4 + state) + 4 + cast
