"""The Setup: a strategy, its batch and its buffers, as plain numbers that a forecast starts from.

Pure data. `plan` makes it from a job file and the exact dict that DeepSpeed gets.
"""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
Offload = Literal["none", "cpu", "nvme"]
OptimizerName = Literal["adamw", "adam", "sgd", "momentum", "rmsprop", "adafactor", "lion"]

BYTES_OF = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of one element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What decides the memory and the traffic of a rank, beside the model."""

    engine: Literal["deepspeed", "torch"]
    stage: int
    """ZeRO stage, 0 to 3."""
    n_ranks: int
    """Data-parallel ranks (the world size)."""
    ranks_per_node: int
    precision: Precision
    optimizer: OptimizerName
    """`momentum` is SGD with it; `sgd` keeps no state."""
    n_moments: int
    """Optimizer-state tensors of a parameter's full size: Adam 2, RMSprop with momentum 2."""
    state_dtype: Precision
    """Of master weights' optimizer state: fp32, or bf16 by `bf16_optimizer_states`."""
    fused_optimizer: bool
    """The update takes no temporaries: DeepSpeed's own kernels on a GPU, or its CPU Adam."""
    offload_optimizer: Offload
    offload_params: Offload
    pinned: bool
    """Offloaded tensors lie in page-locked memory, whose blocks are powers of two."""
    activation_checkpointing: bool
    micro_batch_size: int
    accumulation_steps: int
    grad_accum_dtype: Precision
    communication_dtype: Precision
    overlap_comm: bool
    gradient_clipping: bool
    device: Literal["cpu", "cuda"]
    reduce_bucket_elements: int
    prefetch_bucket_elements: int
    persistence_threshold_elements: int
    max_live_elements: int
    max_reuse_distance_elements: int
    sub_group_elements: int
    multi_rank_bucket_allreduce: bool
    """ZeRO-2 all-reduces every bucket instead of reducing each part to its owner."""
    swap_buffer_count: int
    """Buffers through which optimizer state on NVMe passes."""
    param_buffer_count: int
    """Buffers through which parameters on NVMe pass."""
    param_buffer_elements: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight on the device."""
        return BYTES_OF[self.precision]
