import csv
import io

import pytest

from orchestrator.measure.ledger import empty_ledger
from orchestrator.measure.run_record import RankRow, StepTimes
from orchestrator.measure.sample import CudaMemory, GpuState
from orchestrator.measure.table import ledger_csv, ledger_table, rank_csv, rank_table
from orchestrator.units import MIB


def row(rank, **changes):
    times = StepTimes(
        median=0.35, p95=0.4, data=0.01, forward=0.1, backward=0.2, communication=None,
        optimizer=0.03, logging=None, checkpoint=None,
    )  # fmt: skip
    settings = {
        "rank": rank,
        "node": "node-a",
        "device": "cpu",
        "phase_peak_bytes": {"init": MIB, "forward": 2 * MIB, "backward": 1536 * MIB, "step": MIB},
        "ledger": None,
        "peak_ledgers": {},
        "edge_ledgers": {},
        "rss_peak_bytes": 700 * MIB,
        "phase_rss_peak_bytes": {},
        "phase_pss_bytes": {},
        "exact_rss": False,
        "container_peak_bytes": None,
        "host_bytes": None,
        "host_ledger": None,
        "nvme_bytes": None,
        "cuda": None,
        "gpu": None,
        "samples_per_s": 91.25,
        "flops_per_s": None,
        "mfu_ratio": None,
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
        "fullest: rank 0 (node-a, cpu), 1,536.0 MiB at backward",
        "slowest: rank 0 (node-a, cpu), 350.0 ms a step",
    ]


def test_one_rank_alone_is_not_called_fullest_or_slowest():
    assert len(rank_table([row(0)]).splitlines()) == 2


def test_what_one_rank_does_not_know_is_a_dash():
    table = rank_table([row(0, host_bytes=3 * MIB), row(1)])
    assert "host MiB" in table.splitlines()[0]
    assert " - " in table.splitlines()[2]


@pytest.mark.parametrize("n_ranks", [2, 16, 17, 64])
def test_the_table_fits_a_screen_whatever_the_number_of_ranks(n_ranks):
    lines = rank_table([row(rank) for rank in range(n_ranks)]).splitlines()
    assert len(lines) <= 19
    assert max(map(len, lines)) <= 120


def test_beyond_16_ranks_the_spread_is_shown_and_the_extremes_are_named():
    rows = [row(rank, samples_per_s=float(rank)) for rank in range(63)]
    peaks = {"init": 2048 * MIB, "forward": None, "backward": None, "step": None}
    slow = StepTimes(
        median=0.9, p95=None, data=None, forward=None, backward=None, communication=None,
        optimizer=None, logging=None, checkpoint=None,
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


def lines_of(text):
    return text.splitlines()


def held(**parts):
    return empty_ledger() | {name: n_mib * MIB for name, n_mib in parts.items()}


def test_the_ledger_table_shows_what_is_there_and_always_what_is_unattributed():
    rows = [
        row(0, ledger=held(params=1000, gradients=536), host_bytes=0),
        row(1, ledger=held(params=1000, gradients=500, unattributed=36), host_bytes=7 * MIB),
    ]
    assert lines_of(ledger_table(rows)) == [
        "rank  peak MiB   params  gradients  unattributed  on host",
        "   0   1,536.0  1,000.0      536.0           0.0      0.0",
        "   1   1,536.0  1,000.0      500.0          36.0      7.0",
    ]


def test_a_gpu_s_cache_and_context_stand_beside_its_ledger():
    cuda = CudaMemory(
        reserved_bytes=2000 * MIB, cached_bytes=400 * MIB, fragmented_bytes=0, n_retries=0
    )
    gpu = GpuState(
        utilization_ratio=0.9,
        used_bytes=2500 * MIB,
        beyond_allocator_bytes=500 * MIB,
        power_w=300.0,
    )
    head, line = lines_of(ledger_table([row(0, ledger=held(params=1536), cuda=cuda, gpu=gpu)]))
    assert head.split() == ["rank", "peak", "MiB", "params", "unattributed", "cached", "context"]
    assert line.split() == ["0", "1,536.0", "1,536.0", "0.0", "400.0", "500.0"]


def test_without_a_trace_there_is_no_ledger_table():
    assert ledger_table([row(0), row(1)]) is None


def test_the_ledger_table_of_64_ranks_is_a_spread():
    rows = [row(rank, ledger=held(params=rank)) for rank in range(64)]
    lines = lines_of(ledger_table(rows))
    assert [line.split()[0] for line in lines] == ["64", "min", "median", "max"]
    assert lines[3].split()[2] == "63.0"


def test_ledger_csv_has_a_line_for_every_peak_every_end_and_the_host():
    one = row(
        0,
        peak_ledgers={"backward": held(params=3, activations=4)},
        edge_ledgers={"backward": held(params=3), "init": held(params=2)},
        host_ledger=held(optimizer=9),
    )
    lines = list(csv.DictReader(io.StringIO(ledger_csv([one]))))
    assert [(line["where"], line["phase"], line["moment"]) for line in lines] == [
        ("device", "backward", "peak"),
        ("device", "init", "end"),
        ("device", "backward", "end"),
        ("host", "", "peak"),
    ]
    assert [int(line["total_bytes"]) // MIB for line in lines] == [7, 2, 3, 9]
    assert lines[0]["activations_bytes"] == str(4 * MIB)
    assert lines[3]["optimizer_bytes"] == str(9 * MIB)
