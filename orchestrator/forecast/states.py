"""Model states: what the ZeRO paper says a rank keeps, and what DeepSpeed really keeps.

Pure arithmetic. P = trainable parameters, F = frozen ones, N = ranks, b = bytes of a weight,
a = bytes of an accumulated gradient, m = optimizer-state tensors, B = elements of the reduce
bucket, L = elements of the largest parameter.
"""

import math
from collections.abc import Iterator

from orchestrator.forecast.layout import Layout, shard_elements
from orchestrator.forecast.setup import BYTES_OF, Setup
from orchestrator.forecast.terms import Part

_STAGE_12 = "deepspeed 0.19.8, runtime/zero/stage_1_and_2.py"
_STAGE_3 = "deepspeed 0.19.8, runtime/zero/stage3.py"
_BF16 = "deepspeed 0.19.8, runtime/bf16_optimizer.py"
_UNFUSED = "deepspeed 0.19.8, runtime/fp16/unfused_optimizer.py"
_SWAP = "deepspeed 0.19.8, runtime/swap_tensor"
LEAST_SWAPPED_BYTES = 2**20
"""What is smaller is not worth a file (swap_tensor/utils.py, `MIN_AIO_BYTES`)."""
_SWAP_ALIGNED_BYTES = 1024
"""Files and buffers are multiples of it (swap_tensor/utils.py, `AIO_ALIGNED_BYTES`)."""


def ideal_states_bytes(
    n_params: int, *, stage: int, n_ranks: int, optimizer_bytes: int = 12
) -> int:
    """Bytes of weights, gradients and optimizer state of one rank, as the ZeRO paper has them.

    Args:
        n_params: P.
        stage: 0 shards nothing; 1 optimizer state; 2 also gradients; 3 also weights.
        n_ranks: N, at least 1.
        optimizer_bytes: K, bytes of optimizer state a parameter; mixed-precision Adam keeps fp32
            weights, momentum and variance, so 12. Weights and gradients take 2 each.

    Raises:
        ValueError: no such stage, or no rank.

    Source:
        Rajbhandari et al., ZeRO (arXiv:1910.02054), figure 1 and table 1.
    """
    if stage not in (0, 1, 2, 3) or n_ranks < 1:
        raise ValueError(f"there is no stage {stage} on {n_ranks} ranks")
    shared = [optimizer_bytes, 2, 2][:stage]
    whole = [optimizer_bytes, 2, 2][stage:]
    return n_params * sum(whole) + math.ceil(n_params * sum(shared) / n_ranks)


def resting_parts(setup: Setup, layout: Layout, *, buffer_bytes: int) -> tuple[Part, ...]:
    """What DeepSpeed keeps between optimizer steps, once the first one has made its state.

    Args:
        setup: the strategy.
        layout: the model's elements and whose they are.
        buffer_bytes: registered buffers of the model.
    """
    own = Part("params", buffer_bytes, "the model's own buffers", "torch.nn.Module.buffers")
    if setup.engine == "torch" or setup.stage == 0:
        return (own, *_unsharded(setup, layout))
    if setup.stage < 3:
        return (own, *_partitioned(setup, layout))
    return (own, *_sharded(setup, layout))


def keeps_whole_fp32_gradients(setup: Setup) -> bool:
    """Whether DeepSpeed takes its BF16_Optimizer, which shares nothing but optimizer state.

    Source:
        deepspeed 0.19.8, runtime/engine.py:2305, `_do_optimizer_sanity_check`.
    """
    return (
        setup.engine == "deepspeed"
        and setup.stage == 1
        and setup.precision == "bf16"
        and setup.grad_accum_dtype == "fp32"
        and setup.offload_optimizer == "none"
    )


def adds_up_in_fp32(setup: Setup) -> bool:
    """Whether stages 1 and 2 add gradients up in one flat fp32 partition.

    Source:
        deepspeed 0.19.8, runtime/zero/stage_1_and_2.py, `_use_compact_grad_partition_buffer`.
    """
    return setup.grad_accum_dtype == "fp32" and setup.precision != "fp32"


def master_bytes(setup: Setup) -> int:
    """Bytes of a master weight: DeepSpeed keeps optimizer state in bf16 only with such weights."""
    return BYTES_OF[setup.state_dtype]


def on_host(n_bytes: int, setup: Setup) -> int:
    """What a tensor of so many bytes takes on the host.

    Source:
        torch 2.13.0, CachingHostAllocator.h: blocks of page-locked memory are powers of two.
    """
    if not setup.pinned or n_bytes == 0:
        return n_bytes
    return 1 << (n_bytes - 1).bit_length()


