import math
from itertools import permutations

from orchestrator.measure.assembly import BURST_POINTS, StepAssembler
from orchestrator.measure.sample import RankFailure
from orchestrator.units import MIB


def feed(assembler, records):
    return [point for record in records for point in assembler.add(record)]


def history(points, key):
    return [(point.step, point.value) for point in points if point.key == key]


def test_a_step_comes_out_when_its_last_rank_has_reported(facts, sample):
    assembler = StepAssembler()
    assert feed(assembler, [facts(), facts(rank=1), sample(), sample(step=2)]) == []
    assert history(assembler.add(sample(rank=1)), "train/loss") == [(1, 2.0)]
    assert history(assembler.add(sample(rank=1, step=2)), "train/loss") == [(2, 2.0)]


def test_the_order_of_ranks_does_not_matter(facts, sample):
    heads = [facts(rank=rank, world_size=3) for rank in range(3)]
    chunks = [
        [sample(rank=rank, step=step, loss=float(rank + step)) for step in (1, 2)]
        for rank in range(3)
    ]
    for order in permutations(chunks):
        points = feed(StepAssembler(), [*heads, *(record for chunk in order for record in chunk)])
        assert history(points, "train/loss") == [(1, 2.0), (2, 3.0)]


def test_the_memory_peak_never_falls(facts, sample):
    peaks_mib = [12, None, 30, 20]
    records = [
        facts(world_size=1, init_peak_bytes=15 * MIB),
        *(
            sample(step=step, phase_peak_bytes=None if mib is None else {"forward": mib * MIB})
            for step, mib in enumerate(peaks_mib, start=1)
        ),
    ]
    assembler = StepAssembler()
    points = [*feed(assembler, records), *assembler.flush()]
    assert history(points, "memory_peak_mib/rank_00") == [(1, 15), (3, 30), (4, 30)]


def test_a_rank_that_is_ahead_does_not_lend_its_later_peak_to_an_earlier_step(facts, sample):
    ahead = [sample(step=1, rss_peak_bytes=MIB), sample(step=2, rss_peak_bytes=5 * MIB)]
    behind = [sample(rank=1, step=1), sample(rank=1, step=2)]
    points = feed(StepAssembler(), [facts(), facts(rank=1), *ahead, *behind])
    assert history(points, "memory_rss_mib/rank_00") == [(1, 1), (2, 5)]


def test_a_rank_that_dies_keeps_what_it_had_reported(facts, sample):
    assembler = StepAssembler()
    failure = RankFailure(
        rank=1, step=2, time_unix_s=1.0, outcome="failed", message="killed", details=""
    )
    feed(assembler, [facts(), facts(rank=1), sample(), sample(rank=1), sample(step=2), failure])
    left = assembler.flush()
    assert {point.key.rpartition("/")[2] for point in left if point.step == 2} == {"rank_00"}
    assert {point.step for point in left if point.key.endswith("rank_01")} <= {1}
    assert assembler.flush() == []


def test_after_a_restart_every_step_comes_out_once(facts, sample):
    def attempt(steps, loss):
        chunks = [[sample(rank=r, step=s, loss=loss) for s in steps] for r in (0, 1)]
        return [record for r in (0, 1) for record in (facts(rank=r), *chunks[r])]

    first = [*attempt([1, 2, 3], 5.0), sample(step=4, loss=5.0)]
    points = feed(StepAssembler(), [*first, *attempt([3, 4, 5], 7.0)])
    assert history(points, "train/loss") == [(1, 5), (2, 5), (3, 5), (4, 7), (5, 7)]


def test_an_evaluation_that_is_repeated_comes_out_once(facts, evaluation):
    assembler = StepAssembler()
    points = feed(assembler, [facts(), evaluation(step=5), evaluation(step=5, loss=9.0)])
    assert history(points, "eval/loss") == [(5, 1.5)]


