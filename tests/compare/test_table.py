import re
from dataclasses import replace

import pytest

from orchestrator.compare.ranking import Winner
from orchestrator.compare.table import (
    comparison_table,
    finished_line,
    ledger_by_strategy,
    verdicts,
)
from orchestrator.units import GIB, MIB
from tests.compare.made_up import entry
from tests.compare.made_up_ranking import (
    NO_LOSSES,
    loss,
    ranking,
    ratio,
    row,
    speed,
    stopped,
)


def cells(line):
    """A line's cells; columns are two spaces apart."""
    return re.split(r" {2,}", line.strip())


def table(text):
    """Head -> cells, by the places of the head's words, strategy by strategy."""
    head, *lines = text.splitlines()
    titles = cells(head)
    return [dict(zip(titles, cells(line), strict=True)) for line in lines]


@pytest.fixture
def two():
    """A baseline with a peak of 21 MiB, and a strategy with 13."""
    made = entry("zero2", ledger_mib={"params": 4, "gradients": 1, "activations": 7})
    return ranking(
        row(throughput=speed(300, 294.4, 303), peak_ratio=1.0),
        row(
            made,
            throughput=speed(393.4, 387, 397),
            speed_ratio=ratio(1.312, 1.296, 1.34),
            peak_ratio=13 / 21,
            loss=loss("rounding", difference=1.2e-7, step=3),
        ),
    )


def test_a_strategy_is_held_against_the_baseline(two):
    base, other = table(comparison_table(two, width=None))
    assert other == {
        "strategy": "zero2",
        "outcome": "ok",
        "peak MiB": "13.0",
        "x base": "0.62",
        "samples/s": "393",
        "95 % interval": "387-397",
        "speed x base": "1.31",
        "ratio's 95 %": "1.30-1.34",
        "final loss": "1.1250",
        "same loss": "within rounding",
    }
    assert base["strategy"] == "zero0 (base)"
    assert base["peak MiB"] == "21.0"
    assert (base["x base"], base["speed x base"], base["same loss"]) == ("base", "base", "base")


def test_a_ratio_whose_interval_contains_1_is_said_to_show_no_difference(two):
    close = replace(two.rows[1], speed_ratio=ratio(1.02, 0.98, 1.06))
    line = table(comparison_table(replace(two, rows=(two.rows[0], close)), width=None))[1]
    assert line["speed x base"] == "no difference shown"
    assert line["ratio's 95 %"] == "0.98-1.06"


def test_an_interval_just_beside_1_is_not_rounded_onto_it(two):
    close = replace(two.rows[1], speed_ratio=ratio(1.008, 1.002, 1.014))
    line = table(comparison_table(replace(two, rows=(two.rows[0], close)), width=None))[1]
    assert line["speed x base"] == "1.008"
    assert line["ratio's 95 %"] == "1.002-1.014"


def test_a_narrow_interval_keeps_its_width():
    # 0.08 wide: whole numbers, or one decimal, would show none.
    line = table(comparison_table(ranking(row(throughput=speed(300, 299.96, 300.04))), width=None))
    assert line[0]["95 % interval"] == "299.96-300.04"


@pytest.mark.parametrize(
    ("sameness", "words"),
    [
        ("bitwise", "to the last bit"),
        ("rounding", "within rounding"),
        ("different", "DIFFERENT"),
        ("not_comparable", "not comparable"),
    ],
)
def test_sameness_is_told_in_short_words(two, sameness, words):
    told = replace(two.rows[1], loss=loss(sameness))
    line = table(comparison_table(replace(two, rows=(two.rows[0], told)), width=None))[1]
    assert line["same loss"] == words


def test_the_front_is_starred_and_the_star_explained():
    front, other = row(pareto=True), row(entry("zero2"))
    head, first, second, note = comparison_table(ranking(front, other), width=None).splitlines()
    assert head.startswith("*  strategy")
    assert first.startswith("*  zero0")
    assert second.startswith("   zero2")
    assert note == "*  no other strategy has both a smaller peak and more samples/s"


def test_without_a_front_there_are_no_stars(two):
    assert "*" not in comparison_table(two, width=None)


def test_what_nobody_keeps_elsewhere_has_no_column(two):
    # Host bytes are 0, NVMe bytes unknown.
    text = comparison_table(two, width=None)
    assert "host MiB" not in text
    assert "NVMe MiB" not in text
    assert "MFU" not in text


