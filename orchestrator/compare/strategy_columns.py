"""Columns about strategies: their costs beside the baseline's, and what filled their memory.

Pure text.
"""

from collections.abc import Callable, Sequence

from orchestrator.compare.columns import (
    BASE,
    UNKNOWN,
    Column,
    decimals_for,
    interval,
    mib_column,
    number,
    number_column,
    saying_something,
    word_column,
)
from orchestrator.compare.ranking import Ranking, Ratio, Row, Sameness
from orchestrator.forecast.accuracy import as_percent
from orchestrator.measure.ledger import CATEGORIES, UNATTRIBUTED
from orchestrator.measure.metric_def import in_mib
from orchestrator.measure.run_record import RankRow
from orchestrator.units import as_bytes

NOT_SHOWN = "no difference shown"
_MOST_NAMED = 6
"""Beyond so many strategies a sentence counts them."""
SAMENESS_WORDS = {
    Sameness.BITWISE: "to the last bit",
    Sameness.ROUNDING: "within rounding",
    Sameness.DIFFERENT: "DIFFERENT",
    Sameness.NOT_COMPARABLE: "not comparable",
    Sameness.UNKNOWN: UNKNOWN,
}


def strategy_columns(ranking: Ranking) -> list[Column]:
    """The columns of the main table, those without any value left out."""
    rows = ranking.rows
    speeds = [row.throughput for row in rows]
    per_s = _speed_decimals(rows)
    ratio = _ratio_decimals(rows)
    losses = [_final_loss(row) for row in rows]
    return saying_something(
        [
            Column(title="*", cells=tuple("*" if row.pareto else "" for row in rows), words=True),
            name_column(ranking),
            word_column("outcome", (row.entry.record.outcome for row in rows)),
            mib_column("peak MiB", _peaks(rows), decimals=mib_decimals(rows)),
            _beside(ranking, "x base", lambda row: number(row.peak_ratio, decimals=2)),
            *_elsewhere(rows),
            number_column(
                "samples/s", (s.samples_per_s if s else None for s in speeds), decimals=per_s
            ),
            Column(
                title="95 % interval",
                cells=tuple(interval(s.interval if s else None, decimals=per_s) for s in speeds),
            ),
            _beside(ranking, "speed x base", lambda row: _speed(row.speed_ratio, decimals=ratio)),
            Column(
                title="ratio's 95 %",
                cells=tuple(
                    interval(speed.interval if speed else None, decimals=ratio)
                    for speed in (row.speed_ratio for row in rows)
                ),
            ),
            Column(title="MFU", cells=tuple(_share(row.entry.record.mfu_ratio) for row in rows)),
            number_column("final loss", losses, decimals=loss_decimals(losses)),
            _beside(ranking, "same loss", lambda row: SAMENESS_WORDS[row.loss.sameness]),
            Column(
                title="forecast error",
                cells=tuple(as_percent(row.entry.record.forecast_error_ratio) for row in rows),
            ),
        ]
    )


def ledger_columns(ranking: Ranking) -> list[Column] | None:
    """The fullest rank's ledger at its peak, in MiB; `None` where nothing was traced."""
    rows = [row for row in ranking.rows if _ledger(row)]
    if not rows:
        return None
    # A category that nobody uses says nothing; that nothing is unattributed does.
    used = [
        name
        for name in CATEGORIES
        if name == UNATTRIBUTED or any(_ledger(row).get(name) for row in rows)
    ]
    decimals = mib_decimals(rows)
    lines = [
        mib_column(name, (_ledger(row).get(name) for row in rows), decimals=decimals)
        for name in used
    ]
    return saying_something(
        [
            name_column(ranking, rows=rows),
            mib_column("peak MiB", _peaks(rows), decimals=decimals),
            *lines,
            mib_column("cached", (_fullest(row, _cached_bytes) for row in rows), decimals=decimals),
            mib_column(
                "context", (_fullest(row, _context_bytes) for row in rows), decimals=decimals
            ),
            *_elsewhere(rows, titles=("on host", "on NVMe")),
        ]
    )


def most_shrunk(ranking: Ranking) -> list[str]:
    """Which category of each strategy's ledger is most below the baseline's, a text a category.

    Strategies that hold no less of anything are left out; more than a few are counted.
    """
    base = next((_ledger(row) for row in ranking.rows if row.name == ranking.baseline), {})
    found: dict[str, dict[str, int]] = {}
    for row in ranking.rows:
        ledger = _ledger(row)
        less_bytes = {name: base.get(name, 0) - ledger.get(name, 0) for name in CATEGORIES}
        most = max(CATEGORIES, key=lambda name: less_bytes[name])
        if ledger and less_bytes[most] > 0:
            found.setdefault(most, {})[row.name] = less_bytes[most]
    return [f"{name} in {_by_how_much(found[name])}" for name in CATEGORIES if name in found]


