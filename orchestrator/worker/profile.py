"""What a bare model needs in one micro-batch, traced on fake tensors: the ModelProfile.

Takes no memory and computes nothing. The model is built and run in this process under torch's
FakeTensorMode on the CPU, whatever it will train on; attention then takes its flash kernel.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from orchestrator.errors import OrchestratorError
from orchestrator.forecast.profile import ActivationTrace, ModelProfile, ParameterShape
from orchestrator.forecast.setup import Precision
from orchestrator.models.checkpointing import enable_activation_checkpointing
from orchestrator.worker.engine import Batch
from orchestrator.worker.objective import parts_of
from orchestrator.worker.probes.live_bytes import LiveBytes
from orchestrator.worker.probes.module_edges import moments_of, watched_edges
from orchestrator.worker.shadow.scratch import Scratch

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LOSSES = {"mse": functional.mse_loss, "l1": functional.l1_loss}
# What a user's model may raise when it meets tensors without values.
_NOT_TRACEABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


class NotTraceableError(OrchestratorError):
    """The model cannot be run on tensors without values."""


def trace_model(
    build: Callable[[], torch.nn.Module],
    batch: Batch,
    *,
    micro_batch_sizes: Sequence[int],
    precision: Precision,
    activation_checkpointing: bool,
    loss: str,
    scratch: bool,
) -> ModelProfile:
    """Build a model and run it forward and backward for each size of a micro-batch.

    The random generators are as before.

    Args:
        build: makes the model in fp32; called more than once.
        batch: tensors with samples in the first axis; only their shapes and types count.
        micro_batch_sizes: two or more, rising; BatchNorm needs at least 2 samples.
        precision: type of weights and floating-point inputs; buffers stay as they are, as in
            DeepSpeed.
        activation_checkpointing: whether blocks are recomputed.
        loss: `training.loss`, for a model that returns none.
        scratch: whether to count what operations take for themselves on this CPU; each different
            one is then run once, on real tensors.

    Raises:
        NotTraceableError: the model looks at values, or cannot run on a batch of such shapes.
        ValueError: fewer than two sizes, or not rising.
    """
    sizes = list(micro_batch_sizes)
    if len(sizes) < 2 or sizes != sorted(set(sizes)):
        raise ValueError(f"two or more rising micro-batch sizes are needed, not {sizes}")
    try:
        with torch.random.fork_rng(devices=[]):
            n_flops = _flops(build, batch, n_samples=sizes[0], loss=loss)
            # A user's module may hold tensors that were made when it was imported.
            with FakeTensorMode(allow_non_fake_inputs=True):
                building = LiveBytes()
                with building:
                    model = build().train()
                for parameter in model.parameters():
                    parameter.data = parameter.data.to(_DTYPES[precision])
                if activation_checkpointing:
                    enable_activation_checkpointing(model)
            run = partial(
                _trace, model, batch, dtype=_DTYPES[precision], loss=loss, scratch=scratch
            )
            # Every operation that is counted is proportional to the samples.
            traces = tuple(
                run(n_samples=size, n_flops=n_flops * size // sizes[0]) for size in sizes
            )
    except _NOT_TRACEABLE as err:
        raise NotTraceableError(
            f"the model cannot be run on tensors without values: {type(err).__name__}: {err}"
        ) from err
    number = {id(parameter): index for index, parameter in enumerate(model.parameters())}
    return ModelProfile(
        parameters=tuple(
            ParameterShape(
                name=name, n_elements=parameter.numel(), trainable=parameter.requires_grad
            )
            for name, parameter in model.named_parameters()
        ),
        modules=tuple(
            tuple(number[id(parameter)] for parameter in module.parameters(recurse=False))
            for module in model.modules()
        ),
        linears=tuple(
            index
            for index, module in enumerate(model.modules())
            if isinstance(module, torch.nn.Linear) and module.bias is not None
        ),
        buffer_bytes=sum(buffer.untyped_storage().nbytes() for buffer in model.buffers()),
        build_peak_bytes=building.most(0, building.here()).n_bytes,
        traces=traces,
    )


def _trace(
    model: torch.nn.Module,
    batch: Batch,
    *,
    dtype: torch.dtype,
    loss: str,
    scratch: bool,
    n_samples: int,
    n_flops: int,
) -> ActivationTrace:
    live = LiveBytes(
        ignored=[*model.parameters(), *model.buffers()], scratch=Scratch() if scratch else None
    )
    with (
        _mode_of(model),
        live,
        watched_edges(model, live) as edges,
        _one_sequence_a_row(),
        _no_gradients_left(model),
    ):
        inputs = _samples(batch, n_samples=n_samples)
        batch_bytes = live.now().n_bytes
        end = _loss(model, inputs, dtype=dtype, loss=loss)
        forward_end = live.now()
        until = live.here()
        live.backward = True
        end.backward()
    peak = live.most(0, until)
    return ActivationTrace(
        micro_batch_size=n_samples,
        batch_bytes=batch_bytes,
        forward_peak_bytes=peak.n_bytes,
        forward_peak_temporary_bytes=peak.temporary_bytes,
        forward_end_bytes=forward_end.n_bytes,
        moments=tuple(moments_of(edges, live)),
        flops=n_flops,
    )


def _mode_of(model: torch.nn.Module) -> FakeTensorMode:
    """The mode that a model's fake tensors belong to."""
    mode: FakeTensorMode = next(model.parameters()).fake_mode
    return mode


def _loss(model: torch.nn.Module, batch: Batch, *, dtype: torch.dtype, loss: str) -> torch.Tensor:
    """The mean loss of a batch, as `read_output` finds it, without a look at the labels."""
    inputs = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in batch.items()
    }
    own_loss, logits = parts_of(model(**inputs))
    if own_loss is not None:
        return own_loss
    if logits is None or "labels" not in inputs:
        raise ValueError("it returns neither a loss nor logits with labels to compare them with")
    labels = inputs["labels"]
    if loss in _LOSSES:
        return _LOSSES[loss](logits, labels.to(logits.dtype))
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def _samples(batch: Batch, *, n_samples: int) -> Batch:
    """A batch of so many samples; what was one tensor under two names still is."""
    made: dict[int, torch.Tensor] = {}
    for value in batch.values():
        shape = (n_samples, *value.shape[1:])
        if id(value) not in made:
            made[id(value)] = torch.empty(shape, dtype=value.dtype)
    return {name: made[id(value)] for name, value in batch.items()}


def _flops(build: Callable[[], torch.nn.Module], batch: Batch, *, n_samples: int, loss: str) -> int:
    # Attention counts as its two products, whichever kernel the device takes.
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        model = build().train()
        inputs = _samples(batch, n_samples=n_samples)
        with FlopCounterMode(display=False) as counter:
            _loss(model, inputs, dtype=torch.float32, loss=loss).backward()
    return int(counter.get_total_flops())


@contextmanager
def _no_gradients_left(model: torch.nn.Module) -> Iterator[None]:
    try:
        yield
    finally:
        for parameter in model.parameters():
            parameter.grad = None


@contextmanager
def _one_sequence_a_row() -> Iterator[None]:
    """Let transformers take for granted what it reads from values: a row holds one sequence.

    Without values it prepares for several, with a mask a layer that real training does not make.

    Source:
        transformers 5.23.0, masking_utils.py, `find_packed_sequence_indices`.
    """
    masking: Any = sys.modules.get("transformers.masking_utils")
    if masking is None:
        yield
        return
    before = masking.find_packed_sequence_indices
    masking.find_packed_sequence_indices = lambda _position_ids: None
    try:
        yield
    finally:
        masking.find_packed_sequence_indices = before
