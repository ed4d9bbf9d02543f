"""The other sections: training, zero, resources, checkpoint, failures, tracking, compare."""

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.spec.base import (
    Betas,
    Finite,
    Gib,
    NonNegative,
    Positive,
    PositiveInt,
    Ratio,
    Section,
    WholeNumber,
)

Precision = Literal["fp32", "bf16", "fp16"]
Offload = Literal["none", "cpu", "nvme"]
Device = Literal["auto", "cpu", "cuda"]
Stage = Annotated[Literal[0, 1, 2, 3], WholeNumber]


class OptimizerSection(Section):
    """Which update rule, with torch's names for its settings.

    Adafactor keeps a row and a column of second moments in place of each matrix, and scales and
    clips the update of each weight tensor by itself. So it does at stage 0. At stages 1 to 3 ZeRO
    hands it a rank's share as one flat vector: its second moments are then as large as the share,
    and scale and clipping are those of the whole share. Its losses, unlike those of the other
    rules, therefore change with the stage and the number of workers.

    Lion is DeepSpeed's own; its paper has betas of [0.9, 0.99], and a lr three to ten times smaller
    than that of AdamW. A gradient of exactly 0 has a sign there, so that a weight that gets none
    moves by lr all the same: down where it is offloaded, up on a GPU.

    Source: torch 2.13.0, optim/_adafactor.py; Chen et al., Symbolic Discovery of Optimization
    Algorithms (arXiv:2302.06675), section 5; deepspeed 0.19.8, runtime/zero/stage_1_and_2.py,
    runtime/zero/stage3.py, ops/csrc/includes/cpu_lion.h, ops/csrc/lion/multi_tensor_lion.cu.
    """

    name: Literal["adamw", "adam", "sgd", "rmsprop", "adafactor", "lion"] = "adamw"
    """Update rule; lion needs a GPU, or zero.offload_optimizer."""
    lr: Positive = 1e-3
    """Peak learning rate; of adafactor, the largest step relative to the weights."""
    weight_decay: NonNegative = 0.01
    """Decoupled for adamw, adafactor and lion, an L2 term for the others."""
    betas: Betas = (0.9, 0.999)
    """Decay of the running means (adamw, adam, lion)."""
    eps: Positive = 1e-8
    """Added to the denominator (adamw, adam, rmsprop)."""
    momentum: Ratio = 0.0
    """Momentum (sgd, rmsprop)."""


class ScheduleSection(Section):
    """How the learning rate moves over the optimizer steps."""

    name: Literal["constant", "linear", "cosine"] = "constant"
    """Shape after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0, le=2**53)] = 0
    """Steps of linear increase from lr / warmup_steps to lr."""
    min_lr_ratio: Annotated[Finite, Field(ge=0, le=1)] = 0.0
    """Where linear and cosine end, as a share of lr."""


class TrainingSection(Section):
    """What one run computes; nothing in it depends on how the work is sharded."""

    steps: PositiveInt | None = None
    """Optimizer steps; give this or `epochs`."""
    epochs: PositiveInt | None = None
    """Passes over the training data; give this or `steps`."""
    global_batch_size: PositiveInt | None = None
    """Samples per optimizer step, whatever the strategy; null: micro x accumulation x workers."""
    micro_batch_size: PositiveInt | None = None
    """Samples one worker computes at once; null: global / (accumulation x workers)."""
    gradient_accumulation_steps: PositiveInt | None = None
    """Micro-batches a worker adds up before a step; null: global / (micro x workers)."""
    precision: Precision = "fp32"
    """Type of weights and activations; bf16 and fp16 keep fp32 master weights in the optimizer."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    gradient_clipping: Positive | None = None
    """Largest norm of the global gradient; null: no clipping."""
    loss: Literal["cross_entropy", "mse", "l1"] = "cross_entropy"
    """Applied to logits and `labels` when the model returns no loss of its own."""
    optimizer: OptimizerSection = OptimizerSection()
    """Update rule."""
    schedule: ScheduleSection = ScheduleSection()
    """Learning-rate schedule."""
    eval_every_steps: PositiveInt | None = None
    """Evaluate every so many steps; null: only at the end."""
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    """`torch` is the plain reference for stage 0 in fp32."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of weights, sample order and dropout."""


class ZeroSection(Section):
    """The sharding strategy."""

    stage: Stage = 0
    """0 shards nothing; 1 optimizer state; 2 also gradients; 3 also parameters."""
    offload_optimizer: Offload = "none"
    """Where optimizer state lives; cpu needs stage 1 to 3, nvme stage 3."""
    offload_params: Offload = "none"
    """Where parameters rest; cpu and nvme need stage 3."""
    nvme_path: str | None = None
    """Folder on the NVMe disk; needed by nvme."""


class ResourcesSection(Section):
    """What the run needs."""

    workers: PositiveInt = 1
    """Ranks (the world size)."""
    device: Device = "auto"
    """auto: cuda where there are GPUs, else cpu."""
    cpus_per_worker: Positive = 1
    """CPU cores of one worker."""
    placement: Literal["pack", "spread"] = "pack"
    """Over a cluster's nodes: pack fills as few as it can, spread takes as many as it can."""
    memory_budget_gib: Gib | None = None
    """Device memory one rank may take, in GiB or as a size such as 16GiB; null: all of it."""


class MeasureSection(Section):
    """How closely the run is measured; see the README for what is measured anyway."""

    exact_rss: bool = False
    """Freed memory goes back to the system at once, so that resident memory follows what tensors
    hold; steps take longer, so take no throughput from such a run."""


class CheckpointSection(Section):
    """When training state is saved."""

    every_steps: PositiveInt | None = None
    """Save every so many optimizer steps; null: never."""
    keep: PositiveInt = 2
    """Newest checkpoints to keep."""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on from the newest checkpoint of this job."""


class FailuresSection(Section):
    """What to do when a rank dies."""

    max_restarts: Annotated[int, Field(ge=0, le=1000)] = 3
    """Restarts from the newest checkpoint before giving up."""


class TrackingSection(Section):
    """Where the records go."""

    experiment: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    """MLflow experiment; null: the job's name."""
    uri: str | None = None
    """MLflow tracking URI; null: the embedded sqlite store in the state folder."""


class CompareSection(Section):
    """Which strategies a comparison runs: the product of axes, or a list of variants."""

    axes: dict[str, list[Any]] = Field(default_factory=dict)
    """Dotted key -> values to try."""
    variants: list[dict[str, Any]] = Field(default_factory=list)
    """Mappings of dotted keys to values, each with an optional `name`."""
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    """Combinations of axes to leave out."""
    baseline: str | None = None
    """Name of the strategy that the others are held against; null: the first."""
    rounds: Annotated[int, Field(ge=1, le=20)] = 3
    """How often every strategy has its turn (A B C A B C), so that a machine whose speed drifts
    favours none. The first round trains the whole job, later ones `round_steps` for the speed."""
    round_steps: Annotated[int, Field(ge=3)] = 8
    """Optimizer steps of a later round, two of them to warm up; at most the job's."""
    hang_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """A strategy of which no rank reports anything for so long has failed: it hangs."""
