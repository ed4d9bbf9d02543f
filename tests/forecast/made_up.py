"""A shadow run and a forecast, made up: every number in them given by hand."""

from typing import Any

from orchestrator.forecast.device_overhead import DeviceOverhead
from orchestrator.forecast.forecast import Budget, Forecast
from orchestrator.forecast.host import HostForecast
from orchestrator.forecast.shadow_result import (
    Collective,
    DeviceMemory,
    SampleTensor,
    ShadowResult,
)
from orchestrator.forecast.step_time import StepTime
from orchestrator.forecast.terms import Term
from orchestrator.forecast.verdict import Interval, Verdict
from orchestrator.forecast.wire import WireTerm
from orchestrator.measure.ledger import Ledger, empty_ledger
from orchestrator.units import GIB, MIB


def held(**parts: int) -> Ledger:
    """A ledger of these bytes."""
    return empty_ledger() | parts


def held_mib(**parts: int) -> Ledger:
    """A ledger of these MiB."""
    return held(**{name: n_mib * MIB for name, n_mib in parts.items()})


DEVICE_MEMORY = DeviceMemory(
    allocated_peak_bytes=700 * MIB,
    reserved_peak_bytes=800 * MIB,
    phase_reserved_bytes={"init": 500 * MIB, "step": 800 * MIB},
    fragmentation_bytes=100 * MIB,
    n_segments=7,
)
# What CUDA and NCCL take: 300 MiB to 1 GiB.
OVERHEAD = DeviceOverhead(
    context_bytes=(100 * MIB, 424 * MIB),
    communication_bytes=(200 * MIB, 600 * MIB),
    source="the book of contexts",
)


def make_shadow(**changes: Any) -> ShadowResult:
    """A shadow run on a CPU, in bytes: init 100, forward 150, backward 190, step 180."""
    values: dict[str, Any] = {
        "rank": 0,
        "n_params": 600,
        "peak_ledgers": {
            "init": held(params=100),
            "forward": held(params=100, activations=50),
            "backward": held(params=100, gradients=40, activations=50),
            "step": held(params=100, gradients=40, temporaries=40),
        },
        "host_ledger": empty_ledger(),
        "nvme_bytes": None,
        "collectives": (
            Collective(name="allreduce_", phase="backward", n_calls=2, payload_bytes=1000),
        ),
        "flops_per_micro_batch": 300,
        "device_memory": None,
        "steps_agree": True,
        "scratch_unknown_bytes": 0,
        "micro_batch_size": 2,
        "sample": {
            "input_ids": SampleTensor(shape=(128,), dtype="int64"),
            "labels": SampleTensor(shape=(128,), dtype="int64", same_as="input_ids"),
        },
        "seconds": 1.5,
        "rss_peak_bytes": 10**9,
    }
    return ShadowResult(**{**values, **changes})


def make_forecast(**changes: Any) -> Forecast:
    """A forecast of two CPU ranks, in MiB: init 100, forward 150, backward 210, step 180."""
    values: dict[str, Any] = {
        "strategy": "zero2",
        "workers": 2,
        "device": "cpu",
        "rank": 0,
        "method": "shadow",
        "why_closed_form": None,
        "n_params": 50,
        "global_batch_size": 16,
        "phase_ledgers": {
            "init": held_mib(params=100),
            "forward": held_mib(params=100, activations=50),
            "backward": held_mib(params=100, gradients=60, activations=50),
            "step": held_mib(params=100, gradients=60, temporaries=20),
        },
        "host_ledger": empty_ledger(),
        "nvme_bytes": None,
        "activations_known": True,
        "cross_check": None,
        "device_memory": None,
        "overhead": None,
        "needed": Interval(low=207 * MIB, expected=210 * MIB, high=213 * MIB),
        "host": HostForecast(
            ranks_per_node=2,
            offloaded_bytes=0,
            pinned_rounding_bytes=0,
            tensor_bytes=210 * MIB,
            start_bytes=0,
            node_bytes=Interval(low=GIB, expected=2 * GIB, high=3 * GIB),
        ),
        "wire": (
            WireTerm(
                collective="all_reduce",
                n_calls=3,
                payload_bytes=60 * MIB,
                wire_bytes=60 * MIB,
                phase="backward",
                what="gradients, every micro-batch",
                source="the book of wires",
            ),
            WireTerm(
                collective="all_gather",
                n_calls=1,
                payload_bytes=100 * MIB,
                wire_bytes=50 * MIB,
                phase="step",
                what="updated weights",
                source="the book of wires",
            ),
        ),
        "flops_per_step": 600,
        "step_time": StepTime(
            compute_s=0.25,
            communication_s=0.1,
            exposed_communication_s=0.1,
            optimizer_s=0.05,
            transfer_s=0.0,
            total_s=0.4,
            assumptions=("all goes well",),
        ),
        "ideal_states_bytes": 80 * MIB,
        "terms": (
            Term(
                phase="resting",
                category="params",
                place="device",
                n_bytes=100 * MIB,
                what="weights 2P",
                source="the book of weights",
            ),
        ),
        "budget": Budget(n_bytes=GIB, of="of the budget"),
        "node_budget_bytes": None,
        "verdict": Verdict.FITS,
        "reason": "it is small",
        "remedy": None,
        "notes": (),
    }
    return Forecast(**{**values, **changes})
