import math
from itertools import permutations

from orchestrator.measure.assembly import StepAssembler
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
    points = feed(StepAssembler(), records)
    assert history(points, "memory_peak_mib/rank_00") == [(1, 15), (2, 15), (3, 30), (4, 30)]


def test_a_rank_that_is_ahead_does_not_lend_its_later_peak_to_an_earlier_step(facts, sample):
    ahead = [sample(step=1, rss_bytes=MIB), sample(step=2, rss_bytes=5 * MIB)]
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
    assert {point.step for point in left} == {2}
    assert {point.key.rpartition("/")[2] for point in left} == {"rank_00"}
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
    assembler = StepAssembler(max_waiting_steps=3)
    feed(assembler, [facts(), facts(rank=1)])
    points = feed(assembler, [sample(step=step) for step in range(1, 11)])
    assert sorted({point.step for point in points}) == [1, 2, 3, 4, 5, 6, 7]
    assert sorted({point.step for point in assembler.flush()}) == [8, 9, 10]