def persistent_sizes(setup: Setup, layout: Layout) -> list[int]:
    """Stage 3: elements, with padding, of each parameter that is never given back.

    Source:
        deepspeed 0.19.8, runtime/zero/parameter_offload.py, `mark_persistent_parameters`.
    """
    if layout.counted or layout.n_ranks == 1:
        return []
    return [
        shard_elements(n, layout.n_ranks) * layout.n_ranks
        for n in (*layout.trainable, *layout.frozen)
        if n <= setup.persistence_threshold_elements
    ]


def nvme_bytes(setup: Setup, layout: Layout) -> int:
    """Bytes of a rank's swap files.

    Source:
        deepspeed 0.19.8, runtime/swap_tensor: optimizer_utils.py, partitioned_param_swapper.py.
    """
    total = 0
    if setup.offload_params == "nvme":
        total += sum(_file_bytes(n * setup.weight_bytes) for n in layout.shards)
    if setup.offload_optimizer == "nvme":
        one = master_bytes(setup)
        total += sum(
            (1 + setup.n_moments) * _file_bytes(n * one)
            for n in layout.sub_groups(setup.sub_group_elements)
        )
        total += sum(_file_bytes(n * one) for n in layout.shards)
    return total


def _unsharded(setup: Setup, layout: Layout) -> Iterator[Part]:
    n, frozen, b = layout.n_trainable, layout.n_frozen, setup.weight_bytes
    yield Part("params", b * (n + frozen), f"weights {b}(P + F)", "torch.nn.Module.parameters")
    if setup.precision != "fp32":
        source = f"{_UNFUSED}: fp32_groups, made at the start"
        yield Part("optimizer", 4 * n, "fp32 master weights 4P", source)
    yield _moments(setup, n, "P", place="device")


def _partitioned(setup: Setup, layout: Layout) -> Iterator[Part]:
    flat, share, b = layout.flat_elements, layout.partition_elements, setup.weight_bytes
    yield Part(
        "params",
        b * (flat + layout.n_frozen),
        f"weights {b}(P + F), flat and padded to 2N",
        f"{_STAGE_12}:505 bit16_groups_flat",
    )
    place, at = ("host", on_host) if setup.offload_optimizer != "none" else ("device", _as_is)
    one = master_bytes(setup)
    yield Part(
        "optimizer",
        at(one * share, setup),
        f"master weights {one}P/N, an extra copy even in fp32",
        f"{_STAGE_12}:560 single_partition_of_fp32_groups",
        "host" if place == "host" else "device",
    )
    yield _moments(setup, share, "P/N", place=place)
    if keeps_whole_fp32_gradients(setup):
        what = "whole fp32 gradients 4P, never shared"
        yield Part("gradients", 4 * flat, what, f"{_BF16}:191 fp32_groups_gradients_flat")
    if place == "host":
        yield from _partitioned_offload(setup, layout)


def _partitioned_offload(setup: Setup, layout: Layout) -> Iterator[Part]:
    share, b, one = layout.partition_elements, setup.weight_bytes, master_bytes(setup)
    largest = layout.largest_elements
    yield Part(
        "gradients",
        on_host(one * share, setup),
        f"gradients for the update {one}P/N",
        f"{_STAGE_12}:937 initialize_optimizer_states",
        "host",
    )
    yield Part(
        "buffers",
        on_host(b * share, setup),
        f"weights on their way back {b}P/N",
        f"{_STAGE_12}:563 param_buffer_of_bit16_for_cpu_offload_groups",
        "host",
    )
    source = f"{_STAGE_12}:683 temp_grad_buffer"
    yield Part("buffers", on_host(b * largest, setup), f"staged gradient {b}L", source, "host")
    yield Part("buffers", b * largest, f"staged gradient {b}L", source)
    if setup.stage == 2 and setup.accumulation_steps > 1 and not adds_up_in_fp32(setup):
        n_bytes = sum(on_host(b * layout.trainable[s.parameter], setup) for s in layout.owned)
        what = f"gradients added up, {b} x parameters that reach into the rank's partition"
        source = f"{_STAGE_12}:1791 accumulated_grads_in_cpu"
        yield Part("gradients", n_bytes, what, source, "host")


