import json
import math
from itertools import pairwise

import pytest

from orchestrator.measure.ledger import empty_ledger
from orchestrator.measure.sample import ProbedMemory, RankFailure
from orchestrator.measure.summary import RunTally, summarize
from orchestrator.units import MIB


def summed(records, **changes):
    settings = {"name": "x", "outcome": "ok", "started_unix_s": 990.0, **changes}
    return summarize(records, **settings)


@pytest.fixture
def two_ranks(facts, sample):
    """Six steps of two ranks; rank 1 is the slower; step 4 is a probe."""
    step_s = {1: 9.0, 2: 5.0, 3: 1.0, 4: 8.0, 5: 2.0, 6: 4.0}
    records = []
    for rank in (0, 1):
        records.append(facts(rank=rank, node=f"node-{rank}", init_peak_bytes=(10 + rank) * MIB))
        records += [
            sample(
                rank=rank,
                step=step,
                time_unix_s=1000.0 + step + rank,
                loss=10.0 - step + rank,
                n_samples=8,
                n_tokens=80,
                step_s=seconds + rank,
                forward_s=seconds / 10,
                probe=step == 4,
                communication_s=0.25 if step == 4 else None,
                phase_peak_bytes={"forward": 20 * MIB, "backward": 40 * MIB, "step": 30 * MIB}
                if step == 4
                else None,
            )
            for step, seconds in step_s.items()
        ]
    return records


def test_throughput_is_the_median_after_two_steps_without_probes(two_ranks):
    # Steps 3, 5 and 6 count; the slowest rank takes 2, 3 and 5 s for 16 samples.
    run = summed(two_ranks)
    assert run.samples_per_s == pytest.approx(16 / 3)
    assert run.tokens_per_s == pytest.approx(160 / 3)
    # Of 3.2, 5.33 and 8 the quartiles are half-way to the middle.
    assert run.samples_per_s_quartiles == pytest.approx(((3.2 + 16 / 3) / 2, (16 / 3 + 8) / 2))
    assert run.circumstances.warmup_dropped == 2
    assert run.circumstances.probe_steps_dropped == 1
    assert run.circumstances.n_measured_steps == 3


def test_the_speed_of_every_measured_step_can_be_had(two_ranks):
    tally = RunTally()
    for record in two_ranks:
        tally.take(record)
    assert tally.samples_per_s() == pytest.approx([8.0, 16 / 3, 3.2])


def test_rank_times_are_medians_over_the_same_steps(two_ranks):
    first, second = summed(two_ranks).ranks
    assert first.step_s.median == 2
    assert second.step_s.median == 3
    assert first.samples_per_s == pytest.approx(8 / 2)
    assert first.step_s.forward == pytest.approx(0.2)
    assert first.step_s.communication == 0.25
    # The 95th percentile of 1, 2, 4 lies 0.9 of the way from 2 to 4.
    assert first.step_s.p95 == pytest.approx(3.8)


def test_there_is_one_global_loss_an_optimizer_step(two_ranks):
    run = summed(two_ranks)
    assert run.losses == pytest.approx((9.5, 8.5, 7.5, 6.5, 5.5, 4.5))
    assert run.steps == 6


def test_the_peak_of_a_rank_is_its_largest_phase(two_ranks):
    run = summed(two_ranks)
    row = run.ranks[1]
    assert row.phase_peak_bytes == {
        "init": 11 * MIB,
        "forward": 20 * MIB,
        "backward": 40 * MIB,
        "step": 30 * MIB,
    }
    assert (row.peak_bytes, row.peak_phase) == (40 * MIB, "backward")
    assert run.peak_bytes == 40 * MIB


def test_the_first_step_is_timed_from_the_command(two_ranks):
    assert summed(two_ranks).first_step_s == pytest.approx(1002 - 990)
    assert summed(two_ranks, started_unix_s=None).first_step_s is None


def test_startup_parts_are_those_of_the_slowest_rank(facts):
    run = summed([facts(startup_s={"imports": 3.0}), facts(rank=1, startup_s={"imports": 5.0})])
    assert run.startup_s == {"imports": 5.0}


def test_a_run_too_short_for_a_warm_up_says_that_none_was_dropped(facts, sample):
    run = summed([facts(world_size=1), sample(step=1, step_s=2.0), sample(step=2, step_s=2.0)])
    assert run.samples_per_s == 4
    assert run.circumstances.warmup_dropped == 0


def test_a_run_of_probe_steps_has_no_throughput(facts, sample):
    run = summed([facts(world_size=1), sample(probe=True)])
    assert run.samples_per_s is None
    assert run.ranks[0].step_s.median is None
    assert run.circumstances.probe_steps_dropped == 1


def test_a_step_that_lacks_a_rank_has_no_loss_but_its_peak_counts(facts, sample):
    records = [
        facts(),
        facts(rank=1),
        sample(),
        sample(rank=1),
        sample(step=2, rss_peak_bytes=9**12),
    ]
    run = summed(records, outcome="failed")
    assert run.steps == 1
    assert run.ranks[0].rss_peak_bytes == 9**12


def test_steps_that_a_restart_repeats_count_once(facts, sample):
    once = [facts(world_size=1), sample(step=1, loss=3.0), sample(step=2, loss=2.0)]
    run = summed([*once, facts(world_size=1), sample(step=2, loss=1.0)])
    assert run.losses == (3.0, 1.0)


def test_a_failure_leaves_its_message(facts):
    failure = RankFailure(
        rank=0, step=1, time_unix_s=1.0, outcome="oom", message="rank 0: no memory", details="..."
    )
    run = summed([facts(), failure], outcome="oom")
    assert (run.outcome, run.message) == ("oom", "rank 0: no memory")


