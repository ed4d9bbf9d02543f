"""The learning rate of every optimizer step, as pure arithmetic shared by all engines.

One function for DeepSpeed and plain torch, so that a schedule cannot differ between strategies.
"""

import math

from orchestrator.spec.sections import ScheduleSection


def learning_rate(
    step: int, *, total_steps: int, peak_lr: float, schedule: ScheduleSection
) -> float:
    """The rate used by one optimizer step.

    Args:
        step: from 1 to `total_steps`.
        total_steps: optimizer steps of the run.
        peak_lr: rate at the end of the warm-up.
        schedule: shape, warm-up steps and final share of the peak.

    Returns:
        Warm-up: peak x step / warmup_steps. Then constant, or linear or half a cosine down to
        min_lr_ratio x peak, reached one step after the last so that no step is taken at 0.

    Source:
        Cosine: Loshchilov and Hutter, SGDR (arXiv:1608.03983), equation 5 without restarts.
    """
    if step <= schedule.warmup_steps:
        return peak_lr * step / schedule.warmup_steps
    if schedule.name == "constant":
        return peak_lr
    done = (step - schedule.warmup_steps) / (total_steps - schedule.warmup_steps + 1)
    left = 1 - done if schedule.name == "linear" else (1 + math.cos(math.pi * done)) / 2
    return peak_lr * (schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * left)
