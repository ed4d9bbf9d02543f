"""What building a model and an engine around it takes, in all, until the first step.

Pure arithmetic. Gives moments, lists of what the device holds at one point; the fullest is the
phase's peak. P = trainable parameters, F = frozen ones, N = ranks, b = bytes of a weight.
"""

from collections.abc import Iterator

from orchestrator.forecast.layout import Layout, shard_elements
from orchestrator.forecast.setup import BYTES_OF, Setup
from orchestrator.forecast.states import keeps_whole_fp32_gradients, master_bytes
from orchestrator.forecast.terms import Part
from orchestrator.forecast.transients import update_part

_STAGE_12 = "deepspeed 0.19.8, runtime/zero/stage_1_and_2.py"
_STAGE_3 = "deepspeed 0.19.8, runtime/zero/stage3.py"
_UNFUSED = "deepspeed 0.19.8, runtime/fp16/unfused_optimizer.py"

Moments = Iterator[list[Part]]


def init_moments(setup: Setup, layout: Layout, *, build_peak_bytes: int) -> Moments:
    """What is held on the device while model and engine are built, in all.

    Args:
        setup: the strategy.
        layout: the model's elements.
        build_peak_bytes: the most that building the model takes in fp32.
    """
    # A model is built on the CPU; there that is the device.
    if setup.device == "cpu":
        yield [_weights(build_peak_bytes, "the model as it is built, fp32", "torch.nn")]
    b, n = setup.weight_bytes, layout.n_trainable + layout.n_frozen
    if b != 4 and setup.device == "cpu":
        first = (4 + b) * (layout.trainable[0] if layout.trainable else 0)
        source = "deepspeed 0.19.8, runtime/engine.py:1768"
        yield [_weights(4 * n + first - 4 * (first // (4 + b)), "weights in both types", source)]
    if setup.engine == "torch" or setup.stage == 0:
        yield from _init_unsharded(setup, layout)
    elif setup.stage < 3:
        yield from _init_partitioned(setup, layout)
    else:
        yield from _init_sharded(setup, layout)


def _init_unsharded(setup: Setup, layout: Layout) -> Moments:
    b, n = setup.weight_bytes, layout.n_trainable
    weights = _weights(b * (n + layout.n_frozen), f"weights {b}(P + F)", "torch.nn")
    yield [weights]
    if b == 4:
        return
    source = f"{_UNFUSED}, `initialize_optimizer_states`"
    each = BYTES_OF[setup.state_dtype]
    state = (4 + each * setup.n_moments) * n
    yield [
        weights,
        Part("optimizer", state, "master weights and state", source),
        _gradients((b + 4) * n, f"gradients {b}P, and in fp32 4P, of nothing but zeros", source),
        update_part(setup, layout.trainable),
    ]


def _init_partitioned(setup: Setup, layout: Layout) -> Moments:
    b, one, share = setup.weight_bytes, master_bytes(setup), layout.partition_elements
    frozen = b * layout.n_frozen
    weights = _weights(b * layout.n_trainable + frozen, f"weights {b}(P + F)", "torch.nn")
    flat = _weights(b * layout.flat_elements, f"their flat copy {b}P", f"{_STAGE_12}:505")
    yield [weights, flat]
    kept = [flat, _weights(frozen, f"frozen weights {b}F", "torch.nn")]
    clone = Part("temporaries", b * share, f"the partition's clone {b}P/N", f"{_STAGE_12}:560")
    if setup.offload_optimizer != "none":
        # Straight to the host, unless host and device are the same memory.
        yield [*kept, clone] if b != one or setup.device == "cuda" else kept
        n_bytes = b * layout.largest_elements
        yield [*kept, Part("buffers", n_bytes, f"staged gradient {b}L", f"{_STAGE_12}:689")]
        return
    master = Part("optimizer", one * share, f"master weights {one}P/N", f"{_STAGE_12}:560")
    if b != one:
        yield [*kept, clone, master]
    if keeps_whole_fp32_gradients(setup):
        what = "whole fp32 gradients 4P"
        yield [*kept, master, _gradients(4 * layout.flat_elements, what, _STAGE_12)]
        return
    zeros = Part("temporaries", one * share, f"zeros {one}P/N", f"{_STAGE_12}:937")
    yield [*kept, master, zeros]


def _init_sharded(setup: Setup, layout: Layout) -> Moments:
    b, one, share = setup.weight_bytes, master_bytes(setup), sum(layout.shards)
    on_device = setup.offload_params == "none"
    sizes = (*layout.trainable, *layout.frozen)
    first = shard_elements(sizes[0], layout.n_ranks) if sizes and on_device else 0
    weights = _weights(b * sum(sizes), f"weights {b}(P + F)", "torch.nn")
    source = "deepspeed 0.19.8, runtime/zero/partition_parameters.py, `_partition_param`"
    yield [weights, _weights(b * first, "the first shard", source)]
    if setup.offload_params == "nvme" and setup.device == "cpu":
        n_bytes = b * setup.param_buffer_count * setup.param_buffer_elements
        what = "swap buffers before they are locked in memory"
        yield [weights, Part("temporaries", n_bytes, what, source)]
    n_bytes = b * (share + layout.frozen_shard_elements) if on_device else 0
    shards = _weights(n_bytes, f"shards {b}(P + F)/N", _STAGE_3)
    if on_device and setup.device == "cpu":
        what = f"their copy, which replaces them {b}P/N"
        yield [shards, _weights(b * share, what, "deepspeed 0.19.8, runtime/zero/utils.py:215")]
    kept = [shards]
    if setup.offload_optimizer == "none":
        master = Part("optimizer", one * share, f"master weights {one}P/N", f"{_STAGE_3}:1172")
        kept.append(master)
        if b != one:
            # The last one stays until all are made.
            last = one * (layout.sub_groups(setup.sub_group_elements) or (0,))[-1]
            yield [*kept, Part("temporaries", last, "converted weights", f"{_STAGE_3}:1170")]
        largest = one * max(layout.sub_groups(setup.sub_group_elements), default=0)
        yield [*kept, Part("temporaries", largest, "zeros", f"{_STAGE_3}:1319")]
        a = BYTES_OF[setup.grad_accum_dtype]
        kept.append(_gradients(a * share, f"share of the gradients {a}P/N", f"{_STAGE_3}:791"))
    c = BYTES_OF[setup.communication_dtype]
    n_bytes = c * setup.reduce_bucket_elements
    kept.append(Part("buffers", n_bytes, f"reduce bucket {c}B", f"{_STAGE_3}:782"))
    whole = layout.n_ranks * max(layout.shards, default=0)
    yield [*kept, Part("gathered", b * whole, f"the largest parameter {b}L", _STAGE_3)]


def _weights(n_bytes: int, what: str, source: str) -> Part:
    return Part("params", n_bytes, what, source)


def _gradients(n_bytes: int, what: str, source: str) -> Part:
    return Part("gradients", n_bytes, what, source)
