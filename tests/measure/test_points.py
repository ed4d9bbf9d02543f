import math
import re

import pytest

from orchestrator.measure.ledger import CATEGORIES
from orchestrator.measure.metrics import METRICS
from orchestrator.measure.peaks import RankPeaks, RankStep
from orchestrator.measure.points import (
    MetricPoint,
    changes_rarely,
    eval_points,
    finite,
    job_points,
    node_points,
    rank_label,
    rank_points,
    spread_points,
    summary_points,
)
from orchestrator.measure.summary import summarize
from orchestrator.units import MIB

NAMES = {
    "train/loss", "train/lr", "train/grad_norm", "train/skipped_steps",
    "eval/loss", "eval/accuracy",
    "forecast/peak_mib", "forecast/error_ratio",
    "throughput/samples_per_s", "throughput/tokens_per_s", "throughput/tflops_per_s",
    "throughput/mfu_ratio", "throughput_per_rank/{rank}", "tflops_per_rank/{rank}",
    "memory_peak_mib/{rank}", "memory_reserved_mib/{rank}", "memory_rss_mib/{rank}",
    "memory_pss_mib/{rank}", "memory_host_mib/{rank}", "memory_nvme_mib/{rank}",
    "memory_params_mib/{rank}", "memory_gradients_mib/{rank}", "memory_optimizer_mib/{rank}",
    "memory_activations_mib/{rank}", "memory_buffers_mib/{rank}", "memory_gathered_mib/{rank}",
    "memory_temporaries_mib/{rank}", "memory_unattributed_mib/{rank}",
    "memory_cached_mib/{rank}", "memory_fragmented_mib/{rank}", "memory_context_mib/{rank}",
    "gpu_utilization_ratio/{rank}", "gpu_power_w/{rank}",
    "time_ms/step", "time_ms/data", "time_ms/forward", "time_ms/backward", "time_ms/optimizer",
    "time_ms/communication", "time_ms/checkpoint", "time_ms/logging",
    "time_ms_step/{rank}", "time_ms_data/{rank}", "time_ms_forward/{rank}",
    "time_ms_backward/{rank}", "time_ms_optimizer/{rank}", "time_ms_communication/{rank}",
    "time_ms_checkpoint/{rank}", "time_ms_logging/{rank}",
    "summary/peak_mib", "summary/samples_per_s", "summary/tokens_per_s", "summary/tflops_per_s",
    "summary/mfu_ratio", "summary/unattributed_ratio", "summary/host_mib", "summary/final_loss",
    "summary/accuracy", "summary/startup_s",
    "summary/peak_params_mib", "summary/peak_gradients_mib", "summary/peak_optimizer_mib",
    "summary/peak_activations_mib", "summary/peak_buffers_mib", "summary/peak_gathered_mib",
    "summary/peak_temporaries_mib", "summary/peak_unattributed_mib",
    "summary/step_ms", "summary/data_ms", "summary/forward_ms", "summary/backward_ms",
    "summary/optimizer_ms", "summary/communication_ms", "summary/checkpoint_ms",
    "summary/logging_ms",
}  # fmt: skip


def values_of(points):
    return {point.key: point.value for point in points}


def step_of(*samples):
    return {s.rank: RankStep(sample=s, peaks=RankPeaks().after_sample(s)) for s in samples}


def points_of(ranks, *, world_size):
    """All that can be told of a step whose ranks have all reported."""
    steps = list(ranks.values())
    single = [point for step in steps for point in rank_points(step, world_size=world_size)]
    return [*job_points(steps), *spread_points(steps), *single]


def test_the_table_holds_the_names_of_the_design_once_each():
    assert sorted(metric.name for metric in METRICS) == sorted(NAMES)


def test_every_metric_says_its_unit_and_meaning():
    assert all(metric.unit and metric.meaning for metric in METRICS)


def test_names_hold_only_what_mlflow_draws_as_one_section():
    assert all(re.fullmatch(r"[a-z_]+/([a-z_]+|\{rank\})", metric.name) for metric in METRICS)


def test_the_loss_is_the_mean_over_ranks(sample):
    points = values_of(points_of(step_of(sample(loss=1.0), sample(rank=1, loss=4.0)), world_size=2))
    assert points["train/loss"] == 2.5


