"""Loss and accuracy over the whole evaluation set, shared out over the ranks."""

import time

import torch
import torch.distributed as dist

from orchestrator.data.order import eval_batches
from orchestrator.data.samples import Samples
from orchestrator.measure.sample import EvalResult
from orchestrator.worker.engine import Engine
from orchestrator.worker.objective import n_correct


def evaluate(
    engine: Engine, samples: Samples, *, rank: int, world_size: int, batch_size: int, step: int
) -> EvalResult:
    """Evaluate every sample once. Collective: ZeRO-3 needs as many batches on every rank.

    Args:
        engine: holds the model.
        samples: the evaluation set.
        rank: which share is computed here.
        world_size: into how many shares the set is cut.
        batch_size: samples computed at once.
        step: optimizer steps taken so far.
    """
    started = time.perf_counter()
    loss_sum = correct = counted = n_samples = 0.0
    for indices, n_real in eval_batches(
        len(samples), rank=rank, world_size=world_size, batch_size=batch_size
    ):
        # A batch of padding only keeps the ranks in step; one sample is enough for that.
        batch = samples.batch(indices[: max(n_real, 1)])
        batch = {name: value.to(engine.device) for name, value in batch.items()}
        loss, logits = engine.predict(batch)
        right = n_correct(logits, batch.get("labels"))
        loss_sum += float(loss) * n_real
        n_samples += n_real
        if right is not None and n_real:
            correct += right
            counted += n_real
    sums = torch.tensor(
        [loss_sum, n_samples, correct, counted], dtype=torch.float64, device=engine.device
    )
    dist.all_reduce(sums)
    loss_sum, n_samples, correct, counted = sums.tolist()
    return EvalResult(
        step=step,
        time_unix_s=time.time(),
        loss=loss_sum / n_samples,
        accuracy=correct / counted if counted else None,
        n_samples=int(n_samples),
        seconds=time.perf_counter() - started,
    )
