"""A comparison as CSV: every number of each strategy, and the losses step by step. Pure text.

Bytes, seconds and ratios; what is unknown is empty.
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from operator import attrgetter
from typing import Any

from orchestrator.compare.ranking import Ranking, Row, Sameness
from orchestrator.measure.ledger import CATEGORIES
from orchestrator.measure.run_record import RankRow, StepTimes
from orchestrator.measure.sample import PHASES
from orchestrator.measure.spread import spread

_Value = Callable[[Row], Any]
_SETTINGS = {
    "engine": "training.engine",
    "stage": "zero.stage",
    "offload_optimizer": "zero.offload_optimizer",
    "offload_params": "zero.offload_params",
    "precision": "training.precision",
    "activation_checkpointing": "training.activation_checkpointing",
    "optimizer": "training.optimizer.name",
    "lr": "training.optimizer.lr",
    "seed": "training.seed",
}
"""Column -> dotted key of the job."""
_ENTRY = (
    "device", "workers", "micro_batch_size", "accumulation_steps", "global_batch_size", "n_params",
    "user", "commit",
)  # fmt: skip
_RECORD = ("tokens_per_s", "flops_per_s", "mfu_ratio", "first_step_s", "steps", "skipped_steps")
_FULLEST = ("host_bytes", "nvme_bytes", "rss_peak_bytes", "container_peak_bytes")


def report_csv(ranking: Ranking) -> str:
    """Write a line for each strategy, in the ranking's order.

    Columns of memory are those of the fullest rank, the parts of a step those of the slowest.
    """
    columns = _columns(ranking)
    lines = ([_cell(value(row)) for value in columns.values()] for row in ranking.rows)
    return _csv(list(columns), lines)


def losses_csv(ranking: Ranking) -> str:
    """Write the global loss of each step, a line a step and a column a strategy."""
    losses = {row.name: row.entry.record.losses for row in ranking.rows}
    n_steps = max(map(len, losses.values()), default=0)
    lines = (
        [step + 1, *(_cell(told[step] if step < len(told) else None) for told in losses.values())]
        for step in range(n_steps)
    )
    return _csv(["step", *losses], lines)


def _csv(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return value


def _columns(ranking: Ranking) -> dict[str, _Value]:
    """Column -> its value; in the order of the file."""
    return {
        "strategy": attrgetter("name"),
        "sharding": attrgetter("entry.strategy"),
        "outcome": attrgetter("entry.record.outcome"),
        "message": attrgetter("entry.record.message"),
        "is_baseline": lambda row: row.name == ranking.baseline,
        "pareto": attrgetter("pareto"),
        "run_id": attrgetter("entry.record.run_id"),
        **{name: attrgetter(f"entry.{name}") for name in _ENTRY},
        **{name: partial(_setting, key=key) for name, key in _SETTINGS.items()},
        **_memory(),
        **_speed(),
        **_loss(),
    }


def _memory() -> dict[str, _Value]:
    return {
        "peak_bytes": attrgetter("entry.peak_bytes"),
        "peak_ratio": attrgetter("peak_ratio"),
        "fullest_rank": partial(_of_fullest, value=attrgetter("rank")),
        "peak_phase": partial(_of_fullest, value=attrgetter("peak_phase")),
        **{
            f"{phase}_peak_bytes": partial(_of_fullest, value=partial(_phase_peak, phase=phase))
            for phase in PHASES
        },
        **{
            f"peak_{name}_bytes": partial(_of_fullest, value=partial(_category, name=name))
            for name in CATEGORIES
        },
        **{name: partial(_of_fullest, value=attrgetter(name)) for name in _FULLEST},
        "reserved_bytes": partial(
            _of_fullest, value=lambda rank: rank.cuda.reserved_bytes if rank.cuda else None
        ),
        "gpu_used_bytes": partial(
            _of_fullest, value=lambda rank: rank.gpu.used_bytes if rank.gpu else None
        ),
        **_over_ranks("peak_bytes"),
        "forecast_peak_bytes": attrgetter("entry.record.forecast_peak_bytes"),
        "forecast_error_ratio": attrgetter("entry.record.forecast_error_ratio"),
    }


def _speed() -> dict[str, _Value]:
    return {
        "samples_per_s": partial(_of_throughput, name="samples_per_s"),
        "samples_per_s_quartile_1": partial(_of_throughput, name="quartiles", part=0),
        "samples_per_s_quartile_3": partial(_of_throughput, name="quartiles", part=1),
        "samples_per_s_low": partial(_of_throughput, name="interval", part=0),
        "samples_per_s_high": partial(_of_throughput, name="interval", part=1),
        "speed_ratio": partial(_of_ratio, name="ratio"),
        "speed_ratio_low": partial(_of_ratio, name="interval", part=0),
        "speed_ratio_high": partial(_of_ratio, name="interval", part=1),
        "difference_shown": partial(_of_ratio, name="difference_shown"),
        "n_rounds": lambda row: len(row.entry.rounds),
        "n_measured_steps": lambda row: sum(map(len, row.entry.rounds)),
        **_over_ranks("samples_per_s"),
        **{name: attrgetter(f"entry.record.{name}") for name in _RECORD},
        "slowest_rank": partial(_of_slowest, value=attrgetter("rank")),
        **{
            f"step_{field.name}_s": partial(_of_slowest, value=attrgetter(f"step_s.{field.name}"))
            for field in fields(StepTimes)
        },
    }


def _loss() -> dict[str, _Value]:
    return {
        "first_loss": partial(_loss_at, index=0),
        "final_loss": partial(_loss_at, index=-1),
        "same_loss": _sameness,
        "same_loss_reason": attrgetter("loss.reason"),
        "max_loss_difference": attrgetter("loss.max_difference"),
        "max_loss_difference_step": attrgetter("loss.at_step"),
        "eval_loss": partial(_evaluated, name="loss"),
        "eval_accuracy_ratio": partial(_evaluated, name="accuracy"),
    }


def _over_ranks(name: str) -> dict[str, _Value]:
    """Columns of the smallest, the median and the largest over a strategy's ranks."""
    return {
        f"rank_{part}_{name}": partial(_rank_spread, name=name, part=part)
        for part in ("min", "median", "max")
    }


