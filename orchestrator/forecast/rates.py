"""The Rates at which a rank computes, sends and moves bytes: defaults, until some are measured.

Pure arithmetic. Every default has its source beside it, or says that it is ours.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.errors import UsageError
from orchestrator.forecast.setup import Precision
from orchestrator.measure.device_table import GB, DevicePeak
from orchestrator.measure.devices import model_of

TENSOR_CORE_RATIO = 0.45
"""Of the dense peak, what training transformers reaches in bf16 and fp16, recomputation counted.

Source: Narayanan et al., Efficient Large-Scale Language Model Training on GPU Clusters Using
Megatron-LM (arXiv:2104.04473), table 1: 43 to 52 % on A100, all else of a step included.
"""
FP32_RATIO = 0.6
"""The same without tensor cores, where less time goes to memory. Ours, not measured."""
MEMORY_RATIO = 0.8
"""Of the peak, what an update that only streams reaches. Ours, not measured."""
NCCL_RATIO = 0.8
"""Of a link inside a node. Source: NVIDIA/nccl-tests issue 212, 370 of NVLink's 450 GB/s."""
NETWORK_RATIO = 0.92
"""Of a network card. Source: NVIDIA/nccl-tests issue 290, 46 to 48 of 50 GB/s."""
HOST_LINK_RATIO = 0.8
"""Of PCIe, page-locked memory. Source: ZaidQureshi/bam issue 54, 12 of 16 and 25 of 32 GB/s."""

NETWORK_BYTES_PER_S = {"a100": 25 * GB, "h100": 50 * GB, "h200": 50 * GB, "b200": 50 * GB}
"""Of the card that each GPU has to itself. Source: user guides of DGX A100, H100, H200 and B200."""
SHARED_NETWORK_BYTES_PER_S = 12.5 * GB
"""Of the one card that a node of any other GPU is taken to have: 100 Gbit/s. Ours."""

NCCL_BASE_S, NVLINK_HOP_S, PCIE_HOP_S, NETWORK_HOP_S = 8.4e-6, 3.4e-6, 5.7e-6, 9.6e-6
"""A ring's start, and each of its hops. Source: NVIDIA/nccl, src/graph/tuning.cc, ring, Simple."""
GLOO_ALPHA_S, GLOO_BETA_BYTES_PER_S = 1e-4, 1.0 * GB
"""Over loopback. Ours, an order of magnitude."""

CPU_ADAM_ELEMENTS_PER_S = 1.4e9
"""Of a whole host. Source: deepspeedai/DeepSpeed pull request 735, 11.6e9 elements in 8.2 s."""
CPU_FLOPS_PER_S, CPU_MEMORY_BYTES_PER_S = 3e10, 10.0 * GB
"""Of a rank with a core or two to itself. Ours, an order of magnitude."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast one rank does each kind of work."""

    flops_per_s: float
    """Reached, not the peak."""
    memory_bytes_per_s: float
    alpha_s: float
    """Of every collective call, however small."""
    beta_bytes_per_s: float
    """Sent by one rank."""
    host_link_bytes_per_s: float
    """Each direction."""
    cpu_adam_elements_per_s: float
    """Of this rank's share of its host."""
    sources: Mapping[str, str]
    """Where each rate is from, by its name."""


def rates_for(
    device: DevicePeak | None,
    *,
    precision: Precision,
    n_ranks: int,
    ranks_per_node: int,
    backend: Literal["nccl", "gloo"],
) -> Rates:
    """Default rates, to be replaced by measured ones (`with_measured`).

    Args:
        device: the GPU of a rank; `None` is a CPU, of which nothing is known.
        precision: of the weights in forward and backward.
        n_ranks: data-parallel ranks, at least 1.
        ranks_per_node: ranks on one node, at least 1.
        backend: what sends; a CPU has gloo, whatever is said here.

    Raises:
        UsageError: the device has no rate in that precision.
        ValueError: there is no rank, or no rank on a node.
    """
    if min(n_ranks, ranks_per_node) < 1:
        raise ValueError(f"{n_ranks} ranks, {ranks_per_node} on a node; there is at least one")
    on_node = min(n_ranks, ranks_per_node)
    n_nodes = math.ceil(n_ranks / ranks_per_node)
    flops_per_s, compute_source = _compute(device, precision)
    memory_bytes_per_s, memory_source = CPU_MEMORY_BYTES_PER_S, "a guess for any CPU"
    host_link_bytes_per_s, host_source = memory_bytes_per_s, memory_source
    if device is not None:
        memory_bytes_per_s = MEMORY_RATIO * device.memory_bytes_per_s
        memory_source = f"{MEMORY_RATIO:.0%} of the memory of {device.name}"
        host_link_bytes_per_s = HOST_LINK_RATIO * device.host_link_bytes_per_s
        host_source = f"{HOST_LINK_RATIO:.0%} of the PCIe of {device.name}"
    alpha_s, alpha_source = GLOO_ALPHA_S, "a guess for gloo"
    beta_bytes_per_s, beta_source = GLOO_BETA_BYTES_PER_S, "a guess for gloo"
    if backend == "nccl" and device is not None:
        alpha_s = _nccl_alpha_s(device, n_ranks=n_ranks, n_nodes=n_nodes)
        alpha_source = f"NCCL's own estimate for a ring of {n_ranks}"
        beta_bytes_per_s, beta_source = _nccl_beta(device, on_node=on_node, n_nodes=n_nodes)
    return Rates(
        flops_per_s=flops_per_s,
        memory_bytes_per_s=memory_bytes_per_s,
        alpha_s=alpha_s,
        beta_bytes_per_s=beta_bytes_per_s,
        host_link_bytes_per_s=host_link_bytes_per_s,
        cpu_adam_elements_per_s=CPU_ADAM_ELEMENTS_PER_S / on_node,
        sources={
            "flops_per_s": compute_source,
            "memory_bytes_per_s": memory_source,
            "alpha_s": alpha_source,
            "beta_bytes_per_s": beta_source,
            "host_link_bytes_per_s": host_source,
            "cpu_adam_elements_per_s": f"a host's {CPU_ADAM_ELEMENTS_PER_S:.2g} over {on_node}",
        },
    )


