import pytest

from orchestrator.forecast.accuracy import (
    GROUPINGS,
    accuracy,
    accuracy_markdown,
    accuracy_text,
    nearest_rank,
)
from orchestrator.forecast.receipts import Receipt


def receipt(run_key="run", **settings):
    """A receipt whose phases are given as (forecast, measured) bytes, in `phases`."""
    phases = settings.pop("phases", {"init": (100, 100)})
    values = {
        "run_key": run_key,
        "time_unix_s": 1e9,
        "strategy": "zero-1",
        "stage": 1,
        "offload_optimizer": "none",
        "offload_params": "none",
        "precision": "fp32",
        "activation_checkpointing": False,
        "workers": 2,
        "micro_batch_size": 1,
        "accumulation_steps": 1,
        "device": "cpu",
        "model": "mlp",
        "method": "shadow",
        "versions": {},
        "rank": 0,
        "forecast": {phase: {"params": forecast} for phase, (forecast, _) in phases.items()},
        "measured": {phase: {"params": measured} for phase, (_, measured) in phases.items()},
        "forecast_host_bytes": None,
        "measured_host_bytes": None,
        "forecast_nvme_bytes": None,
        "measured_nvme_bytes": None,
        "forecast_reserved_bytes": None,
        "measured_reserved_bytes": None,
        "forecast_device_bytes": None,
        "measured_device_bytes": None,
        "forecast_step_s": None,
        "measured_step_s": None,
        **settings,
    }
    return Receipt(**values)


def peaks(*errors):
    """A receipt for each error, in thousandths of what was measured."""
    return [
        receipt(f"run-{i}", phases={"step": (1000 + error, 1000)}) for i, error in enumerate(errors)
    ]


# By hand: the ceil(P n / 100)-th smallest of 1, 2, ..., n is that very number.
@pytest.mark.parametrize(
    ("n", "percent", "value"),
    [
        (1, 50, 1), (1, 95, 1), (2, 50, 1), (3, 50, 2), (4, 50, 2), (10, 95, 10), (19, 95, 19),
        (20, 95, 19), (21, 95, 20), (100, 95, 95), (100, 1, 1), (100, 100, 100), (300, 35, 105),
    ],
)  # fmt: skip
def test_a_percentile_is_the_value_of_the_nearest_rank(n, percent, value):
    assert nearest_rank(range(n, 0, -1), percent=percent) == value


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_no_value_and_no_such_percentile_are_refused(values, percent):
    with pytest.raises(ValueError, match="no percentile"):
        nearest_rank(values, percent=percent)


def test_the_peak_row_has_median_p95_worst_and_shares_under():
    row, _ = accuracy(peaks(0, 1, -10, -11, 30), by=())
    assert (row.observed, row.n, row.group) == ("peak", 5, {})
    # Sizes in order: 0, 1, 10, 11, 30 thousandths; the third and the fifth.
    assert (row.median_ratio, row.p95_ratio) == (0.01, 0.03)
    assert (row.worst.error_ratio, row.worst.run_key, row.worst.phase) == (0.03, "run-4", "step")
    # Under are -10 and -11; by more than 1 % only -11.
    assert (row.under_ratio, row.noticed_under_ratio) == (0.4, 0.2)


def test_the_worst_keeps_its_sign_and_of_equals_is_the_one_that_is_under():
    row, _ = accuracy(peaks(50, -50, 50), by=())
    assert (row.worst.error_ratio, row.worst.run_key) == (-0.05, "run-1")


def test_the_smallest_under_estimate_is_one():
    row, _ = accuracy([receipt(phases={"init": (10**12 - 1, 10**12)})], by=())
    assert (row.under_ratio, row.noticed_under_ratio) == (1.0, 0.0)


def test_every_phase_of_every_receipt_is_an_observation_of_the_phase_row():
    receipts = [
        receipt("a", phases={"init": (100, 100), "forward": (180, 200), "backward": (300, 300)}),
        receipt("b", rank=3, phases={"init": (99, 100), "step": (420, 400)}),
    ]
    peak, phase = accuracy(receipts, by=())
    assert (peak.n, phase.n) == (2, 5)
    # Peaks are off by 0 and 5 %; phases by 0, 10, 0, 1 and 5 %.
    assert (peak.median_ratio, peak.p95_ratio, peak.under_ratio) == (0.0, 0.05, 0.0)
    assert (phase.median_ratio, phase.p95_ratio, phase.under_ratio) == (0.01, 0.1, 0.4)
    assert phase.noticed_under_ratio == 0.2
    assert (peak.worst.run_key, peak.worst.rank, peak.worst.phase) == ("b", 3, "step")
    assert (phase.worst.run_key, phase.worst.rank, phase.worst.phase) == ("a", 0, "forward")