def test_values_that_are_not_finite_are_counted_and_left_out(facts, sample):
    assembler = StepAssembler()
    points = feed(assembler, [facts(world_size=1), sample(loss=math.nan, grad_norm=math.inf)])
    assert assembler.n_dropped == 2
    keys = {point.key for point in points}
    assert "train/lr" in keys
    assert not keys & {"train/loss", "train/grad_norm"}


def test_a_silent_rank_does_not_make_the_steps_pile_up(facts, sample):
    assembler = StepAssembler(max_waiting_samples=4)
    feed(assembler, [facts(), facts(rank=1)])
    points = feed(assembler, [sample(step=step) for step in range(1, 11)])
    assert sorted({point.step for point in points}) == [1, 2, 3, 4, 5, 6]
    assert sorted({point.step for point in assembler.flush()}) == [7, 8, 9, 10]


def test_two_steps_may_wait_however_many_ranks_there_are(facts, sample):
    assembler = StepAssembler(max_waiting_samples=1)
    feed(assembler, [facts(rank=rank, world_size=4) for rank in range(4)])
    records = [sample(rank=rank, step=step) for step in (1, 2, 3) for rank in (0, 1, 2)]
    assert feed(assembler, records[:8]) == []
    assert {point.step for point in assembler.add(records[8])} == {1}
    assert {point.step for point in feed(assembler, [sample(rank=3, step=2)])} == {2}


def test_what_a_restart_drops_waits_no_longer(facts, sample):
    assembler = StepAssembler(max_waiting_samples=6)
    attempt = [facts(), *(sample(step=step) for step in range(1, 7))]
    assert feed(assembler, [facts(rank=1), *attempt, *attempt]) == []
    other = [sample(rank=1, step=step) for step in range(1, 7)]
    assert [step for step, _ in history(feed(assembler, other), "train/loss")] == [1, 2, 3, 4, 5, 6]


def test_a_line_that_does_not_change_is_told_every_50th_step_and_at_the_end(facts, sample):
    assembler = StepAssembler()
    records = [facts(world_size=1), *(sample(step=step) for step in range(1, 121))]
    points = [*feed(assembler, records), *assembler.flush()]
    assert history(points, "memory_rss_mib/rank_00") == [(s, 300) for s in (1, 51, 101, 120)]
    assert [step for step, _ in history(points, "time_ms_step/rank_00")] == [*range(1, 121)]


def test_the_whole_job_is_told_every_step_and_single_ranks_as_far_as_points_last(facts, sample):
    # A step is 7 points of its rank, the first one 9. Of 20 in stock 11 are left after step 1;
    # with two a second that is 6, 1 and -4 after the next; 0 in step 6 is no debt, 1 in step 10.
    assembler = StepAssembler(points_per_s=2, burst_points=20)
    steps = [sample(step=step, time_unix_s=1000.0 + step) for step in range(1, 13)]
    points = feed(assembler, [facts(world_size=1), *steps])
    assert [step for step, _ in history(points, "train/loss")] == [*range(1, 13)]
    assert [step for step, _ in history(points, "time_ms_step/rank_00")] == [1, 2, 3, 4, 6, 10]
    assert [step for step, _ in history(assembler.flush(), "time_ms_step/rank_00")] == [12]


def test_what_changes_while_nothing_is_told_is_told_with_the_next_step(facts, sample):
    assembler = StepAssembler(points_per_s=2, burst_points=0)
    records = [
        sample(step=step, time_unix_s=1000.0 + step, rss_peak_bytes=min(step, 3) * MIB)
        for step in range(1, 7)
    ]
    points = feed(assembler, [facts(world_size=1), *records])
    # In debt of 9 after step 1, so none until 5 seconds later.
    assert history(points, "memory_rss_mib/rank_00") == [(1, 1), (6, 3)]


def test_a_probe_step_is_told_whatever_was_told_before(facts, sample):
    assembler = StepAssembler(points_per_s=0, burst_points=0)
    records = [sample(step=1), sample(step=2), sample(step=3, probe=True, communication_s=0.25)]
    points = feed(assembler, [facts(world_size=1), *records, sample(step=4)])
    assert history(points, "time_ms_communication/rank_00") == [(3, 250)]
    assert [step for step, _ in history(points, "time_ms_step/rank_00")] == [1]


