import csv
import io

import pytest

from orchestrator.measure.run_record import RankRow, StepTimes
from orchestrator.measure.table import rank_csv, rank_table
from orchestrator.units import MIB


def row(rank, **changes):
    times = StepTimes(
        median=0.35, p95=0.4, data=0.01, forward=0.1, backward=0.2, communication=None,
        optimizer=0.03,
    )  # fmt: skip
    settings = {
        "rank": rank,
        "node": "node-a",
        "device": "cpu",
        "phase_peak_bytes": {"init": MIB, "forward": 2 * MIB, "backward": 1536 * MIB, "step": MIB},
        "ledger": None,
        "rss_peak_bytes": 700 * MIB,
        "host_bytes": None,
        "nvme_bytes": None,
        "samples_per_s": 91.25,
        "step_s": times,
        **changes,
    }
    return RankRow(**settings)


def test_the_table_is_aligned_and_leaves_out_what_nobody_knows():
    assert rank_table([row(0), row(1, samples_per_s=8.0)]).splitlines() == [
        "rank  node    device  peak MiB  at        RSS MiB  samples/s  step ms  data  forward"
        "  backward  optimizer",
        "   0  node-a  cpu      1,536.0  backward    700.0       91.2    350.0  10.0    100.0"
        "     200.0       30.0",
        "   1  node-a  cpu      1,536.0  backward    700.0        8.0    350.0  10.0    100.0"
        "     200.0       30.0",
    ]


def test_what_one_rank_does_not_know_is_a_dash():
    table = rank_table([row(0, host_bytes=3 * MIB), row(1)])
    assert "host MiB" in table.splitlines()[0]
    assert " - " in table.splitlines()[2]


@pytest.mark.parametrize("n_ranks", [2, 16, 17, 64])
def test_the_table_fits_a_screen_whatever_the_number_of_ranks(n_ranks):
    lines = rank_table([row(rank) for rank in range(n_ranks)]).splitlines()
    assert len(lines) <= 17
    assert max(map(len, lines)) <= 120


def test_beyond_16_ranks_the_spread_is_shown_and_the_extremes_are_named():
    rows = [row(rank, samples_per_s=float(rank)) for rank in range(63)]
    peaks = {"init": 2048 * MIB, "forward": None, "backward": None, "step": None}
    slow = StepTimes(
        median=0.9, p95=None, data=None, forward=None, backward=None, communication=None,
        optimizer=None,
    )  # fmt: skip
    rows.append(row(63, node="node-z", phase_peak_bytes=peaks, step_s=slow, samples_per_s=None))
    head, low, middle, high, full, late = rank_table(rows).splitlines()
    column = head.index("samples/s")
    assert [line[column : column + 9].strip() for line in (low, middle, high)] == [
        "0.0", "31.0", "62.0",
    ]  # fmt: skip
    assert full == "fullest: rank 63 (node-z, cpu), 2,048.0 MiB at init"
    assert late == "slowest: rank 63 (node-z, cpu), 900.0 ms a step"


def test_no_ranks_are_said_to_be_none():
    assert rank_table([]) == "no rank has reported anything"


def test_csv_has_a_line_a_rank_in_bytes_and_seconds():
    lines = list(csv.DictReader(io.StringIO(rank_csv([row(0), row(1, node="a, b")]))))
    assert [line["rank"] for line in lines] == ["0", "1"]
    assert lines[0]["peak_bytes"] == str(1536 * MIB)
    assert lines[0]["step_median_s"] == "0.35"
    assert lines[0]["host_bytes"] == lines[0]["step_communication_s"] == ""
    assert lines[1]["node"] == "a, b"