def test_groups_come_in_the_order_of_their_values_and_all_together_last():
    receipts = [
        receipt(stage=3, offload_optimizer="cpu"),
        receipt(stage=3),
        receipt(stage=0),
        receipt(stage=3, device="NVIDIA H100"),
        receipt(stage=3),
    ]
    rows = [row for row in accuracy(receipts) if row.observed == "peak"]
    assert [(*row.group.values(), row.n) for row in rows] == [
        ("0", "none", "cpu", 1),
        ("3", "none", "NVIDIA H100", 1),
        ("3", "none", "cpu", 2),
        ("3", "optimizer cpu", "cpu", 1),
        (5,),
    ]
    assert list(rows[0].group) == ["stage", "offload", "device"]


def test_numbers_sort_as_numbers():
    receipts = [receipt(workers=workers) for workers in (16, 2, 4)]
    groups = [row.group for row in accuracy(receipts, by=("workers",))]
    assert groups[::2] == [{"workers": "2"}, {"workers": "4"}, {"workers": "16"}, {}]


@pytest.mark.parametrize("name", GROUPINGS)
def test_receipts_can_be_grouped_by_each_name_that_is_offered(name):
    (value,) = accuracy([receipt()], by=(name,))[0].group.values()
    assert value


def test_an_unknown_grouping_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ValueError, match="cannot group by colour; there are stage, offload"):
        accuracy([receipt()], by=("stage", "colour"))


def test_a_receipt_without_measurement_counts_nowhere():
    unmeasured = receipt(stage=2, measured={})
    rows = accuracy([receipt(), unmeasured])
    assert [row.n for row in rows] == [1, 1, 1, 1]
    assert accuracy([unmeasured]) == accuracy([]) == ()


RECEIPTS = [
    receipt("long-run", phases={"init": (100, 100), "step": (1962, 2000)}),
    receipt("b", phases={"init": (100, 100)}, offload_optimizer="cpu"),
]


def test_the_text_is_aligned_and_has_errors_in_percent():
    # Of long-run's phases one is as forecast, one 38 of 2000 bytes under.
    head, *lines = accuracy_text(accuracy(RECEIPTS, by=("stage", "offload"))).splitlines()
    assert head == (
        "stage  offload        of     n  median     P95    worst  worst run                 under"
        "  under by > 1 %"
    )
    assert [lines[0], lines[3], lines[5]] == [
        "1      none           peak   1  1.90 %  1.90 %  -1.90 %  long-run, rank 0, step  100.0 %"
        "         100.0 %",
        "1      optimizer cpu  phase  1  0.00 %  0.00 %   0.00 %  b, rank 0, init           0.0 %"
        "           0.0 %",
        "all                   phase  3  0.00 %  1.90 %  -1.90 %  long-run, rank 0, step   33.3 %"
        "          33.3 %",
    ]
    assert len(lines) == 6


def test_the_markdown_has_a_rule_and_escapes_bars():
    rows = accuracy([receipt("b", device="odd|device")], by=("device", "activation_checkpointing"))
    assert accuracy_markdown(rows[:1]).splitlines() == [
        "| device | activation checkpointing | of | n | median | P95 | worst | worst run | under"
        " | under by > 1 % |",
        "|---|---|---|---:|---:|---:|---:|---|---:|---:|",
        "| odd\\|device | no | peak | 1 | 0.00 % | 0.00 % | 0.00 % | b, rank 0, init | 0.0 %"
        " | 0.0 % |",
    ]


def test_without_groups_there_is_one_column_that_says_all():
    head, *lines = accuracy_text(accuracy(RECEIPTS, by=())).splitlines()
    assert head.split()[:3] == ["receipts", "of", "n"]
    assert [line.split()[:3] for line in lines] == [["all", "peak", "2"], ["all", "phase", "3"]]


def test_of_no_receipts_the_tables_say_so():
    assert accuracy_text(()) == "no forecast has been measured"
    assert accuracy_markdown(()) == "No forecast has been measured."
