"""The ModelProfile: what a model needs by itself, whatever the strategy. Plain numbers.

Traced once with fake tensors (`worker/profile.py`), cached by content, and read by the closed form.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

MomentKind = Literal["enter", "leave", "enter_backward", "leave_backward", "gradient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterShape:
    """One parameter; tied ones are one."""

    name: str
    n_elements: int
    trainable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientArrival:
    """A stretch of backward that ends with a parameter's gradient."""

    parameter: int
    """Index into the profile's parameters."""
    held_bytes: int
    """The most that activations and backward's temporaries took since the arrival before: weights
    and gradients that have arrived not counted, the one on its way counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A point of forward or backward at which an engine acts: a module's edge, or a gradient.

    Bytes beside weights and gradients that have arrived; a gradient on its way counts.
    """

    kind: MomentKind
    """`enter_backward` comes before a module's backward, `leave_backward` after the gradients of
    its inputs; of a block that is recomputed, `enter` and `leave` come again inside backward."""
    subject: int
    """A module's number in the order of `model.modules()`; of a gradient, its parameter's."""
    backward: bool
    """Whether backward has begun."""
    held_bytes: int
    """At this point; with a gradient that arrives, what is held beside it."""
    held_temporary_bytes: int
    """The part of it that is no activation: what backward makes and gives back, and what an
    operation takes for itself while it runs."""
    peak_bytes: int
    """The most since the moment before, this point included."""
    peak_temporary_bytes: int
    """The part of that which is no activation."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivationTrace:
    """One micro-batch through the bare model, in bytes beside weights and gradients."""

    micro_batch_size: int
    batch_bytes: int
    forward_peak_bytes: int
    """The most during forward, the batch included."""
    forward_peak_temporary_bytes: int
    """The part of it that an operation takes for itself while it runs."""
    forward_end_bytes: int
    """What forward leaves for backward."""
    moments: tuple[Moment, ...]
    """In the order of forward and then of backward."""
    flops: int
    """Operations of forward and backward, recomputation not counted."""

    @property
    def arrivals(self) -> tuple[GradientArrival, ...]:
        """The gradients in the order of backward."""
        found: list[GradientArrival] = []
        most = 0
        for moment in self.moments:
            if moment.backward:
                most = max(most, moment.peak_bytes)
                if moment.kind == "gradient":
                    found.append(GradientArrival(parameter=moment.subject, held_bytes=most))
                    most = 0
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelProfile:
    """A model in one precision, with or without recomputation, on samples of one shape."""

    parameters: tuple[ParameterShape, ...]
    """In the order of `model.parameters()`."""
    modules: tuple[tuple[int, ...], ...]
    """Each module's own parameters, by number; in the order of `model.modules()`."""
    linears: tuple[int, ...]
    """Modules that are a `torch.nn.Linear` with a bias: of those DeepSpeed's stage 3 computes the
    gradients itself, and the weight's arrives before the bias's."""
    buffer_bytes: int
    """Registered buffers, such as BatchNorm's running means."""
    build_peak_bytes: int
    """The most that building the model took, in fp32: weights, buffers, and what is made and
    dropped meanwhile, such as a head's own weights before they are tied."""
    traces: tuple[ActivationTrace, ...]
    """By rising micro-batch; two or more."""

    @property
    def n_trainable(self) -> int:
        """Elements of all trainable parameters."""
        return sum(p.n_elements for p in self.parameters if p.trainable)

    @property
    def n_elements(self) -> int:
        """Elements of all parameters."""
        return sum(p.n_elements for p in self.parameters)

    def to_json(self) -> dict[str, Any]:
        """The profile as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ModelProfile":
        """Read it back."""
        return cls(
            parameters=tuple(ParameterShape(**p) for p in value["parameters"]),
            modules=tuple(tuple(numbers) for numbers in value["modules"]),
            linears=tuple(value["linears"]),
            buffer_bytes=value["buffer_bytes"],
            build_peak_bytes=value["build_peak_bytes"],
            traces=tuple(
                ActivationTrace(
                    **{**trace, "moments": tuple(Moment(**m) for m in trace["moments"])}
                )
                for trace in value["traces"]
            ),
        )
