"""Columns about strategies that only the report has: settings, steps, ranks, losses, forecasts.

Pure text. `None` stands where no strategy has anything to show.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.compare.columns import (
    Column,
    decimals_for,
    mib_column,
    number_column,
    saying_something,
    word_column,
)
from orchestrator.compare.conclusions import rows_with_losses
from orchestrator.compare.ranking import Ranking, Row
from orchestrator.compare.strategy_columns import SAMENESS_WORDS, mib_decimals, name_column
from orchestrator.forecast.accuracy import as_percent
from orchestrator.measure.run_record import RankRow, RunRecord
from orchestrator.measure.spread import spread

_PLACES = {"none": "device"}
_STEP_PARTS = (
    "data", "forward", "backward", "optimizer", "logging", "communication", "checkpoint",
)  # fmt: skip
_METHODS = {"shadow": "shadow run", "closed_form": "closed form"}


def setting_columns(ranking: Ranking) -> list[Column]:
    """How each strategy shards and splits its batch."""
    entries = [row.entry for row in ranking.rows]

    def told(title: str, key: str) -> Column:
        return word_column(title, (_word(entry.setting(key)) for entry in entries))

    def counted(title: str, counts: Iterable[int]) -> Column:
        return number_column(title, counts, decimals=0)

    named_by_it = all(entry.name == entry.strategy for entry in entries)
    sharding = word_column("sharding", (entry.strategy for entry in entries))
    return saying_something(
        [
            name_column(ranking),
            *(() if named_by_it else (sharding,)),
            told("stage", "zero.stage"),
            told("optimizer on", "zero.offload_optimizer"),
            told("params on", "zero.offload_params"),
            told("precision", "training.precision"),
            told("recomputes", "training.activation_checkpointing"),
            counted("micro-batch", (entry.micro_batch_size for entry in entries)),
            counted("accumulation", (entry.accumulation_steps for entry in entries)),
            counted("workers", (entry.workers for entry in entries)),
        ]
    )


def step_columns(ranking: Ranking) -> list[Column] | None:
    """Where a step of each strategy's slowest rank goes, in ms."""
    slowest = {row.name: rank for row in ranking.rows if (rank := row.entry.record.slowest)}
    if not slowest:
        return None
    ranks = list(slowest.values())
    decimals = decimals_for(((rank.step_s.median or 0) * 1e3 for rank in ranks), least=1)
    columns = [
        name_column(ranking, rows=[row for row in ranking.rows if row.name in slowest]),
        number_column("rank", (rank.rank for rank in ranks), decimals=0),
        number_column("step ms", _ms(ranks, "median"), decimals=decimals),
        *(number_column(part, _ms(ranks, part), decimals=decimals) for part in _STEP_PARTS),
    ]
    return saying_something(columns)


def rank_columns(ranking: Ranking) -> list[Column] | None:
    """The smallest, the median and the largest over each strategy's ranks."""
    rows = [row for row in ranking.rows if row.entry.record.ranks]
    peaks = [spread(rank.peak_bytes for rank in row.entry.record.ranks) for row in rows]
    speeds = [spread(rank.samples_per_s for rank in row.entry.record.ranks) for row in rows]
    if not any([*peaks, *speeds]):
        return None
    peak_decimals = mib_decimals(rows)
    speed_decimals = decimals_for(value for told in speeds for value in told.values())
    return saying_something(
        [
            name_column(ranking, rows=rows),
            number_column("ranks", (len(row.entry.record.ranks) for row in rows), decimals=0),
            *(
                mib_column(
                    title,
                    (None if part not in told else round(told[part]) for told in peaks),
                    decimals=peak_decimals,
                )
                for title, part in (
                    ("smallest peak MiB", "min"),
                    ("median peak MiB", "median"),
                    ("largest peak MiB", "max"),
                )
            ),
            *(
                number_column(title, (told.get(part) for told in speeds), decimals=speed_decimals)
                for title, part in (
                    ("slowest samples/s", "min"),
                    ("median samples/s", "median"),
                    ("fastest samples/s", "max"),
                )
            ),
        ]
    )


def loss_columns(ranking: Ranking) -> list[Column] | None:
    """How the losses of each strategy are to the baseline's, and why."""
    rows = rows_with_losses(ranking)
    if not rows:
        return None
    return saying_something(
        [
            word_column("strategy", (row.name for row in rows)),
            number_column("steps", (row.entry.record.steps for row in rows), decimals=0),
            word_column("same loss", (SAMENESS_WORDS[row.loss.sameness] for row in rows)),
            Column(
                title="largest difference",
                cells=tuple(_difference(row.loss.max_difference) for row in rows),
            ),
            number_column("at step", map(_differing_step, rows), decimals=0),
            word_column("why", (row.loss.reason for row in rows)),
        ]
    )


def forecast_columns(ranking: Ranking) -> list[Column] | None:
    """What was forecast of each strategy beside what was measured of the same rank."""
    rows = [row for row in ranking.rows if row.entry.record.forecast_peak_bytes is not None]
    if not rows:
        return None
    decimals = mib_decimals(ranking.rows)
    records = [row.entry.record for row in rows]
    return saying_something(
        [
            name_column(ranking, rows=rows),
            word_column("rank", (_word(_forecast(record, "rank")) for record in records)),
            mib_column(
                "forecast MiB",
                (record.forecast_peak_bytes for record in records),
                decimals=decimals,
            ),
            mib_column("measured MiB", map(_measured_bytes, records), decimals=decimals),
            Column(
                title="error",
                cells=tuple(as_percent(record.forecast_error_ratio) for record in records),
            ),
            word_column("by", (_METHODS.get(_forecast(record, "method")) for record in records)),
            word_column("verdict", (_word(_forecast(record, "verdict")) for record in records)),
        ]
    )


def _word(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else _PLACES.get(str(value), str(value))


def _ms(ranks: Sequence[RankRow], part: str) -> list[float | None]:
    seconds = [getattr(rank.step_s, part) for rank in ranks]
    return [None if value is None else value * 1e3 for value in seconds]


def _difference(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _differing_step(row: Row) -> int | None:
    """Where the largest difference is; nowhere in particular where there is none."""
    return row.loss.at_step if row.loss.max_difference else None


def _forecast(record: RunRecord, key: str) -> Any:
    return (record.forecast or {}).get(key)


def _measured_bytes(record: RunRecord) -> int | None:
    """The peak of the rank that the forecast is of; of the fullest where that is not known."""
    rank = _forecast(record, "rank")
    known = [row.peak_bytes for row in record.ranks if row.rank == rank]
    return known[0] if known else record.peak_bytes
