"""What gradients take in backward until they are reduced, stages 0 to 2, arrival by arrival.

Pure arithmetic. Each function gives moments, lists of what is held beside what rests; the fullest
is the phase's peak. Looked at is the last micro-batch of a step, which holds most.
"""

from collections.abc import Iterable, Iterator, Sequence

from orchestrator.forecast.activations import Arrival
from orchestrator.forecast.layout import Layout
from orchestrator.forecast.setup import BYTES_OF, Setup
from orchestrator.forecast.states import adds_up_in_fp32, keeps_whole_fp32_gradients
from orchestrator.forecast.terms import Part

_ENGINE = "deepspeed 0.19.8, runtime/engine.py"
_STAGE_12 = "deepspeed 0.19.8, runtime/zero/stage_1_and_2.py"
_BF16 = "deepspeed 0.19.8, runtime/bf16_optimizer.py"
STAGE_0_BUCKET_ELEMENTS = 500_000_000
"""Elements that stage 0 reduces at once (runtime/engine.py, MEMORY_OPT_ALLREDUCE_SIZE)."""

Moments = Iterator[list[Part]]


def carried_parts(setup: Setup, layout: Layout) -> list[Part]:
    """What earlier micro-batches of a step leave for later ones, stages 0 to 2."""
    if setup.accumulation_steps == 1:
        return []
    b, n = setup.weight_bytes, layout.n_trainable
    if setup.engine == "torch" or setup.stage == 0 or keeps_whole_fp32_gradients(setup):
        return [Part("gradients", b * n, f"gradients added up {b}P", "torch.autograd")]
    if setup.stage == 1:
        a = _staged_bytes(setup)
        return [
            Part("gradients", a * n, f"gradients added up {a}P", "torch.autograd"),
            *bucket_parts(setup),
        ]
    if setup.offload_optimizer != "none" and not adds_up_in_fp32(setup):
        return []
    return [_owned(setup, layout)]


def backward_moments(
    setup: Setup, layout: Layout, arrivals: Sequence[Arrival], *, batch: Part
) -> Moments:
    """What is held beside what rests, at every point of backward that may be its peak.

    Args:
        setup: a strategy of stage 0 to 2.
        layout: the model's elements.
        arrivals: the gradients in their order.
        batch: what a micro-batch's data takes, which stays to the end.
    """
    if setup.engine == "torch" or setup.stage == 0:
        yield from _whole(setup, layout, arrivals, carried=setup.accumulation_steps > 1)
        gradients = _gradients(setup.weight_bytes * layout.n_trainable)
        for n_bytes in _flat_copies(setup, layout):
            copy = Part(
                "buffers", n_bytes, f"flat copy of {setup.weight_bytes}P", f"{_ENGINE}:3796"
            )
            yield [batch, gradients, copy]
    elif keeps_whole_fp32_gradients(setup):
        yield from _whole(setup, layout, arrivals, carried=setup.accumulation_steps > 1)
        gradients = _gradients(setup.weight_bytes * layout.n_trainable)
        copied = Part("temporaries", 4 * layout.largest_elements, "4L", f"{_BF16}, update_hp_grads")
        yield [batch, gradients, copied]
        c = BYTES_OF[setup.communication_dtype]
        if c != 4 and layout.n_ranks > 1:
            n_bytes = c * layout.flat_elements
            what = f"all gradients as they are sent {c}P"
            yield [batch, gradients, Part("buffers", n_bytes, what, f"{_ENGINE}:3799")]
    elif setup.stage == 1:
        yield from _stage_1(setup, layout, arrivals, batch=batch)
    else:
        yield from _stage_2(setup, layout, arrivals, batch=batch)


