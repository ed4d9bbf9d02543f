"""Rankings written by hand, for pictures. What a test does not speak of is unknown."""

from dataclasses import replace

from orchestrator.compare.ranking import LossVerdict, Ranking, Row, Sameness, Throughput
from orchestrator.measure.run_record import StepTimes
from tests.compare.made_up import entry
from tests.draw.runs import filled

EQUAL = LossVerdict(sameness=Sameness.BITWISE, max_difference=0.0, at_step=1, reason="")


def verdict(sameness, max_difference=None):
    return LossVerdict(sameness=sameness, max_difference=max_difference, at_step=1, reason="")


def row(name="zero0", *, speed=100.0, spread=2.0, pareto=False, loss=EQUAL, **knobs):
    """A strategy; its peak is 20 MiB on rank 0 and 21 on rank 1, for which see `made_up`.

    Args:
        speed: samples/s; `None` where none were measured.
        spread: how far each end of its interval is away.
        knobs: of `made_up.entry`.
    """
    told = None
    if speed is not None:
        ends = (speed - spread, speed + spread)
        told = Throughput(samples_per_s=speed, quartiles=ends, interval=ends)
    return Row(
        entry=entry(name, **knobs),
        throughput=told,
        speed_ratio=None,
        peak_ratio=None,
        loss=loss,
        pareto=pareto,
    )


def failed(name, outcome="oom", *, message=None, **record):
    """A strategy that never ran."""
    return row(
        name,
        speed=None,
        outcome=outcome,
        message=message,
        rounds=(),
        losses=(),
        loss=verdict(Sameness.UNKNOWN),
        record=record,
    )


def with_ranks(told, **changes):
    """The same row with other fields of its ranks."""
    record = told.entry.record
    ranks = tuple(replace(rank, **changes) for rank in record.ranks)
    return replace(told, entry=replace(told.entry, record=replace(record, ranks=ranks)))


def with_times(told, **times):
    """The same row with these step times, in seconds, on all ranks; the other parts are unknown."""
    return with_ranks(told, step_s=filled(StepTimes, **times))


def ranking(*rows, baseline="first", budget_bytes=None, winners=None):
    """The first of them is the baseline unless another is named."""
    if baseline == "first":
        baseline = rows[0].name if rows and rows[0].entry.is_ok else None
    base = next((row for row in rows if row.name == baseline), None)
    base_bytes = None if base is None else base.entry.peak_bytes
    return Ranking(
        rows=tuple(
            replace(row, peak_ratio=_ratio(row.entry.peak_bytes, base_bytes)) for row in rows
        ),
        baseline=baseline,
        winners=winners or {},
        budget_bytes=budget_bytes,
        differences=(),
        not_ranked=(),
    )


def many(n_strategies, *, n_ranks=2, name="zero{i}-optim-cpu-bf16"):
    """So many strategies, each a little smaller and slower than the last; none on the front."""
    return [
        with_times(
            row(
                name.format(i=i),
                speed=200.0 - i,
                ledger_mib={"params": 4, "optimizer": 60 - i, "activations": 6},
                workers=n_ranks,
                losses=(2.0, 1.5, 1.25 + i / 1000),
                loss=verdict(Sameness.ROUNDING, i / 1000) if i else EQUAL,
                record={"forecast_peak_bytes": (70 - i) * 2**20},
            ),
            median=0.1 + i / 1000,
            forward=0.03,
            backward=0.05,
        )
        for i in range(n_strategies)
    ]


def _ratio(n_bytes, base_bytes):
    return None if n_bytes is None or not base_bytes else n_bytes / base_bytes
