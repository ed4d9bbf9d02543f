"""Stage 3's forward and backward: activations, gathered weights and gradients, moment by moment.

Pure arithmetic. Gives moments, lists of what is held beside what rests (the weights that rest
gathered count here); the fullest of a phase is its peak.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from orchestrator.forecast.activations import Held, held_of, peak_of, trainable_numbers
from orchestrator.forecast.gathering import Gathering, Most
from orchestrator.forecast.layout import Layout
from orchestrator.forecast.profile import ActivationTrace, ModelProfile, Moment
from orchestrator.forecast.setup import BYTES_OF, Setup
from orchestrator.forecast.terms import Part, n_bytes_of
from orchestrator.forecast.transients import unswapped_bytes, unswapped_part

_STAGE_3 = "deepspeed 0.19.8, runtime/zero/stage3.py"
_GATHER = "deepspeed 0.19.8, runtime/zero/partitioned_param_coordinator.py"
_GLOO = "torch 2.13.0, ProcessGroupGloo.cpp"
_COALESCED = "deepspeed 0.19.8, runtime/comm/coalesced_collectives.py:122"

Phased = Iterator[tuple[str, list[Part]]]
"""Moments, each with its phase."""


def sharded_moments(
    setup: Setup, layout: Layout, *, profile: ModelProfile, trace: ActivationTrace
) -> Phased:
    """Walk through a micro-batch; of moments between gradients only those fuller than any before.

    Args:
        setup: a strategy of stage 3.
        layout: the model's elements.
        profile: the model.
        trace: a micro-batch of its.
    """
    moments = _by_own_linear(trace.moments, profile)
    walk = walked(profile, gathering_of(setup))
    bucket = _Bucket(setup, layout)
    number = trainable_numbers(profile)
    most = {"forward": -1, "backward": -1}
    in_bucket = n_bytes_of(bucket.held())
    for moment, gathered in zip(moments, walk.steps, strict=True):
        phase = "backward" if moment.backward else "forward"
        arriving = moment.peak_bytes + gathered.before_bytes + in_bucket
        if arriving > most[phase]:
            most[phase] = arriving
            before = _gathered(gathered.before_bytes)
            yield phase, [*peak_of(moment).parts(), before, *bucket.held()]
        gathered_bytes, copied_bytes = gathered.most
        there = moment.held_bytes + gathered_bytes + copied_bytes + in_bucket
        if there > most[phase]:
            most[phase] = there
            copied = Part("buffers", copied_bytes, "gloo's copy of what it receives", _GLOO)
            beside = [*held_of(moment).parts(), *bucket.held()]
            yield phase, [*beside, _gathered(gathered_bytes), copied]
        if moment.kind == "gradient":
            beside = [*held_of(moment).parts(), _gathered(gathered.after_bytes)]
            for held in bucket.put(number[moment.subject]):
                yield phase, [*beside, *held]
            in_bucket = n_bytes_of(bucket.held())
    beside = [
        *Held(trace.batch_bytes, 0).parts(),
        _gathered(walk.steps[-1].after_bytes if walk.steps else 0),
    ]
    for held in bucket.reduce():
        yield "backward", [*beside, *held]


def guessed_moments(setup: Setup, layout: Layout) -> Phased:
    """Without a trace: everything within reuse distance is whole at once, and gradients beside it.

    In forward DeepSpeed gives back what does not recur within that distance; so does backward. How
    much of it lies in a flat buffer as well depends on the modules, and is left out.
    """
    within = setup.max_reuse_distance_elements + setup.prefetch_bucket_elements
    n_elements = min(layout.n_trainable, within) if layout.n_ranks > 1 else 0
    gathered = _gathered(setup.weight_bytes * n_elements)
    yield "forward", [gathered]
    bucket = _Bucket(setup, layout)
    for parameter in reversed(range(len(layout.trainable))):
        for held in bucket.put(parameter):
            yield "backward", [gathered, *held]
    for held in bucket.reduce():
        yield "backward", [gathered, *held]


class GatheringStep(NamedTuple):
    """What is gathered around a moment."""

    before_bytes: int
    most: Most
    after_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A micro-batch, as far as gathering goes: the same whatever its size."""

    steps: tuple[GatheringStep, ...]
    forward_calls: tuple[int, ...]
    """Bytes of each all-gather, as it comes out."""
    backward_calls: tuple[int, ...]


def gathering_of(setup: Setup) -> Setup:
    """The part of a strategy that gathering depends on; what it does not is set to anything."""
    return replace(
        setup,
        micro_batch_size=1,
        accumulation_steps=1,
        offload_optimizer="none",
        offload_params="none",
        pinned=False,
        fused_optimizer=False,
    )


@lru_cache(maxsize=64)
def walked(profile: ModelProfile, setup: Setup) -> Walk:
    """Gather and give back through a micro-batch.

    Args:
        profile: the model.
        setup: see `gathering_of`.
    """
    moments = _by_own_linear(profile.traces[0].moments, profile)
    gathering = Gathering(setup, profile, moments)
    steps, n_forward = [], 0
    for moment in moments:
        before = gathering.gathered_bytes
        steps.append(GatheringStep(before, gathering.at(moment), gathering.gathered_bytes))
        n_forward = n_forward if moment.backward else len(gathering.collectives)
    return Walk(
        steps=tuple(steps),
        forward_calls=tuple(gathering.collectives[:n_forward]),
        backward_calls=tuple(gathering.collectives[n_forward:]),
    )


