import pytest

from orchestrator.compare.judge import judged
from orchestrator.compare.ranking import OBJECTIVES, Sameness
from orchestrator.units import MIB
from tests.compare.made_up import entry

FAST = entry("zero0", rounds=((200.0, 201.0, 199.0, 200.0),), ledger_mib={"params": 39})
LEAN = entry("zero3", rounds=((100.0, 101.0, 99.0, 100.0),), ledger_mib={"params": 19})
BEATEN = entry("slow", rounds=((90.0, 91.0, 89.0, 90.0),), ledger_mib={"params": 29})
OOM = entry("big", losses=(), rounds=(), outcome="oom")


def ranked(*entries, baseline=None, budget_bytes=None, controls=None, varied=frozenset()):
    return judged(
        entries,
        baseline=baseline,
        budget_bytes=budget_bytes,
        controls=controls or {},
        varied=varied,
    )


def test_rows_stand_in_the_order_of_the_entries_beside_the_first_that_is_ok():
    ranking = ranked(OOM, LEAN, FAST)
    assert [row.name for row in ranking.rows] == ["big", "zero3", "zero0"]
    assert ranking.baseline == "zero3"


@pytest.mark.parametrize(("asked", "got"), [("zero0", "zero0"), ("big", "zero3"), (None, "zero3")])
def test_the_baseline_is_what_was_asked_for_unless_it_failed(asked, got):
    assert ranked(OOM, LEAN, FAST, baseline=asked).baseline == got


def test_a_baseline_that_is_nobody_is_refused():
    with pytest.raises(ValueError, match="no entry is called 'zero9'"):
        ranked(FAST, baseline="zero9")


def test_ratios_are_over_the_baseline():
    itself, lean = ranked(FAST, LEAN).rows
    assert itself.speed_ratio is None
    assert itself.peak_ratio == 1.0
    assert lean.speed_ratio is not None
    assert lean.speed_ratio.ratio == pytest.approx(0.5)
    assert lean.speed_ratio.difference_shown
    assert lean.peak_ratio == 0.5


def test_the_baseline_is_bitwise_itself():
    loss = ranked(FAST, LEAN).rows[0].loss
    assert (loss.sameness, loss.max_difference) == (Sameness.BITWISE, 0.0)


def test_the_controls_reach_the_verdict():
    apart = entry("apart", losses=(2.0, 1.5, 1.26, 1.125))
    control = (2.0, 1.5, 1.255, 1.125)
    without = ranked(FAST, apart).rows[1].loss
    with_control = ranked(FAST, apart, controls={"fp32": control}).rows[1].loss
    assert without.sameness is Sameness.DIFFERENT
    assert with_control.sameness is Sameness.ROUNDING


def test_the_front_has_what_nothing_beats_and_never_what_failed():
    failed = entry("failed", rounds=((900.0,),), ledger_mib={"params": 1}, outcome="failed")
    rows = ranked(FAST, LEAN, BEATEN, failed, OOM).rows
    assert [row.name for row in rows if row.pareto] == ["zero0", "zero3"]


def test_a_run_that_failed_shows_what_was_measured():
    row = ranked(FAST, entry("failed", losses=(2.0,), outcome="failed")).rows[1]
    assert row.throughput is not None
    assert row.throughput.samples_per_s == 100.0
    assert row.loss.sameness is Sameness.ROUNDING


def test_a_strategy_that_never_ran_has_no_numbers():
    row = ranked(FAST, OOM).rows[1]
    assert (row.throughput, row.speed_ratio, row.peak_ratio, row.pareto) == (None,) * 3 + (False,)
    assert row.loss.sameness is Sameness.UNKNOWN


@pytest.mark.parametrize("entries", [(), (OOM,), (entry("failed", outcome="failed"),)])
def test_where_nothing_came_to_its_end_there_is_neither_baseline_nor_winner(entries):
    ranking = ranked(*entries)
    assert ranking.baseline is None
    assert ranking.winners == dict.fromkeys(OBJECTIVES)
    assert all(row.loss.sameness is Sameness.UNKNOWN for row in ranking.rows)
    assert all(row.speed_ratio is row.peak_ratio is None for row in ranking.rows)


def test_the_budget_is_kept_and_decides():
    ranking = ranked(FAST, LEAN, budget_bytes=30 * MIB)
    assert ranking.budget_bytes == 30 * MIB
    fastest = ranking.winners["fastest"]
    assert fastest is not None
    assert fastest.name == "zero3"


def test_runs_of_other_work_are_shown_without_front_and_winners():
    other = entry("zero1", global_batch_size=32)
    ranking = ranked(FAST, other)
    reason = "training.global_batch_size: 16 (zero0), 32 (zero1)"
    assert ranking.not_ranked == (f"another {reason}",)
    assert ranking.differences == (reason,)
    assert ranking.winners == dict.fromkeys(OBJECTIVES)
    assert not any(row.pareto for row in ranking.rows)
    assert ranking.rows[1].speed_ratio is not None
    assert ranking.rows[1].loss.sameness is Sameness.NOT_COMPARABLE


def test_other_work_on_purpose_is_ranked():
    other = entry("zero1", global_batch_size=32)
    ranking = ranked(FAST, other, varied=frozenset({"training.global_batch_size"}))
    assert ranking.not_ranked == ranking.differences == ()
    assert ranking.winners["fastest"] is not None
