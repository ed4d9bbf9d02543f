import pytest

from orchestrator.compare.judge import judged
from orchestrator.compare.ranking import OBJECTIVES
from orchestrator.compare.winners import winners
from orchestrator.units import MIB
from tests.compare.made_up import entry


def strategy(name, *, speed, mib, scatter=0.002, **changes):
    """A strategy of so much speed and peak, measured in three rounds of nine steps."""
    steps = tuple(speed * (1 + scatter * (n % 3 - 1)) for n in range(9))
    # Rank 1 of the two holds 1 MiB of temporaries more.
    return entry(name, rounds=(steps,) * 3, ledger_mib={"params": mib - 1}, **changes)


def won(*entries, budget_mib=None):
    """Objective -> name and reason of its winner."""
    ranking = judged(
        entries, baseline=None, budget_bytes=None, controls={}, varied=frozenset({"model"})
    )
    budget_bytes = None if budget_mib is None else budget_mib * MIB
    return winners(ranking.rows, budget_bytes=budget_bytes)


def names(found):
    return {objective: one and one.name for objective, one in found.items()}


FAST = strategy("fast", speed=200.0, mib=400)
MIDDLE = strategy("middle", speed=160.0, mib=200)
SMALL = strategy("small", speed=60.0, mib=100)
BEATEN = strategy("beaten", speed=100.0, mib=300)


def test_each_objective_has_its_own_winner():
    found = won(SMALL, BEATEN, FAST, MIDDLE)
    assert names(found) == {"fastest": "fast", "smallest": "small", "balanced": "middle"}
    assert tuple(found) == OBJECTIVES


def test_the_reasons_have_the_numbers():
    found = won(FAST, MIDDLE, SMALL)
    reasons = {objective: one and one.reason for objective, one in found.items()}
    assert reasons == {
        "fastest": "200.0 samples/s, the most of all, in 400.0 MiB",
        "smallest": "a peak of 100.0 MiB, the least of all",
        "balanced": "80 % of the speed of fast, the fastest of all, in 50 % of its memory",
    }


@pytest.mark.parametrize(
    ("budget_mib", "name"), [(400, "fast"), (399, "middle"), (199, "small"), (99, None)]
)
def test_the_fastest_has_to_fit_the_budget_and_the_others_do_not(budget_mib, name):
    found = won(FAST, MIDDLE, SMALL, budget_mib=budget_mib)
    assert names(found) == {"fastest": name, "smallest": "small", "balanced": "middle"}


def test_the_budget_stands_in_the_reason():
    fastest = won(FAST, MIDDLE, budget_mib=300)["fastest"]
    assert fastest is not None
    assert fastest.reason == "160.0 samples/s in 200.0 MiB, the most that fits 300.0 MiB"


def test_less_memory_wins_where_it_is_not_shown_to_be_slower():
    noisy = [
        strategy("big", speed=101.0, mib=400, scatter=0.1),
        strategy("lean", speed=100.0, mib=300, scatter=0.1),
    ]
    fastest = won(*noisy)["fastest"]
    assert fastest is not None
    assert fastest.name == "lean"
    assert fastest.reason == (
        "at 100.0 samples/s it is not shown to be slower than big (101.0 samples/s), "
        "and takes 300.0 MiB in place of 400.0 MiB"
    )


def test_noise_does_not_make_a_much_slower_strategy_the_fastest():
    noisy = [
        strategy("big", speed=100.0, mib=400, scatter=0.2),
        strategy("lean", speed=90.0, mib=300, scatter=0.2),
    ]
    assert names(won(*noisy))["fastest"] == "big"


def test_of_strategies_that_take_equally_little_the_fastest_is_the_smallest():
    almost = strategy("almost", speed=90.0, mib=1000.9)
    more = strategy("more", speed=190.0, mib=1002)
    found = won(strategy("least", speed=60.0, mib=1000), almost, more)["smallest"]
    assert found is not None
    assert found.name == "almost"
    assert "90.0 samples/s the fastest of the 2 that take so little" in found.reason


def test_a_strategy_that_is_fastest_and_smallest_wins_everything():
    found = won(strategy("best", speed=200.0, mib=100), BEATEN)
    assert set(names(found).values()) == {"best"}
    balanced = found["balanced"]
    assert balanced is not None
    assert balanced.reason == "200.0 samples/s in 100.0 MiB: no other is faster for its memory"


@pytest.mark.parametrize("outcome", ["failed", "oom", "diverged", "interrupted"])
def test_what_did_not_end_well_never_wins(outcome):
    best = strategy("best", speed=900.0, mib=10, outcome=outcome)
    assert set(names(won(best, BEATEN)).values()) == {"beaten"}
    assert set(won(best).values()) == {None}


def test_without_throughput_nothing_wins():
    assert set(won(entry("silent", rounds=())).values()) == {None}