def _sharded(setup: Setup, layout: Layout) -> Iterator[Part]:
    b, share = setup.weight_bytes, sum(layout.shards)
    yield from _weight_shards(setup, layout)
    yield from _sharded_optimizer(setup, layout)
    a = BYTES_OF[setup.grad_accum_dtype]
    offloaded = setup.offload_optimizer != "none"
    yield Part(
        "gradients",
        on_host(a * share, setup) if offloaded else a * share,
        f"the rank's share of the gradients {a}P/N, kept for ever",
        f"{_STAGE_3}:791 grad_partitions_flat_buffer",
        "host" if offloaded else "device",
    )
    c = BYTES_OF[setup.communication_dtype]
    what = f"reduce bucket {c}B, kept for ever"
    yield Part("buffers", c * setup.reduce_bucket_elements, what, f"{_STAGE_3}:782 ipg_buckets")
    yield Part(
        "gathered",
        b * sum(persistent_sizes(setup, layout)),
        f"parameters under the persistence threshold, {b} x their full size",
        "deepspeed 0.19.8, runtime/zero/stage3.py, `_post_step`",
    )


def _weight_shards(setup: Setup, layout: Layout) -> Iterator[Part]:
    b = setup.weight_bytes
    what, source = f"shards of the weights {b}(P + F)/N", f"{_STAGE_3}: lp_param_buffer"
    if setup.offload_params == "none":
        n_bytes = b * (sum(layout.shards) + layout.frozen_shard_elements)
        yield Part("params", n_bytes, what, source)
        return
    source = f"{_STAGE_3}: param_groups_fp16_flat_cpu_memory"
    if setup.offload_params == "cpu":
        n_bytes = on_host(b * sum(layout.shards), setup) + b * layout.frozen_shard_elements
        yield Part("params", n_bytes, what, source, "host")
        return
    kept = sum(n for n in layout.shards if not _file_bytes(b * n))
    yield Part("params", b * kept, "shards too small for a file", source, "host")
    n_bytes = setup.param_buffer_count * _aligned_bytes(b * setup.param_buffer_elements)
    what = f"{setup.param_buffer_count} swap buffers"
    yield Part("buffers", n_bytes, what, f"{_SWAP}/partitioned_param_swapper.py:123", "host")
    groups = layout.sub_groups(setup.sub_group_elements)
    whole = sum(_aligned_bytes(b * n) for n in layout.trainable)
    largest = whole if len(groups) == 1 else b * layout.n_ranks * max(groups, default=0)
    what = f"the largest sub-group on its way out, {b} x its full size"
    source = f"{_STAGE_3}, `reserve_partitioned_swap_space` gets full sizes"
    yield Part("buffers", largest, what, source, "host")


def _sharded_optimizer(setup: Setup, layout: Layout) -> Iterator[Part]:
    one, source = master_bytes(setup), f"{_STAGE_3}:1172 fp32_partitioned_groups_flat"
    groups = layout.sub_groups(setup.sub_group_elements)
    if setup.offload_optimizer == "none":
        share = sum(groups)
        what = f"master weights {one}P/N, an extra copy even in fp32"
        yield Part("optimizer", one * share, what, source)
        yield _moments(setup, share, "P/N", place="device")
        return
    nvme = setup.offload_optimizer == "nvme"
    kept = [n for n in groups if not (nvme and _file_bytes(n * one))]
    what = f"master weights {one}P/N"
    yield Part("optimizer", one * sum(kept), what, source, "host")
    yield _moments(setup, sum(kept), "P/N", place="host")
    n_bytes = sum(on_host(one * n, setup) for n in kept)
    what = f"gradients for the update {one}P/N"
    yield Part("gradients", n_bytes, what, f"{_STAGE_3}: initialize_optimizer_states", "host")
    if nvme and len(kept) < len(groups):
        n_bytes = setup.swap_buffer_count * _aligned_bytes(max(groups) * one)
        what = f"{setup.swap_buffer_count} swap buffers of the largest sub-group"
        yield Part("buffers", n_bytes, what, f"{_SWAP}/optimizer_utils.py:186", "host")


def _moments(setup: Setup, n_elements: int, share: str, *, place: str) -> Part:
    each = BYTES_OF[setup.state_dtype] if setup.precision != "fp32" else 4
    n_bytes = each * setup.n_moments * n_elements
    what = f"{setup.optimizer} state {each} x {setup.n_moments} x {share}"
    source = "torch.optim, or DeepSpeed's ops/adam: state"
    return Part("optimizer", n_bytes, what, source, "host" if place == "host" else "device")


def _file_bytes(n_bytes: int) -> int:
    """Size of the swap file of a tensor, 0 if it gets none."""
    return _aligned_bytes(n_bytes) if n_bytes >= LEAST_SWAPPED_BYTES else 0


def _aligned_bytes(n_bytes: int) -> int:
    return math.ceil(n_bytes / _SWAP_ALIGNED_BYTES) * _SWAP_ALIGNED_BYTES


def _as_is(n_bytes: int, _setup: Setup) -> int:
    return n_bytes
