"""What updating the weights takes for a while, beside what rests.

Pure arithmetic. Each function gives moments, lists of what is held at one point; the fullest is
the phase's peak. P = trainable parameters, N = ranks, b = bytes of a weight, S = elements of what
is updated at once, L = elements of the largest parameter.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from orchestrator.forecast.layout import Layout
from orchestrator.forecast.reduction import bucket_parts
from orchestrator.forecast.setup import BYTES_OF, OptimizerName, Setup
from orchestrator.forecast.states import (
    LEAST_SWAPPED_BYTES,
    adds_up_in_fp32,
    keeps_whole_fp32_gradients,
    master_bytes,
    persistent_sizes,
)
from orchestrator.forecast.terms import Part

_STAGE_12 = "deepspeed 0.19.8, runtime/zero/stage_1_and_2.py"
_STAGE_3 = "deepspeed 0.19.8, runtime/zero/stage3.py"
_UNFUSED = "deepspeed 0.19.8, runtime/fp16/unfused_optimizer.py"
_NORM_BYTES = 8
"""DeepSpeed takes gradient norms in fp64 (runtime/zero/utils.py, `get_norm_dtype`)."""

Moments = Iterator[list[Part]]


class _Copies(NamedTuple):
    """Tensors of a parameter's size that an update makes: of its gradient, and of its state."""

    of_gradient: int
    in_loop: int
    """By the loop over parameters, torch's way on a CPU."""
    at_once: int
    """By the kernels over all parameters, torch's way on a GPU (`foreach`)."""


# With weight decay, as jobs have unless they say otherwise: an L2 term copies the gradient.
# Source: torch 2.13.0, torch/optim/: adam.py, sgd.py, rmsprop.py, _adafactor.py.
_UPDATE_COPIES: dict[OptimizerName, _Copies] = {
    "adamw": _Copies(of_gradient=0, in_loop=2, at_once=1),
    "adam": _Copies(of_gradient=1, in_loop=2, at_once=1),
    "sgd": _Copies(of_gradient=1, in_loop=0, at_once=0),
    "momentum": _Copies(of_gradient=1, in_loop=0, at_once=0),
    "rmsprop": _Copies(of_gradient=1, in_loop=1, at_once=1),
    "adafactor": _Copies(of_gradient=0, in_loop=2, at_once=2),
    "lion": _Copies(of_gradient=0, in_loop=0, at_once=0),
}


def update_part(setup: Setup, sizes: Sequence[int]) -> Part:
    """What the optimizer takes for itself while it updates tensors of these sizes.

    Args:
        setup: the strategy.
        sizes: elements of each tensor, in order; fp32, or bf16 by `bf16_optimizer_states`.

    Source:
        torch 2.13.0, torch/optim/adam.py, `_single_tensor_adam` and `_multi_tensor_adam`: the loop
        still holds the last parameter's denominator when it makes the next one.
    """
    host = setup.offload_optimizer != "none"
    source = "torch 2.13.0, torch/optim"
    place: tuple[str, ...] = ("host",) if host else ()
    if setup.fused_optimizer or not sizes:
        return Part("temporaries", 0, "the update makes no temporaries", source)
    copies = _UPDATE_COPIES[setup.optimizer]
    if setup.device == "cuda" and not host:
        n_elements = (copies.of_gradient + copies.at_once) * sum(sizes)
        what = f"{copies.of_gradient + copies.at_once} temporaries of all that is updated"
    else:
        each = copies.of_gradient + copies.in_loop
        last = 1 if copies.in_loop else 0
        n_elements = max(last * before + each * n for before, n in pairwise([0, *sizes]))
        what = f"{each} temporaries of the largest tensor that is updated"
    n_bytes = master_bytes(setup) * n_elements
    return Part("temporaries", n_bytes, what, source, "host" if place else "device")


def step_moments(setup: Setup, layout: Layout) -> Moments:
    """What is held on the device beside what rests, while the weights are updated.

    At stage 3 the gathered parameters, which are given back first, count with what rests.
    """
    if setup.offload_optimizer != "none":
        # The update runs on the host.
        yield [unswapped_part(unswapped_bytes(setup, layout.shards))]
    elif setup.engine == "torch" or setup.stage == 0:
        yield from _step_unsharded(setup, layout)
    elif keeps_whole_fp32_gradients(setup):
        b = setup.weight_bytes
        gradients = _gradients(b * layout.n_trainable, f"gradients {b}P", _STAGE_12)
        yield [gradients, update_part(setup, [layout.partition_elements])]
    elif setup.stage < 3:
        yield from _step_partitioned(setup, layout)
    else:
        yield from _step_sharded(setup, layout)
    if setup.engine == "deepspeed" and setup.stage > 0 and setup.n_ranks > 1:
        yield _weights_sent_around(setup, layout)