def with_measured(rates: Rates, *, source: str, **measured: float) -> Rates:
    """Put measured rates in place of defaults.

    Args:
        rates: what is known so far.
        source: where the new ones are from, in words.
        **measured: rates by the names that `Rates` gives them.

    Raises:
        TypeError: there is no such rate.
    """
    return replace(rates, **measured, sources={**rates.sources, **dict.fromkeys(measured, source)})


def fit_alpha_beta(samples: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Fit alpha + bytes / beta to measured calls, least squares of relative errors.

    Relative, because sizes span decades and the largest would drown alpha.

    Args:
        samples: bytes that a rank sent in one call, and the seconds it took, above 0.

    Returns:
        Seconds of an empty call, at least 0, and bytes per second; infinite where larger calls
        take no longer.

    Raises:
        ValueError: fewer than two sizes, or a call that took no time.
    """
    if len({n_bytes for n_bytes, _ in samples}) < 2 or min(s for _, s in samples) <= 0:
        raise ValueError("a fit needs calls of two sizes that took some time")
    # Of each equation a + b * bytes = seconds, divided by its seconds.
    rows = [(1 / seconds, n_bytes / seconds) for n_bytes, seconds in samples]
    uu = sum(u * u for u, _ in rows)
    uv = sum(u * v for u, v in rows)
    vv = sum(v * v for _, v in rows)
    u_sum, v_sum = sum(u for u, _ in rows), sum(v for _, v in rows)
    determinant = uu * vv - uv * uv
    alpha_s = (u_sum * vv - v_sum * uv) / determinant
    s_per_byte = (v_sum * uu - u_sum * uv) / determinant
    if alpha_s < 0:
        return 0.0, vv / v_sum
    if s_per_byte <= 0:
        return u_sum / uu, math.inf
    return alpha_s, 1 / s_per_byte


def _compute(device: DevicePeak | None, precision: Precision) -> tuple[float, str]:
    if device is None:
        return CPU_FLOPS_PER_S, "a guess for any CPU"
    if precision not in device.flops_per_s:
        known = " or ".join(device.flops_per_s)
        raise UsageError(f"{device.name} has no known rate in {precision}; choose {known}")
    ratio = FP32_RATIO if precision == "fp32" else TENSOR_CORE_RATIO
    source = f"{ratio:.0%} of the dense {precision} peak of {device.name}"
    return ratio * device.flops_per_s[precision], source


def _nccl_alpha_s(device: DevicePeak, *, n_ranks: int, n_nodes: int) -> float:
    """A ring's latency: hops from rank to rank, of which one leaves each node.

    An all-reduce hops twice as often, and where that is slow NCCL sends along a tree instead.
    """
    n_hops = n_ranks - 1
    n_leaving = min(n_hops, n_nodes) if n_nodes > 1 else 0
    hop_s = PCIE_HOP_S if device.nvlink_bytes_per_s is None else NVLINK_HOP_S
    return NCCL_BASE_S + n_leaving * NETWORK_HOP_S + (n_hops - n_leaving) * hop_s


def _nccl_beta(device: DevicePeak, *, on_node: int, n_nodes: int) -> tuple[float, str]:
    """What a rank sends a second, of rings that are as fast as their slowest part.

    Each ring leaves a node once, and each network card of the node carries rings of its own.
    """
    link = "PCIe" if device.nvlink_bytes_per_s is None else "NVLink"
    inside = NCCL_RATIO * device.interconnect_bytes_per_s
    source = f"{NCCL_RATIO:.0%} of the {link} of {device.name}"
    if n_nodes == 1:
        return inside, source
    own = NETWORK_BYTES_PER_S.get(model_of(device))
    cards = SHARED_NETWORK_BYTES_PER_S if own is None else on_node * own
    between = NETWORK_RATIO * cards
    if inside <= between:
        return inside, source
    n_cards = 1 if own is None else on_node
    return between, f"a node's network of {n_cards} x {cards / n_cards * 8 / GB:.0f} Gbit/s"