def test_what_the_fullest_rank_keeps_on_the_host_is_told():
    made = entry("zero2", workers=1)
    rank = replace(made.record.ranks[0], host_bytes=1536 * MIB, nvme_bytes=MIB // 2)
    record = replace(made.record, ranks=(rank,), mfu_ratio=0.314, forecast_error_ratio=-0.012)
    line = table(comparison_table(ranking(row(replace(made, record=record))), width=None))[0]
    assert (line["host MiB"], line["NVMe MiB"]) == ("1,536.0", "0.5")
    assert (line["MFU"], line["forecast error"]) == ("31.4 %", "-1.20 %")


def test_a_peak_below_a_mib_is_not_nothing():
    tiny = row(entry(ledger_mib={"params": 0.0625}, workers=1))
    assert table(comparison_table(ranking(tiny), width=None))[0]["peak MiB"] == "0.062"


def test_the_last_loss_of_a_run_that_diverged_is_not_a_final_loss(two):
    made = entry("zero3", outcome="diverged", losses=(2.0, float("nan")), message="not finite")
    text = comparison_table(ranking(*two.rows, row(made, loss=NO_LOSSES)), width=None)
    line = table(text)[2]
    assert line["outcome"] == "diverged"
    assert line["final loss"] == "-"


def test_a_strategy_that_failed_has_dashes(two):
    line = table(comparison_table(ranking(*two.rows, stopped("zero1")), width=None))[2]
    assert line.pop("strategy") == "zero1"
    assert line.pop("outcome") == "oom"
    assert set(line.values()) == {"-"}


def test_where_all_failed_there_is_no_baseline():
    head, *lines, note = comparison_table(
        ranking(stopped("zero0"), stopped("zero1"), baseline=None), width=100
    ).splitlines()
    assert cells(head) == ["strategy", "outcome"]
    assert [cells(line) for line in lines] == [["zero0", "oom"], ["zero1", "oom"]]
    assert note == "no baseline: nothing that ran to its end to hold the others against"


def test_a_single_strategy_is_held_against_nothing():
    alone = ranking(row(throughput=speed(300, 294, 303), peak_ratio=1.0))
    assert cells(comparison_table(alone, width=None).splitlines()[0]) == [
        "strategy", "outcome", "peak MiB", "samples/s", "95 % interval", "final loss",
    ]  # fmt: skip


def test_no_strategy_is_no_table():
    assert comparison_table(ranking(baseline=None), width=100) == "no strategy has run"


def test_what_is_too_wide_loses_the_least_wanted_columns_and_says_so(two):
    text = comparison_table(two, width=None)
    full, widest = text.splitlines()[0], max(map(len, text.splitlines()))
    assert comparison_table(two, width=widest) == text
    head, *_, note = comparison_table(two, width=widest - 1).splitlines()
    assert set(cells(full)) - set(cells(head)) == {"ratio's 95 %"}
    assert note == "left out for want of room, and in the CSV: ratio's 95 %"


@pytest.mark.parametrize("width", [100, 130, 160, 200])
def test_fifty_strategies_with_long_names_have_a_line_each_within_the_width(width):
    name = "zero3-optim-cpu-params-cpu-bf16-micro{:02d}"
    rows = [row(throughput=speed(300, 294, 303), pareto=True)]
    rows += [
        row(
            entry(name.format(n), workers=64, global_batch_size=256),
            throughput=speed(12_345.6, 12_000, 12_500),
            speed_ratio=ratio(1.01, 0.98, 1.05),
            peak_ratio=0.5,
        )
        for n in range(49)
    ]
    text = comparison_table(ranking(*rows), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert all(text.count(name.format(n)) == 1 for n in range(49))
    assert text.count("no difference shown") == 49


def test_what_is_never_left_out_may_be_wider_than_the_width():
    head = comparison_table(ranking(row(throughput=speed(3, 2, 4))), width=10).splitlines()[0]
    assert cells(head) == ["strategy", "outcome", "peak MiB", "samples/s"]


def test_winners_are_told_with_their_reasons(two):
    winners = {
        "fastest": Winner(name="zero2", reason="393 samples/s, 1.31 x zero0"),
        "smallest": Winner(name="zero2", reason="13.0 MiB"),
        "balanced": None,
    }
    text = verdicts(replace(two, winners=winners, budget_bytes=16 * GIB))
    assert text.split("\n\n")[0].splitlines() == [
        "winners",
        "  fastest   zero2: 393 samples/s, 1.31 x zero0",
        "  smallest  zero2: 13.0 MiB",
        "  balanced  none: no strategy was measured closely enough",
        "  budget    16.0 GiB a device",
    ]


def test_where_nothing_fits_the_budget_that_is_why_nobody_is_fastest(two):
    text = verdicts(replace(two, budget_bytes=GIB))
    assert "  fastest   none: no strategy that ran is known to fit 1.0 GiB\n" in text


def test_losses_are_told_by_kind_with_the_largest_difference_and_its_step():
    order = "sums in another order"
    rows = [
        row(),
        row(entry("zero1")),
        row(entry("zero2"), loss=loss("rounding", difference=1e-7, step=2, reason=order)),
        row(entry("zero3"), loss=loss("rounding", difference=3e-7, step=4, reason=order)),
        row(entry("bf16"), loss=loss("different", difference=0.0131, step=1200, reason="bf16")),
    ]
    assert verdicts(ranking(*rows)).split("\n\n")[1].splitlines() == [
        "losses against zero0's",
        "  to the last bit  zero1",
        "  within rounding  zero2, zero3; largest difference 3e-07 at step 4 (zero3); "
        "sums in another order",
        "  DIFFERENT        bf16; largest difference 0.013 at step 1,200; bf16",
    ]


def test_of_many_strategies_the_reason_comes_before_the_names():
    rows = [row(), *(row(entry(f"s{n}"), loss=loss("rounding", reason="why")) for n in range(4))]
    assert "  within rounding  4 strategies; why: s0, s1, s2, s3" in verdicts(ranking(*rows))


def test_failures_are_told_with_cause_and_next_step(two):
    text = verdicts(ranking(*two.rows, stopped("zero1"), stopped("z", message=None)))
    assert text.split("\n\n")[-1].splitlines() == [
        "did not run to their end",
        "  zero1  oom  rank 1 ran out of memory; raise zero.stage",
        "  z      oom  no cause was kept",
    ]
    assert "not known" not in text


def test_long_names_have_their_cause_below_them():
    text = verdicts(ranking(stopped("z" * 40), baseline=None))
    assert text.splitlines()[-2:] == [
        f"  {'z' * 40}  oom",
        "      rank 1 ran out of memory; raise zero.stage",
    ]


def test_runs_that_are_not_ranked_have_reasons_in_place_of_winners(two):
    told = replace(two, not_ranked=("global batches differ: 16 and 32",), differences=("torch",))
    blocks = verdicts(told).split("\n\n")
    assert blocks[0] == "not ranked\n  global batches differ: 16 and 32"
    assert blocks[-1] == "also differs between the runs\n  torch"
    assert "winners" not in verdicts(told)


def test_verdicts_of_fifty_strategies_are_within_100_columns():
    rows = [row(), *(row(entry(f"zero3-optim-cpu-micro{n}")) for n in range(40))]
    rows += [stopped(f"zero3-params-{n}", message="why " * 60) for n in range(9)]
    assert max(map(len, verdicts(ranking(*rows)).splitlines())) <= 100


def test_what_filled_the_memory_adds_up_to_the_peak(two):
    head, *lines = (ledger_by_strategy(two) or "").splitlines()
    assert cells(head) == [
        "strategy", "peak MiB", "params", "gradients", "optimizer", "activations", "temporaries",
        "unattributed",
    ]  # fmt: skip
    assert cells(lines[0]) == ["zero0 (base)", "21.0", "4.0", "2.0", "8.0", "6.0", "1.0", "0.0"]
    assert cells(lines[1]) == ["zero2", "13.0", "4.0", "1.0", "0.0", "7.0", "1.0", "0.0"]
    assert lines[2:] == ["shrank most against zero0:", "  optimizer in zero2 by 8.0 MiB"]


def test_many_strategies_that_shrank_are_counted(two):
    rows = [two.rows[0]]
    # The baseline's optimizer takes 8 MiB, its activations 6: of s0 to s6 it is the optimizer, of
    # the two others the activations.
    rows += [row(entry(f"s{n}", ledger_mib={"optimizer": n / 4})) for n in range(7)]
    rows += [row(entry(f"a{n}", ledger_mib={"optimizer": 4, "activations": n})) for n in range(2)]
    assert (ledger_by_strategy(ranking(*rows)) or "").splitlines()[-2:] == [
        "  optimizer in 7 strategies by 6.5 MiB to 8.0 MiB",
        "  activations in a0 by 6.0 MiB, a1 by 5.0 MiB",
    ]


def test_a_strategy_that_shrank_nothing_is_not_named():
    rows = [row(), row(entry("zero2"))]
    assert "shrank" not in (ledger_by_strategy(ranking(*rows)) or "shrank")


def test_where_nothing_was_traced_there_is_no_ledger():
    assert ledger_by_strategy(ranking(stopped("zero0"), baseline=None)) is None


def test_a_strategy_that_has_just_finished_is_told_in_a_line():
    made = entry("zero2", losses=(2.0, 0.00774), rounds=((393.0, 390.0), (400.0,)))
    # The median of 390, 393 and 400.
    assert finished_line(made) == "zero2  ok  21.0 MiB  393 samples/s  final loss 0.0077"


def test_a_strategy_that_has_just_failed_is_told_with_its_cause():
    made = entry("zero2", outcome="oom", message="out of memory;\n  raise zero.stage")
    assert finished_line(made) == "zero2  oom  out of memory; raise zero.stage"


def test_what_has_just_finished_without_numbers_is_told_all_the_same():
    assert finished_line(entry("zero2", losses=(), rounds=())) == "zero2  ok"