def _by_own_linear(moments: Sequence[Moment], profile: ModelProfile) -> list[Moment]:
    """Let the weight's gradient of a linear layer come before its bias's.

    Source:
        deepspeed 0.19.8, runtime/zero/linear.py, `LinearFunctionForZeroStage3`, which stands in for
        torch's, returns both at once.
    """
    weight_of = {profile.modules[m][1]: profile.modules[m][0] for m in profile.linears}
    swapped = list(moments)
    for index, (first, second) in enumerate(pairwise(moments)):
        both = first.kind == second.kind == "gradient"
        if both and weight_of.get(first.subject) == second.subject:
            most = max(first, second, key=lambda moment: moment.peak_bytes)
            swapped[index] = replace(most, subject=second.subject)
            swapped[index + 1] = replace(second, subject=first.subject)
    return swapped


class _Bucket:
    """Stage 3's reduce bucket, whose own memory rests, and what lies beside it."""

    def __init__(self, setup: Setup, layout: Layout) -> None:
        self._setup = setup
        self._layout = layout
        self._shards = layout.shards
        self._waiting: list[int] = []
        self._elements = 0
        self._outside: dict[int, int] = {}
        """Gradient -> bytes that it takes outside the bucket."""
        self._unswapped_bytes = 0

    def held(self) -> list[Part]:
        """Gradients outside the bucket."""
        n_bytes = sum(self._outside.values())
        return [
            Part("gradients", n_bytes, "gradients outside the bucket", "torch.autograd"),
            unswapped_part(self._unswapped_bytes),
        ]

    def put(self, parameter: int) -> Iterator[list[Part]]:
        """A gradient comes; first the bucket is reduced if there is no room."""
        n_elements = self._layout.trainable[parameter]
        most = self._setup.reduce_bucket_elements
        on_its_way = self._setup.weight_bytes * n_elements
        if self._elements + n_elements > most and self._elements > 0:
            beside = Part("gradients", on_its_way, "the gradient that arrives", "torch.autograd")
            yield from ([*moment, beside] for moment in self.reduce())
        self._outside[parameter] = on_its_way
        yield self.held()
        if self._elements + n_elements <= most:
            del self._outside[parameter]
        self._elements += n_elements
        self._waiting.append(parameter)

    def reduce(self) -> Iterator[list[Part]]:
        """Reduce-scatter what waits."""
        if not self._waiting:
            return
        held = [*self.held(), *self._sent_parts()]
        if self._setup.device == "cpu":
            sent = self._sent_bytes()
            yield [*held, Part("buffers", sent, "gloo's copy of what is sent", _GLOO)]
        yield [*held, *self._received_parts()]
        for parameter in self._waiting:
            self._outside.pop(parameter, None)
        self._unswapped_bytes += unswapped_bytes(
            self._setup, [self._shards[p] for p in self._waiting]
        )
        self._waiting, self._elements = [], 0

    def _sent_bytes(self) -> int:
        each = BYTES_OF[self._setup.communication_dtype]
        shards = sum(self._shards[p] for p in self._waiting)
        return each * self._layout.n_ranks * shards

    def _sent_parts(self) -> list[Part]:
        """Copies of the gradients in the form that is sent."""
        setup, sizes = self._setup, [self._layout.trainable[p] for p in self._waiting]
        each = BYTES_OF[setup.communication_dtype]
        cast = each * sum(sizes) if each != setup.weight_bytes else 0
        # A single gradient that needs no padding is sent from where it lies.
        in_place = len(sizes) == 1 and sizes[0] % self._layout.n_ranks == 0
        parts = [Part("buffers", cast, "gradients as they are sent", f"{_STAGE_3}:1540")]
        if not in_place:
            what = f"gradients sorted by rank, at most {each}B"
            parts.append(Part("buffers", self._sent_bytes(), what, _COALESCED))
        return parts

    def _received_parts(self) -> list[Part]:
        """Copies of the rank's shares before they are in their place."""
        setup, shards = self._setup, [self._shards[p] for p in self._waiting]
        a = BYTES_OF[setup.grad_accum_dtype]
        parts = []
        if setup.grad_accum_dtype != setup.communication_dtype:
            what = "received shares as they are added up"
            parts.append(Part("temporaries", a * sum(shards), what, f"{_STAGE_3}:1563"))
        if setup.offload_optimizer != "none":
            source = f"{_STAGE_3}, `_offload_grad_partition_at_boundary`"
            norm = Part("temporaries", 8 * max(shards), "a share in fp64 for its norm", source)
            parts.append(norm)
        return parts


def _gathered(n_bytes: int) -> Part:
    return Part("gathered", n_bytes, "gathered weights, in flight and whole", _GATHER)
