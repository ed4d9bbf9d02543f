"""The training loop: the global batches in their order, cut for this rank, one step after another.

The optimizer sees the same global batches in the same order whatever the number of workers, the
micro-batch, the accumulation or the stage, so that losses can be compared.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch.distributed as dist

from orchestrator.data.order import micro_batches, step_indices
from orchestrator.data.samples import Samples
from orchestrator.errors import OrchestratorError
from orchestrator.measure.ledger import CATEGORIES
from orchestrator.measure.sample import EvalResult, MemoryTimeline, RankSample, RankSpeed
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.plan.schedule import learning_rate
from orchestrator.worker.engine import Batch, Engine, GradientNotFiniteError
from orchestrator.worker.meter import Meter
from orchestrator.worker.probes.replay import Moment


class DivergedError(OrchestratorError):
    """A loss or a gradient is not finite; the run stops before the weights are spoilt."""


def train(
    plan: LaunchPlan,
    engine: Engine,
    samples: Samples,
    *,
    rank: int,
    last_step: int,
    meter: Meter,
    evaluate: Callable[[int], EvalResult | None],
) -> Iterator[RankSample | MemoryTimeline | RankSpeed | EvalResult]:
    """Train up to `last_step`, giving each step's cost as it ends.

    Args:
        plan: what to run.
        engine: what updates the weights.
        samples: what is trained on.
        rank: this rank.
        last_step: where to stop, `optimizer_steps` at most.
        meter: measures each step.
        evaluate: evaluates after a step, or gives `None` where that is not wanted. Collective.

    Raises:
        DivergedError: this rank's loss or the gradient is not finite; names step and rank.
    """
    training = plan.spec.training
    total_steps = optimizer_steps(plan, n_train_samples=len(samples))
    for step in range(1, last_step + 1):
        lr = learning_rate(
            step,
            total_steps=total_steps,
            peak_lr=training.optimizer.lr,
            schedule=training.schedule,
        )
        with meter.begin(step):
            losses, n_tokens = [], 0
            cut = _cut(plan, samples, step=step, rank=rank)
            for index, indices in enumerate(cut):
                meter.enter("data")
                batch = _on_device(samples.batch(indices), engine)
                meter.enter("forward")
                loss = engine.forward(batch)
                meter.enter("backward")
                engine.backward(loss, last=index == len(cut) - 1)
                losses.append(loss.detach())
                n_tokens += batch["input_ids"].numel() if "input_ids" in batch else 0
            mean_loss = sum(float(loss) for loss in losses) / len(losses)
            meter.enter("optimizer")
            try:
                grad_norm = engine.step(lr=lr)
            except GradientNotFiniteError:
                raise _diverged(mean_loss, step=step) from None
            if not math.isfinite(mean_loss):
                raise DivergedError(f"the loss is {mean_loss} in step {step} on rank {rank}")
            meter.end()
        cost = meter.leave()
        yield RankSample(
            rank=rank,
            step=step,
            time_unix_s=time.time(),
            loss=mean_loss,
            lr=lr,
            grad_norm=grad_norm,
            n_samples=sum(map(len, cut)),
            n_tokens=n_tokens or None,
            step_s=cost.step_s,
            data_s=cost.part_s["data"],
            forward_s=cost.part_s["forward"],
            backward_s=cost.part_s["backward"],
            optimizer_s=cost.part_s["optimizer"],
            communication_s=cost.communication_s,
            logging_s=cost.part_s["logging"],
            checkpoint_s=None,
            skipped_steps=engine.skipped_steps(),
            rss_peak_bytes=cost.rss_peak_bytes,
            probe=cost.probe,
            phase_peak_bytes=cost.phase_peak_bytes,
            probed=cost.probed,
            resident=cost.resident,
            host_bytes=cost.host_bytes,
            nvme_bytes=engine.swapped_bytes() if cost.probe else None,
            container_peak_bytes=cost.container_peak_bytes,
            cuda=cost.cuda,
            gpu=cost.gpu,
            model_flops=meter.speed.model_flops if meter.speed else None,
            peak_flops_per_s=meter.speed.peak_flops_per_s if meter.speed else None,
        )
        if cost.timeline:
            yield _timeline(cost.timeline, rank=rank, step=step)
        if meter.speed is None and meter.probes_are_over:
            yield meter.find_speed(samples.batch(cut[0]))
        if step == last_step or (
            training.eval_every_steps and step % training.eval_every_steps == 0
        ):
            result = evaluate(step)
            meter.resume()
            if rank == 0 and result is not None:
                yield result


def optimizer_steps(plan: LaunchPlan, *, n_train_samples: int) -> int:
    """How many optimizer steps the run takes; epochs are rounded up to whole steps."""
    training = plan.spec.training
    if training.steps is not None:
        return training.steps
    return math.ceil((training.epochs or 1) * n_train_samples / plan.batch.global_batch_size)


def _diverged(mean_loss: float, *, step: int) -> DivergedError:
    """Find out together which rank's loss spoilt the gradient. Collective."""
    losses: list[float] = [0.0] * dist.get_world_size()
    dist.all_gather_object(losses, mean_loss)
    for rank, loss in enumerate(losses):
        if not math.isfinite(loss):
            return DivergedError(f"the loss is {loss} in step {step} on rank {rank}")
    return DivergedError(f"the gradient is not finite in step {step}; every rank's loss is")


def _cut(plan: LaunchPlan, samples: Samples, *, step: int, rank: int) -> list[np.ndarray]:
    """This rank's micro-batches of one optimizer step, as sample indices."""
    indices = step_indices(
        len(samples),
        seed=plan.spec.training.seed,
        step=step - 1,
        global_batch_size=plan.batch.global_batch_size,
    )
    return micro_batches(
        indices,
        rank=rank,
        world_size=plan.batch.workers,
        micro_batch_size=plan.batch.micro_batch_size,
    )


def _timeline(moments: Sequence[Moment], *, rank: int, step: int) -> MemoryTimeline:
    return MemoryTimeline(
        rank=rank,
        step=step,
        time_unix_s=time.time(),
        at_s=[moment.at_s for moment in moments],
        phase=[moment.phase for moment in moments],
        ledger={name: [moment.ledger[name] for moment in moments] for name in CATEGORIES},
    )


def _on_device(batch: Batch, engine: Engine) -> Batch:
    return {name: value.to(engine.device) for name, value in batch.items()}