def _rank_spread(row: Row, *, name: str, part: str) -> float | None:
    return spread(getattr(rank, name) for rank in row.entry.record.ranks).get(part)


def _setting(row: Row, *, key: str) -> Any:
    return row.entry.setting(key)


def _of_fullest(row: Row, *, value: Callable[[RankRow], Any]) -> Any:
    fullest = row.entry.record.fullest
    return None if fullest is None else value(fullest)


def _of_slowest(row: Row, *, value: Callable[[RankRow], Any]) -> Any:
    slowest = row.entry.record.slowest
    return None if slowest is None else value(slowest)


def _phase_peak(rank: RankRow, *, phase: str) -> int | None:
    return rank.phase_peak_bytes.get(phase)


def _category(rank: RankRow, *, name: str) -> int | None:
    return (rank.ledger or {}).get(name)


def _of_throughput(row: Row, *, name: str, part: int | None = None) -> Any:
    return _attribute(row.throughput, name, part=part)


def _of_ratio(row: Row, *, name: str, part: int | None = None) -> Any:
    return _attribute(row.speed_ratio, name, part=part)


def _attribute(owner: object | None, name: str, *, part: int | None) -> Any:
    value = None if owner is None else getattr(owner, name)
    return value if value is None or part is None else value[part]


def _loss_at(row: Row, *, index: int) -> float | None:
    losses = row.entry.record.losses
    return losses[index] if losses else None


def _sameness(row: Row) -> str | None:
    return None if row.loss.sameness is Sameness.UNKNOWN else row.loss.sameness.value


def _evaluated(row: Row, *, name: str) -> float | None:
    evals = row.entry.record.evals
    return getattr(evals[-1], name) if evals else None