def _whole(setup: Setup, layout: Layout, arrivals: Iterable[Arrival], *, carried: bool) -> Moments:
    """Gradients that pile up; `carried` means that all of them are there from the beginning."""
    a = _staged_bytes(setup)
    arrived = a * layout.n_trainable if carried else 0
    for arrival in arrivals:
        yield [*arrival.until.parts(), _gradients(arrived)]
        n_elements = layout.trainable[arrival.parameter]
        if not carried:
            arrived += a * n_elements
        if a != setup.weight_bytes:
            # The gradient is there in both types until it is added.
            yield [
                *arrival.then.parts(),
                _gradients(arrived + (a + setup.weight_bytes) * n_elements),
            ]


def _flat_copies(setup: Setup, layout: Layout) -> Iterator[int]:
    """Bytes of stage 0's flat copies; a bucket of one gradient is reduced where it is."""
    if layout.n_ranks == 1 and setup.engine == "torch":
        return
    most = STAGE_0_BUCKET_ELEMENTS if setup.engine == "deepspeed" else layout.n_trainable
    bucket: list[int] = []
    for n_elements in layout.trainable:
        bucket.append(n_elements)
        if sum(bucket) > most:
            yield _flat_copy_bytes(bucket, setup.weight_bytes, setup)
            bucket = []
    yield _flat_copy_bytes(bucket, setup.weight_bytes, setup)


def _flat_copy_bytes(pieces: Sequence[int], bytes_each: int, setup: Setup) -> int:
    """Bytes that reducing some pieces together takes."""
    sent = BYTES_OF[setup.communication_dtype]
    n_elements = sum(pieces)
    cast = sent * n_elements if sent != bytes_each else 0
    return cast + (bytes_each * n_elements if len(pieces) > 1 else 0)


class _Bucket:
    """Stage 1 or 2's reduce bucket and what is reduced out of it."""

    def __init__(self, setup: Setup, layout: Layout) -> None:
        self._setup = setup
        self._layout = layout
        self._bytes_each = _staged_bytes(setup)
        self._mine = {piece.parameter: piece.n_elements for piece in layout.owned}
        self._owned = _owned(setup, layout)
        self._most = setup.reduce_bucket_elements
        self._waiting: list[int] = []
        self._elements = 0
        self.loose_bytes = 0
        """Gradients that lie outside the bucket: not yet in it, or too large for it."""
        self.owned_parts: list[Part] = []
        self._fixed = bucket_parts(setup)

    def put(self, parameter: int) -> Moments:
        """A gradient comes; first the bucket is reduced if there is no room."""
        n_elements = self._layout.trainable[parameter]
        if self._elements + n_elements > self._most:
            yield from self.reduce()
        self._elements += n_elements
        self._waiting.append(parameter)
        if n_elements <= self._most:
            yield self.held()
            self.loose_bytes -= self._bytes_each * n_elements
        elif self._setup.offload_optimizer != "none":
            clone = Part("temporaries", self._bytes_each * n_elements, "clone", f"{_STAGE_12}:1449")
            yield [*self.held(), clone]

    def reduce(self) -> Moments:
        """Reduce what waits."""
        if not self._waiting:
            return
        if adds_up_in_fp32(self._setup) and self._mine.keys() & set(self._waiting):
            self.owned_parts = [self._owned]
        for pieces in self._sent_together():
            n_bytes = _flat_copy_bytes(pieces, self._bytes_each, self._setup)
            what = f"flat copy of what is reduced, at most {self._bytes_each}B"
            yield [*self.held(), Part("buffers", n_bytes, what, f"{_STAGE_12}:2367")]
        yield from self._keep_owned()
        for parameter in self._waiting:
            gone = self._setup.stage == 2 or parameter in self._mine
            if self._layout.trainable[parameter] > self._most and gone:
                self.loose_bytes -= self._bytes_each * self._layout.trainable[parameter]
        self._waiting, self._elements = [], 0

    def held(self) -> list[Part]:
        """What is held now."""
        return [_gradients(self.loose_bytes), *self._fixed, *self.owned_parts]

    def _keep_owned(self) -> Moments:
        owned = [p for p in self._waiting if p in self._mine]
        if not owned:
            return
        if self._setup.offload_optimizer == "none":
            if not adds_up_in_fp32(self._setup):
                self.owned_parts = [self._owned]
            yield self.held()
            return
        n_elements = max(self._mine[parameter] for parameter in owned)
        norm = Part("temporaries", 8 * n_elements, "a gradient in fp64", f"{_STAGE_12}, norm")
        yield [*self.held(), norm]

    def _sent_together(self) -> Iterator[list[int]]:
        """Elements of the pieces that one collective sends."""
        pieces: list[int] = []
        before: int | None = None
        # Pieces of one owner beside each other are one, but for those that it adds up in fp32.
        for piece in self._layout.slices(self._waiting):
            single = adds_up_in_fp32(self._setup) and piece.owner == self._layout.rank
            if piece.owner == before and not single and pieces:
                pieces[-1] += piece.n_elements
                continue
            if sum(pieces) > self._most:
                yield pieces
                pieces = []
            pieces.append(piece.n_elements)
            before = None if single else piece.owner
        yield pieces


