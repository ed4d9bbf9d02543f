"""The arithmetic of one optimizer step: global = micro x accumulation x workers.

Pure; two of the three sizes of a job file give the third, and all three must agree.
"""

from dataclasses import dataclass

from orchestrator.spec.sections import TrainingSection

FORMULA = "global_batch_size = micro_batch_size x gradient_accumulation_steps x workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How one global batch is cut."""

    global_batch_size: int
    micro_batch_size: int
    accumulation_steps: int
    workers: int


class BatchError(ValueError):
    """The sizes do not fit together; carries the key to blame."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(key, message)
        self.key = key
        self.message = message

    def __str__(self) -> str:
        """Say what is wrong."""
        return f"{self.key}: {self.message}"


def resolve_batch(training: TrainingSection, *, workers: int) -> Batch:
    """Fill in what the job file leaves out, or check what it gives.

    Args:
        training: the sizes, in samples; `None` is to be derived. With only the global batch given,
            one micro-batch takes all of it.
        workers: ranks, at least 1.

    Raises:
        BatchError: a size is missing or they contradict each other.
    """
    total, micro, accumulation = (
        training.global_batch_size,
        training.micro_batch_size,
        training.gradient_accumulation_steps,
    )
    if total is None:
        if micro is None:
            raise BatchError(
                "training.global_batch_size",
                "missing; give it, or micro_batch_size from which it follows",
            )
        total = micro * (accumulation or 1) * workers
    if micro is None:
        micro = _divide(total, (accumulation or 1) * workers, "micro_batch_size", workers=workers)
    if accumulation is None:
        accumulation = _divide(
            total, micro * workers, "gradient_accumulation_steps", workers=workers, micro=micro
        )
    if micro * accumulation * workers != total:
        raise BatchError(
            "training.global_batch_size",
            f"{total} is not {micro} x {accumulation} x {workers} = "
            f"{micro * accumulation * workers} ({FORMULA}); "
            "correct one of them or leave gradient_accumulation_steps out",
        )
    return Batch(
        global_batch_size=total,
        micro_batch_size=micro,
        accumulation_steps=accumulation,
        workers=workers,
    )


def _divide(total: int, parts: int, wanted: str, *, workers: int, micro: int | None = None) -> int:
    if total % parts or total < parts:
        cut = f"micro_batch_size {micro} x {workers} workers" if micro else f"{parts} parts"
        lower = max(total // parts, 1) * parts
        raise BatchError(
            "training.global_batch_size",
            f"{total} does not divide into {cut} for {wanted} ({FORMULA}); "
            f"the nearest that do are {lower} and {lower + parts}",
        )
    return total // parts
