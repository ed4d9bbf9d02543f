"""Whether the shim still tells the truth: a small model on fake tensors and on real ones.

Both run in the same fake process group, so that no other rank is needed; peaks must be equal to the
byte, and so must what is sent. Run in the tests, and once in every state folder for the versions
it meets (`launch/shadows.py`).
"""

from contextlib import ExitStack
from pathlib import Path

from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

from orchestrator.forecast.shadow_result import SampleTensor, ShadowResult
from orchestrator.plan.batch import Batch
from orchestrator.plan.deepspeed_config import deepspeed_config
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.plan.resources import Resources
from orchestrator.spec.job import JobSpec
from orchestrator.worker.shadow.run import shadow_run
from orchestrator.worker.shadow.shim import replaced

N_RANKS = 4
N_MICRO = 2
# Widths that 4 ranks do not divide evenly, so that padding counts.
_MODEL = {"family": "mlp", "config": {"input_size": 61, "hidden_sizes": [127, 63], "num_labels": 7}}
_SAMPLE = {
    "pixel_values": SampleTensor(shape=(61,), dtype="float32"),
    "labels": SampleTensor(shape=(), dtype="int64"),
}
_N_PARAMS = 61 * 127 + 127 + 127 * 63 + 63 + 63 * 7 + 7


def tiny_plan(*, stage: int, precision: str = "fp32") -> LaunchPlan:
    """A plan that trains a small model on four CPU ranks."""
    spec = JobSpec.model_validate(
        {
            "name": "self-test",
            "model": _MODEL,
            "data": {"source": "synthetic", "image_size": 8, "channels": 1, "num_classes": 7},
            "training": {"steps": 3, "micro_batch_size": 4, "precision": precision},
            "zero": {"stage": stage},
            "resources": {"workers": N_RANKS, "device": "cpu"},
        }
    )
    batch = Batch(
        global_batch_size=4 * N_MICRO * N_RANKS,
        micro_batch_size=4,
        accumulation_steps=N_MICRO,
        workers=N_RANKS,
    )
    return LaunchPlan(
        spec=spec,
        strategy=f"zero{stage}",
        folder=Path(),
        batch=batch,
        resources=Resources(workers=N_RANKS, device="cpu", cpus_per_worker=1, gpus_per_worker=0),
        n_params=_N_PARAMS,
        deepspeed=deepspeed_config(spec, batch=batch, n_params=_N_PARAMS, device="cpu"),
        compiled_ops=(),
        notes=(),
    )


def run_tiny(*, stage: int, precision: str, fake: bool) -> ShadowResult:
    """Run the small model, on fake tensors or on real ones.

    To be called in a process of its own, as `shadow_run`.
    """
    plan = tiny_plan(stage=stage, precision=precision)
    with ExitStack() as undo:
        for optimizer in (DeepSpeedZeroOptimizer, DeepSpeedZeroOptimizer_Stage3):
            # Ranks that are not there send nothing, so that weights are what memory happened to
            # hold; a step must not be skipped for it.
            replaced(undo, optimizer, "has_overflow", lambda *_a, **_k: False)
        return shadow_run(plan, sample=_SAMPLE, fake=fake)
