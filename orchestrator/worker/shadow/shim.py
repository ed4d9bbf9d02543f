"""Everything that is changed in torch and DeepSpeed so that an engine runs on fake tensors.

The engine itself stays as it is. What is replaced asks for what a fake tensor has not: an address,
a value, a compiled kernel, another rank. Pinned to the versions below; `self_test` compares fake
tensors with real ones, and says whether the changes still hold.

Source: torch 2.11 to 2.13, deepspeed 0.19.8; each change names what it stands in for.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._mode_utils import no_dispatch

from orchestrator.worker import objective
from orchestrator.worker.shadow.kernels import compiled_kernels
from orchestrator.worker.shadow.rank_loops import short_rank_loops

# Where stage 3 asks all ranks whether they agree (deepspeed/runtime/zero/utils.py).
_ASKING_MODULES = (
    "deepspeed.runtime.zero.utils",
    "deepspeed.runtime.zero.stage3",
    "deepspeed.runtime.zero.parameter_offload",
    "deepspeed.runtime.zero.partition_parameters",
    "deepspeed.runtime.zero.partitioned_param_coordinator",
)
# Whose modules may read values: none of what they do with them changes what is held. A layer that
# a user takes from `deepspeed.moe` is not among them: it routes by values.
_ENGINES = (
    "deepspeed.runtime.",
    "deepspeed.ops.",
    "torch.optim.",
    "torch.nn.init",
    "torch.nn.utils.clip_grad",
    "orchestrator.worker.",
)
_FEW_VALUES = 1000
# Weights have no values, so nothing need be drawn for them (torch/nn/init.py).
_INITIALISERS = (
    "uniform_",
    "normal_",
    "trunc_normal_",
    "constant_",
    "ones_",
    "zeros_",
    "xavier_uniform_",
    "xavier_normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
)


@contextmanager
def fake_tensors_allowed(
    *, moves_weights: bool = False, draws_weights: bool = False
) -> Iterator[None]:
    """Let DeepSpeed run on fake tensors inside; everything is put back afterwards.

    Args:
        moves_weights: a module that is moved gets new memory, as from the CPU to a GPU.
        draws_weights: initial weights are drawn, which takes time and which nobody sees.
    """
    with ExitStack() as undo:
        _values(undo)
        replaced(undo, torch, "linspace", _with_values(torch.linspace))
        _casts(undo, moves_weights=moves_weights)
        _peers(undo)
        for name in () if draws_weights else _INITIALISERS:
            replaced(undo, torch.nn.init, name, _unchanged)
        # It reads the labels' values.
        replaced(undo, objective, "check_labels", _nothing)
        undo.enter_context(compiled_kernels())
        undo.enter_context(short_rank_loops())
        yield


@contextmanager
def sequences_not_packed() -> Iterator[None]:
    """Let models of transformers take samples for whole sequences, one a row.

    They look at the positions' values, and on fake tensors build an explicit mask that a run does
    not have. To be entered once the model is built, and with it transformers imported.

    Source: transformers 5.23.0, masking_utils.py, `find_packed_sequence_indices`.
    """
    masks = sys.modules.get("transformers.masking_utils")
    with ExitStack() as undo:
        if masks is not None:
            replaced(undo, masks, "find_packed_sequence_indices", _nothing)
        yield


def replaced(undo: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set an attribute until `undo` is closed."""
    own = vars(owner).get(name)
    had = name in vars(owner)

    def put_back() -> None:
        if had:
            setattr(owner, name, own)
        else:
            delattr(owner, name)

    undo.callback(put_back)
    setattr(owner, name, value)


def _values(undo: ExitStack) -> None:
    """Give a fake tensor an address, and a value where DeepSpeed or torch's optimizers read one.

    0 says that no gradient overflowed; 1.0 is a step count or a norm that nothing is scaled by. A
    user's model that reads values is still refused by torch, for what it does depends on them.
    """
    replaced(undo, FakeTensor, "data_ptr", lambda _tensor: 0)
    for name, value in (
        ("item", _value),
        ("__bool__", lambda tensor: bool(_value(tensor))),
        ("__float__", lambda tensor: float(_value(tensor))),
        ("__int__", lambda tensor: int(_value(tensor))),
        ("tolist", _values_of),
    ):
        replaced(undo, FakeTensor, name, _for_engines(value, otherwise=getattr(FakeTensor, name)))


def _for_engines(
    value: Callable[[torch.Tensor], Any], *, otherwise: Callable[[torch.Tensor], Any]
) -> Callable[[torch.Tensor], Any]:
    def read(tensor: torch.Tensor) -> Any:
        asking = str(sys._getframe(1).f_globals.get("__name__"))
        return value(tensor) if asking.startswith(_ENGINES) else otherwise(tensor)

    return read


def _value(tensor: torch.Tensor) -> float | int | bool:
    if tensor.is_floating_point():
        return 1.0
    return False if tensor.dtype == torch.bool else 0


def _values_of(tensor: torch.Tensor) -> Any:
    return [_value(tensor)] * tensor.numel() if tensor.dim() else _value(tensor)


def _with_values(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Let a few values be known: a list of drop rates is made and read while a model is built."""

    def made(*arguments: Any, **settings: Any) -> torch.Tensor:
        result = make(*arguments, **settings)
        if isinstance(result, FakeTensor) and result.numel() <= _FEW_VALUES:
            with no_dispatch():
                result.constant = make(*arguments, **settings)
            # It is forgotten when it is written to.
            result.fake_mode.fake_tensor_converter.add_constant_storage_mapping(result)
        return result

    return made


def _casts(undo: ExitStack, *, moves_weights: bool) -> None:
    """Change a module's tensors in place; torch swaps fake ones, which hooks and lists forbid."""
    replaced(undo, torch.nn.Module, "_apply", _apply_in_place(moves_weights=moves_weights))
    # DeepSpeed asks its CPU accelerator, standing in for a GPU, whether it knows fp16.
    cpu = importlib.import_module("deepspeed.accelerator.cpu_accelerator").CPU_Accelerator
    replaced(undo, cpu, "is_fp16_supported", lambda _accelerator: True)


def _apply_in_place(*, moves_weights: bool) -> Callable[..., torch.nn.Module]:
    """Stand in for `Module._apply`, child by child and one tensor at a time as it does."""

    def changed(tensor: torch.Tensor, fn: Any) -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = fn(tensor)
            stays = result.untyped_storage()._cdata == tensor.untyped_storage()._cdata
            return result.clone() if stays and moves_weights else result

    def apply(module: torch.nn.Module, fn: Any, recurse: bool = True) -> torch.nn.Module:
        if recurse:
            for child in module.children():
                child._apply(fn)
        for parameter in module._parameters.values():
            if parameter is not None:
                parameter.data = changed(parameter.data, fn)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = changed(buffer, fn)
        return module

    return apply


def _peers(undo: ExitStack) -> None:
    for name in _ASKING_MODULES:
        module = importlib.import_module(name)
        if hasattr(module, "assert_ints_same_as_other_ranks"):
            replaced(undo, module, "assert_ints_same_as_other_ranks", _nothing)


def _nothing(*_arguments: Any, **_settings: Any) -> None:
    return None


def _unchanged(tensor: torch.Tensor, *_arguments: Any, **_settings: Any) -> torch.Tensor:
    return tensor