def _stage_1(setup: Setup, layout: Layout, arrivals: Sequence[Arrival], *, batch: Part) -> Moments:
    a = _staged_bytes(setup)
    carried = setup.accumulation_steps > 1
    buckets = bucket_parts(setup)
    for number, moment in enumerate(_whole(setup, layout, arrivals, carried=carried)):
        # The bucket is made when the step's first gradient arrives.
        yield [*moment, *buckets] if carried or number else moment
    bucket = _Bucket(setup, layout)
    bucket.loose_bytes = a * layout.n_trainable
    for parameter in range(len(layout.trainable)):
        yield from ([batch, *moment] for moment in bucket.put(parameter))
    yield from ([batch, *moment] for moment in bucket.reduce())


def _stage_2(setup: Setup, layout: Layout, arrivals: Sequence[Arrival], *, batch: Part) -> Moments:
    b = setup.weight_bytes
    carried = carried_parts(setup, layout)
    if adds_up_in_fp32(setup):
        carried = []
    bucket = _Bucket(setup, layout)
    if adds_up_in_fp32(setup) and setup.accumulation_steps > 1:
        bucket.owned_parts = [_owned(setup, layout)]
    for number, arrival in enumerate(arrivals):
        before = bucket.held() if number else [*bucket.owned_parts]
        yield [*arrival.until.parts(), *carried, *before]
        bucket.loose_bytes += b * layout.trainable[arrival.parameter]
        then = arrival.then.parts()
        yield from ([*then, *carried, *moment] for moment in bucket.put(arrival.parameter))
    yield from ([batch, *carried, *moment] for moment in bucket.reduce())


def _gradients(n_bytes: int) -> Part:
    return Part("gradients", n_bytes, "gradients that have arrived", "torch.autograd")


def _owned(setup: Setup, layout: Layout) -> Part:
    if adds_up_in_fp32(setup):
        n_bytes, what = 4 * layout.partition_elements, "owned gradients in fp32 4P/N"
        return Part("gradients", n_bytes, what, f"{_STAGE_12}:1259")
    b = setup.weight_bytes
    what = f"owned gradients, {b} x parameters that reach into the rank's partition"
    return Part("gradients", b * layout.touched_elements, what, f"{_STAGE_12}:2192")


def _staged_bytes(setup: Setup) -> int:
    """Bytes of an element in stage 1 or 2's bucket."""
    accumulated = setup.stage == 1 and adds_up_in_fp32(setup)
    return 4 if accumulated and not keeps_whole_fp32_gradients(setup) else setup.weight_bytes


def bucket_parts(setup: Setup) -> list[Part]:
    """The buffers through which stages 1 and 2 reduce gradients."""
    n_buckets = 2 if setup.overlap_comm else 1
    n_bytes = n_buckets * _staged_bytes(setup) * setup.reduce_bucket_elements
    what = f"{n_buckets} reduce bucket(s) {_staged_bytes(setup)}B"
    return [Part("buffers", n_bytes, what, f"{_STAGE_12}:3256 setup_buckets")]