def test_two_ranks_at_ten_steps_a_second_lose_nothing(facts, sample):
    records = [
        sample(rank=rank, step=step, time_unix_s=1000.0 + step / 10)
        for step in range(1, 2001)
        for rank in (0, 1)
    ]
    points = feed(StepAssembler(), [facts(), facts(rank=1), *records])
    assert len(points) > BURST_POINTS
    for rank in ("rank_00", "rank_01"):
        told = [step for step, _ in history(points, f"time_ms_forward/{rank}")]
        assert told == [*range(1, 2001)]


def test_the_end_tells_the_last_step_of_every_line(facts, sample):
    assembler = StepAssembler(points_per_s=0, burst_points=0)
    heads = [facts(rank=rank, world_size=17) for rank in range(17)]
    records = [sample(rank=rank, step=step) for step in (1, 2, 3) for rank in range(17)]
    points = [*feed(assembler, [*heads, *records]), *assembler.flush()]
    last = {point.key: point.step for point in points}
    assert set(last.values()) == {3}
    assert {"memory_rss_mib/max", "memory_rss_mib/rank_16", "time_ms_step/min"} <= last.keys()
    assert len({(point.key, point.step) for point in points}) == len(points)


def test_beyond_16_ranks_the_spread_is_told_every_step_beside_the_ranks(facts, sample):
    def points_of(n_ranks):
        heads = [facts(rank=rank, world_size=n_ranks) for rank in range(n_ranks)]
        steps = [
            sample(rank=rank, step=step, forward_s=rank / 1000, rss_peak_bytes=rank * MIB)
            for step in (1, 2)
            for rank in range(n_ranks)
        ]
        return feed(StepAssembler(points_per_s=0, burst_points=0), [*heads, *steps])

    points = points_of(17)
    assert history(points, "time_ms_forward/max") == [(1, 16), (2, 16)]
    assert history(points, "time_ms_forward/median") == [(1, 8), (2, 8)]
    assert history(points, "time_ms_forward/min") == [(1, 0), (2, 0)]
    assert history(points, "time_ms_forward/rank_16") == [(1, 16)]
    # A running peak's spread seldom changes either.
    assert history(points, "memory_rss_mib/median") == [(1, 8)]
    assert not [p for p in points_of(16) if p.key.endswith(("/max", "/median", "/min"))]


def test_a_step_that_lacks_a_rank_has_no_spread(facts, sample):
    assembler = StepAssembler()
    heads = [facts(rank=rank, world_size=18) for rank in range(18)]
    feed(assembler, [*heads, *(sample(rank=rank) for rank in range(17))])
    left = assembler.flush()
    assert {point.key.rpartition("/")[2] for point in left} == {f"rank_{r:02d}" for r in range(17)}


def test_reading_the_records_again_makes_the_same_points(facts, sample, node_sample):
    heads = [facts(rank=rank, world_size=3) for rank in range(3)]
    records = [
        sample(rank=rank, step=step, time_unix_s=1000.0 + step / 7 + rank / 100)
        for step in range(1, 200)
        for rank in (2, 0, 1)
    ]
    told = [*heads, node_sample(), *records, heads[1], *records[200:500]]
    once, again = (StepAssembler(points_per_s=50, burst_points=300) for _ in range(2))
    assert feed(once, told) == feed(again, told)
    assert once.flush() == again.flush()


def test_a_machine_is_told_beside_the_steps(facts, sample, node_sample):
    assembler = StepAssembler()
    points = feed(assembler, [facts(), node_sample(), facts(rank=1, node="node-b"), sample()])
    assert history(points, "system/node_0/cpu_utilization_percentage") == [(0, 40)]


def test_a_machine_of_a_run_whose_ranks_never_all_came_is_told_at_the_end(facts, node_sample):
    assembler = StepAssembler()
    assert feed(assembler, [facts(), node_sample()]) == []
    assert history(assembler.flush(), "system/node_0/cpu_utilization_percentage") == [(0, 40)]