def unswapped_bytes(setup: Setup, shards: Sequence[int]) -> int:
    """Bytes of fp32 gradients that wait for the update because they are too small for a file.

    Source:
        deepspeed 0.19.8, runtime/zero/stage3.py:1425 and runtime/swap_tensor/optimizer_utils.py,
        `unswapped_gradients`; gradients that are added up in fp32 are not copied.
    """
    if setup.offload_optimizer != "nvme" or setup.grad_accum_dtype == "fp32":
        return 0
    return sum(4 * n for n in shards if 4 * n < LEAST_SWAPPED_BYTES)


def unswapped_part(n_bytes: int) -> Part:
    """The same as a piece of memory."""
    what = "fp32 gradients too small for a file"
    return Part("temporaries", n_bytes, what, f"{_STAGE_3}:1425")


def _weights_sent_around(setup: Setup, layout: Layout) -> list[Part]:
    """After the update: at stages 1 and 2 all weights, at 3 those that stay gathered."""
    b, copied = setup.weight_bytes, layout.flat_elements
    moment = []
    if setup.stage == 3:
        kept = persistent_sizes(setup, layout)
        moment = [Part("gathered", b * sum(kept), "parameters that stay gathered", _STAGE_3)]
        copied = max(kept, default=0)
    if keeps_whole_fp32_gradients(setup):
        moment.append(_gradients(b * layout.n_trainable, f"gradients {b}P", _STAGE_12))
    if setup.stage == 1 and setup.offload_optimizer != "none" and adds_up_in_fp32(setup):
        # Gradients of other ranks' parameters still lie in the bucket.
        moment += bucket_parts(setup)
    if setup.device == "cpu":
        source = "torch 2.13.0, ProcessGroupGloo.cpp, `allgather`"
        moment.append(Part("buffers", b * copied, "gloo's copy of what it receives", source))
    return moment


def _step_unsharded(setup: Setup, layout: Layout) -> Moments:
    b, n = setup.weight_bytes, layout.n_trainable
    moment = [_gradients(b * n, f"gradients {b}P", "torch.autograd")]
    if setup.precision != "fp32":
        moment.append(_gradients(4 * n, "their fp32 copy 4P", f"{_UNFUSED}, `step`"))
        if setup.fused_optimizer:
            source = "deepspeed 0.19.8, runtime/fp16/fused_optimizer.py:277"
            yield [*moment, _gradients(4 * n, "flat fp32 gradients 4P", source)]
    yield [*moment, update_part(setup, layout.trainable)]


def _step_partitioned(setup: Setup, layout: Layout) -> Moments:
    b, share, owned = setup.weight_bytes, layout.partition_elements, layout.owned
    largest = max((piece.n_elements for piece in owned), default=0)
    norm = Part(
        "temporaries", _NORM_BYTES * largest, "the largest owned gradient in fp64", _STAGE_12
    )
    update = update_part(setup, [share])
    if adds_up_in_fp32(setup):
        gradients = _gradients(4 * share, "gradients in fp32 4P/N", f"{_STAGE_12}:1259")
        yield [gradients, norm]
        yield [gradients, update]
        return
    averaged = _gradients(b * layout.touched_elements, "owned gradients", f"{_STAGE_12}:2192")
    yield [averaged, norm]
    padded = sum(piece.n_elements for piece in owned) < share
    # The flat form of one tensor is that tensor.
    flat = b * share if len(owned) + padded > 1 else 0
    moment = [averaged, _gradients(flat, f"their flat copy {b}P/N", f"{_STAGE_12}:3117")]
    if b != 4:
        yield [*moment, _gradients(4 * share, "their fp32 copy 4P/N", f"{_STAGE_12}:3118")]
    if flat or b != 4:
        yield moment
        yield [_gradients(4 * share, "gradients for the update 4P/N", _STAGE_12), update]
    else:
        yield [averaged, update]


def _step_sharded(setup: Setup, layout: Layout) -> Moments:
    a = BYTES_OF[setup.grad_accum_dtype]
    norm = _NORM_BYTES * max(layout.shards, default=0)
    yield [Part("temporaries", norm, "the largest shard of a gradient in fp64", _STAGE_3)]
    for n_elements in layout.sub_groups(setup.sub_group_elements):
        flat = _gradients(a * n_elements, f"flat gradients of a sub-group {a}S", f"{_STAGE_3}:2686")
        copy = _gradients(4 * n_elements, "gradients for the update 4S", f"{_STAGE_3}:2686")
        if a != 4:
            yield [flat, copy]
        yield [copy, update_part(setup, [n_elements])]


def _gradients(n_bytes: int, what: str, source: str) -> Part:
    return Part("gradients", n_bytes, what, source)