def test_throughput_is_all_samples_over_the_time_of_the_slowest_rank(sample):
    ranks = step_of(
        sample(n_samples=8, n_tokens=80, step_s=0.5),
        sample(rank=1, n_samples=8, n_tokens=80, step_s=0.8),
    )
    points = values_of(points_of(ranks, world_size=2))
    assert points["throughput/samples_per_s"] == pytest.approx(20)
    assert points["throughput/tokens_per_s"] == pytest.approx(200)
    assert points["throughput_per_rank/rank_00"] == pytest.approx(16)
    assert points["throughput_per_rank/rank_01"] == pytest.approx(10)


def test_a_probe_step_has_loss_and_communication_but_no_throughput_and_no_other_time(sample):
    ranks = step_of(
        sample(probe=True, communication_s=0.02, n_tokens=80),
        sample(rank=1, probe=True, communication_s=0.04, n_tokens=80),
    )
    points = values_of(points_of(ranks, world_size=2))
    assert points["train/loss"] == 2.0
    assert points["time_ms/communication"] == pytest.approx(30)
    assert points["time_ms_communication/rank_01"] == pytest.approx(40)
    assert not [key for key in points if key.startswith("throughput")]
    assert [k for k in points if k.startswith("time_ms/")] == ["time_ms/communication"]


def test_parts_of_a_step_add_up_to_no_more_than_the_step(sample):
    ranks = step_of(
        sample(step_s=0.5, data_s=0.3, forward_s=0.1, backward_s=0.1, optimizer_s=0.0),
        sample(rank=1, step_s=0.5, data_s=0.0, forward_s=0.2, backward_s=0.2, optimizer_s=0.1),
    )
    points = values_of(points_of(ranks, world_size=2))
    parts = ("data", "forward", "backward", "optimizer")
    assert sum(points[f"time_ms/{part}"] for part in parts) <= points["time_ms/step"] + 1e-9
    assert points["time_ms/forward"] == pytest.approx(150)
    assert points["time_ms_forward/rank_01"] == pytest.approx(200)


def test_what_is_unknown_is_absent(sample):
    points = values_of(points_of(step_of(sample(grad_norm=None)), world_size=1))
    absent = ("train/grad_norm", "throughput/tokens_per_s", "time_ms/communication")
    assert not points.keys() & set(absent)
    assert not [key for key in points if key.startswith(("memory_peak", "memory_nvme"))]
    assert points["memory_rss_mib/rank_00"] == 300


def test_points_carry_the_step_and_the_time_of_the_record(sample):
    ranks = step_of(sample(step=7, time_unix_s=10.5), sample(rank=1, step=7, time_unix_s=10.75))
    points = {point.key: point for point in points_of(ranks, world_size=2)}
    assert {point.step for point in points.values()} == {7}
    assert points["memory_rss_mib/rank_00"].time_ms == 10500
    assert points["train/loss"].time_ms == 10750


def test_ranks_sort_as_text_as_they_do_as_numbers():
    assert rank_label(3, world_size=4) == "rank_03"
    assert rank_label(99, world_size=100) == "rank_99"
    labels = [rank_label(rank, world_size=101) for rank in range(101)]
    assert labels[7] == "rank_007"
    assert labels == sorted(labels)


def test_spread_is_of_the_ranks_that_know_and_sorts_before_them(sample):
    ranks = step_of(
        *(sample(rank=rank, rss_peak_bytes=(rank + 1) * MIB) for rank in range(3)),
        *(sample(rank=rank, rss_peak_bytes=None) for rank in range(3, 20)),
    )
    points = [p for p in points_of(ranks, world_size=20) if p.key.startswith("memory_rss_mib/")]
    assert values_of(points) == {
        "memory_rss_mib/max": 3,
        "memory_rss_mib/median": 2,
        "memory_rss_mib/min": 1,
        "memory_rss_mib/rank_00": 1,
        "memory_rss_mib/rank_01": 2,
        "memory_rss_mib/rank_02": 3,
    }
    keys = [point.key for point in points]
    assert keys == sorted(keys)


def test_spread_is_told_at_the_time_of_the_last_rank(sample):
    ranks = step_of(*(sample(rank=rank, step=7, time_unix_s=10.0 + rank) for rank in range(17)))
    assert {(p.step, p.time_ms) for p in spread_points(list(ranks.values()))} == {(7, 26_000)}