def name_column(ranking: Ranking, *, rows: Sequence[Row] | None = None) -> Column:
    """The names of strategies, the baseline marked."""
    return word_column(
        "strategy",
        (
            f"{row.name} ({BASE})" if row.name == ranking.baseline else row.name
            for row in (ranking.rows if rows is None else rows)
        ),
    )


def mib_decimals(rows: Sequence[Row]) -> int:
    """Decimals for MiB: one, and more where a model is so small that one would say nothing."""
    peaks = [peak for row in rows if (peak := in_mib(row.entry.peak_bytes)) is not None]
    return 1 if max(peaks, default=0) >= 10 else decimals_for(peaks, least=1)


def loss_decimals(losses: Sequence[float | None]) -> int:
    """Decimals for losses: four, and six where one is so small that four would say nothing."""
    return 4 if all(not loss or not abs(loss) < 1e-3 for loss in losses) else 6


def _by_how_much(less_bytes: dict[str, int]) -> str:
    if len(less_bytes) <= _MOST_NAMED:
        return ", ".join(f"{name} by {as_bytes(size)}" for name, size in less_bytes.items())
    low, high = min(less_bytes.values()), max(less_bytes.values())
    by = as_bytes(low) if low == high else f"{as_bytes(low)} to {as_bytes(high)}"
    return f"{len(less_bytes)} strategies by {by}"


def _beside(ranking: Ranking, title: str, cell: Callable[[Row], str]) -> Column:
    """A column of what is held against the baseline."""
    return Column(
        title=title,
        cells=tuple(BASE if row.name == ranking.baseline else cell(row) for row in ranking.rows),
        words=title == "same loss",
    )


def _elsewhere(
    rows: Sequence[Row], *, titles: tuple[str, str] = ("host MiB", "NVMe MiB")
) -> list[Column]:
    """What the fullest rank keeps on the host and on NVMe, where any strategy does."""
    columns = []
    for title, held in zip(titles, (_host_bytes, _nvme_bytes), strict=True):
        sizes = [_fullest(row, held) for row in rows]
        if any(sizes):
            columns.append(mib_column(title, sizes, decimals=mib_decimals(rows)))
    return columns


def _fullest(row: Row, held: Callable[[RankRow], int | None]) -> int | None:
    fullest = row.entry.record.fullest
    return None if fullest is None else held(fullest)


def _host_bytes(rank: RankRow) -> int | None:
    return rank.host_bytes


def _nvme_bytes(rank: RankRow) -> int | None:
    return rank.nvme_bytes


def _cached_bytes(rank: RankRow) -> int | None:
    return rank.cuda.cached_bytes if rank.cuda else None


def _context_bytes(rank: RankRow) -> int | None:
    return rank.gpu.beyond_allocator_bytes if rank.gpu else None


def _ledger(row: Row) -> dict[str, int]:
    fullest = row.entry.record.fullest
    return (fullest.ledger if fullest else None) or {}


def _peaks(rows: Sequence[Row]) -> list[int | None]:
    return [row.entry.peak_bytes for row in rows]


def _final_loss(row: Row) -> float | None:
    """The last loss of a run that ended; that of another is of some step before."""
    losses = row.entry.record.losses
    return losses[-1] if losses and row.entry.is_ok else None


def _speed(ratio: Ratio | None, *, decimals: int) -> str:
    if ratio is None:
        return UNKNOWN
    return number(ratio.ratio, decimals=decimals) if ratio.difference_shown else NOT_SHOWN


def _speed_decimals(rows: Sequence[Row]) -> int:
    """Decimals of samples/s: so many that no interval seems to have no width."""
    speeds = [row.throughput for row in rows if row.throughput is not None]
    widths = [high - low for low, high in (speed.interval for speed in speeds)]
    by_width = decimals_for(100 * width for width in widths)
    return max(by_width, decimals_for(speed.samples_per_s for speed in speeds))


def _ratio_decimals(rows: Sequence[Row]) -> int:
    """Two, and three where an interval that leaves out 1 would seem to touch it."""
    ratios = [row.speed_ratio for row in rows if row.speed_ratio is not None]
    shown = [bound for ratio in ratios if ratio.difference_shown for bound in ratio.interval]
    return 3 if any(abs(bound - 1) < 5e-3 for bound in shown) else 2


def _share(ratio: float | None) -> str:
    return UNKNOWN if ratio is None else f"{ratio:.1%}".replace("%", " %")