def test_a_run_without_records_knows_nothing():
    run = summed([], outcome="infeasible")
    assert (run.steps, run.losses, run.ranks) == (0, (), ())
    assert run.samples_per_s is run.first_step_s is run.skipped_steps is run.peak_bytes is None


def test_skipped_steps_are_the_last_count(facts, sample):
    records = [facts(world_size=1), sample(), sample(step=2, skipped_steps=2)]
    assert summed(records).skipped_steps == 2


def test_json_has_the_keys_that_scripts_lean_on(two_ranks, evaluation):
    values = summed([*two_ranks, evaluation()], run_id="abc", versions={"torch": "2"}).to_json()
    assert values.keys() >= {
        "run_id", "name", "outcome", "steps", "losses", "skipped_steps", "samples_per_s",
        "tokens_per_s", "first_step_s", "forecast", "forecast_error_ratio", "ranks",
    }  # fmt: skip
    assert values["ranks"][0].keys() >= {
        "rank", "node", "device", "peak_bytes", "phase_peak_bytes", "ledger", "rss_peak_bytes",
        "host_bytes", "nvme_bytes", "samples_per_s", "step_s",
    }  # fmt: skip
    assert values["ranks"][0]["step_s"].keys() == {
        "median", "p95", "data", "forward", "backward", "communication", "optimizer",
        "logging", "checkpoint",
    }  # fmt: skip
    assert values["ranks"][0]["host_bytes"] is None
    assert values["forecast"] is values["ranks"][0]["ledger"] is None
    assert values["eval"] == {
        "step": 1, "loss": 1.5, "accuracy": 0.75, "n_samples": 16, "seconds": 0.1,
    }  # fmt: skip
    assert values["circumstances"]["versions"] == {"torch": "2"}


def test_json_writes_null_for_a_loss_that_is_no_number(facts, sample):
    run = summed([facts(world_size=1), sample(loss=math.nan)], outcome="diverged")
    assert json.loads(json.dumps(run.to_json(), allow_nan=False))["losses"] == [None]


def test_a_long_run_is_summed_up_from_steps_at_equal_distances_and_keeps_every_loss(facts, sample):
    tally = RunTally(max_samples=100)
    tally.take(facts(world_size=1))
    for step in range(1, 2001):
        peaks = {"forward": 77 * MIB} if step == 777 else None
        tally.take(
            sample(
                step=step,
                loss=float(step),
                step_s=float(step % 2 + 1),
                probe=step in (2, 3, 4),
                phase_peak_bytes=peaks,
            )
        )
    kept = [one.step for one in tally.kept_samples()]
    assert len(kept) <= 101
    assert set(range(1, 17)) < set(kept)
    assert kept[-1] == 2000
    distances = {later - earlier for earlier, later in pairwise(kept[16:-1])}
    assert len(distances) == 1
    run = tally.record(name="x", outcome="ok", started_unix_s=None)
    assert run.losses == tuple(map(float, range(1, 2001)))
    assert run.ranks[0].peak_bytes == 77 * MIB


def test_the_last_step_is_kept_even_where_it_is_none_of_those(facts, sample):
    tally = RunTally(max_samples=20)
    tally.take(facts(world_size=1))
    for step in range(1, 60):
        tally.take(sample(step=step))
    assert [one.step for one in tally.kept_samples()][-1] == 59


def test_operations_a_second_are_those_of_all_ranks_over_the_slowest(facts, sample):
    records = [facts(rank=rank) for rank in (0, 1)]
    for step in range(1, 6):
        for rank in (0, 1):
            records.append(
                sample(
                    rank=rank,
                    step=step,
                    step_s=1.0 + rank,
                    model_flops=3e12,
                    peak_flops_per_s=6e12,
                )
            )
    run = summed(records)
    assert run.flops_per_s == pytest.approx(6e12 / 2)
    assert run.mfu_ratio == pytest.approx(0.25)
    assert [rank.flops_per_s for rank in run.ranks] == pytest.approx([3e12, 1.5e12])
    assert [rank.mfu_ratio for rank in run.ranks] == pytest.approx([0.5, 0.25])


def test_the_ledger_is_that_of_the_largest_phase_and_what_was_not_traced_is_unattributed(
    facts, sample
):
    def held(n_mib):
        return empty_ledger() | {"params": n_mib * MIB}

    probed = ProbedMemory(
        peak_ledgers={"forward": held(20), "backward": held(30), "step": held(25)},
        edge_ledgers={"forward": held(19), "backward": held(10), "step": held(5)},
        host_ledger=held(0),
    )
    peaks = {"forward": 20 * MIB, "backward": 30 * MIB, "step": 25 * MIB}
    first = [
        facts(world_size=1, init_peak_bytes=10 * MIB, init_peak_ledger=held(10)),
        sample(step=1),
        sample(step=2, probe=True, probed=probed, phase_peak_bytes=peaks),
    ]
    (rank,) = summed(first).ranks
    assert rank.ledger == held(30)
    assert rank.peak_ledgers["init"] == held(10)
    assert rank.edge_ledgers["step"] == held(5)
    # Later the allocator counts more than the traced step had.
    (rank,) = summed([*first, sample(step=3, phase_peak_bytes={"backward": 34 * MIB})]).ranks
    assert rank.ledger == held(30) | {"unattributed": 4 * MIB}
    assert sum(rank.ledger.values()) == rank.peak_bytes