def test_running_peaks_and_what_they_were_are_the_lines_that_change_rarely(sample):
    ledger = dict.fromkeys(CATEGORIES, MIB)
    facts_known = RankPeaks(device_bytes=8 * MIB, ledger=ledger, pss_bytes=1, host_bytes=1)
    step = RankStep(sample=sample(), peaks=facts_known.after_sample(sample()))
    told = rank_points(step, world_size=1)
    assert {point.key.removesuffix("/rank_00") for point in told if changes_rarely(point)} == {
        "memory_peak_mib", "memory_rss_mib", "memory_pss_mib", "memory_host_mib",
        "memory_params_mib", "memory_gradients_mib", "memory_optimizer_mib",
        "memory_activations_mib", "memory_buffers_mib", "memory_gathered_mib",
        "memory_temporaries_mib", "memory_unattributed_mib",
    }  # fmt: skip


def test_a_machine_is_named_as_mlflows_own_monitor_names_it(node_sample):
    sample = node_sample(time_unix_s=12.5, values={"cpu_utilization_percentage": 40.0})
    assert node_points(sample, label="node_0", step=3) == [
        MetricPoint(
            key="system/node_0/cpu_utilization_percentage", value=40.0, step=3, time_ms=12_500
        )
    ]


def test_an_evaluation_without_accuracy_has_only_a_loss(evaluation):
    assert values_of(eval_points(evaluation(accuracy=None))) == {"eval/loss": 1.5}
    assert values_of(eval_points(evaluation())) == {"eval/loss": 1.5, "eval/accuracy": 0.75}


def test_values_that_are_not_finite_are_left_out():
    points = [
        MetricPoint(key=str(value), value=value, step=1, time_ms=1)
        for value in (math.nan, math.inf, -math.inf, 0.0)
    ]
    assert values_of(finite(points)) == {"0.0": 0.0}


def test_the_summary_is_one_point_a_metric_at_step_0(facts, sample, evaluation):
    records = [
        facts(world_size=1),
        *(sample(step=step, time_unix_s=1000.0 + step, loss=4.0 - step) for step in (1, 2, 3)),
        evaluation(),
    ]
    run = summarize(records, name="x", outcome="ok", started_unix_s=995.0)
    points = summary_points(run, time_ms=5)
    assert {(point.step, point.time_ms) for point in points} == {(0, 5)}
    assert values_of(points) == {
        "summary/peak_mib": 10,
        "summary/samples_per_s": 16,
        "summary/step_ms": 500,
        "summary/data_ms": 50,
        "summary/forward_ms": 100,
        "summary/backward_ms": 200,
        "summary/optimizer_ms": 100,
        "summary/logging_ms": 30,
        "summary/final_loss": 1,
        "summary/accuracy": 0.75,
        "summary/startup_s": 6,
    }


def test_the_summary_s_ledger_is_the_fullest_rank_s_and_its_times_the_slowest_s(facts, sample):
    ledgers = [dict.fromkeys(CATEGORIES, n_mib * MIB) for n_mib in (1, 2)]
    records = [
        *(
            facts(rank=rank, init_peak_bytes=8 * (rank + 1) * MIB, init_peak_ledger=ledger)
            for rank, ledger in enumerate(ledgers)
        ),
        *(
            sample(rank=rank, step=1, step_s=2.0 - rank, forward_s=0.5 - 0.1 * rank)
            for rank in (0, 1)
        ),
    ]
    run = summarize(records, name="x", outcome="ok", started_unix_s=None)
    told = values_of(summary_points(run, time_ms=5))
    assert {told[f"summary/peak_{category}_mib"] for category in CATEGORIES} == {2}
    assert (
        sum(told[f"summary/peak_{category}_mib"] for category in CATEGORIES)
        == told["summary/peak_mib"]
    )
    assert (told["summary/step_ms"], told["summary/forward_ms"]) == (2000, 500)


def test_the_peak_is_the_largest_of_construction_and_phases(facts, sample):
    peaks = RankPeaks().after_facts(facts(init_peak_bytes=7 * MIB))
    assert peaks.device_bytes == 7 * MIB
    traced = sample(phase_peak_bytes={"forward": 9 * MIB, "backward": 11 * MIB, "step": 2 * MIB})
    assert peaks.after_sample(traced).device_bytes == 11 * MIB
    assert peaks.after_sample(sample()).device_bytes == 7 * MIB
