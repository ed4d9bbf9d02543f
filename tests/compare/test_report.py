import csv
import io
import re
from dataclasses import replace

import pytest

from orchestrator.compare.ranking import Winner
from orchestrator.compare.report import report_markdown
from orchestrator.compare.report_csv import losses_csv, report_csv
from orchestrator.measure.sample import EvalResult
from orchestrator.units import GIB, MIB
from tests.compare.made_up import entry
from tests.compare.made_up_ranking import loss, ranking, ratio, row, speed, stopped

PLOTS = ("ledger", "memory_throughput", "steps", "ranks", "losses", "forecast")


def report(told, *, name="small", circumstances=(), plots=()):
    return report_markdown(told, name=name, circumstances=circumstances, plots=plots)


def sections(text):
    """Heading -> what stands below it."""
    _, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    return dict(part.split("\n", 1) for part in parts)


def tables(text):
    """Every table of a Markdown text: a list of lines of cells, its rule among them."""
    found = []
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("| "):
            found.append([cells(line) for line in lines])
    return found


def cells(line):
    assert line.startswith("| ")
    assert line.endswith(" |")
    inner = re.split(r"(?<!\\)\|", line)[1:-1]
    return [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in inner]


def rows_of(text):
    """The lines of a section's table: head -> cell."""
    head, _, *lines = tables(text)[0]
    return [dict(zip(head, line, strict=True)) for line in lines]


def lines_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def with_record(made, **changes):
    return replace(made, record=replace(made.record, **changes))


@pytest.fixture
def four():
    """A baseline, one that is the same, one that is another training, one that failed."""
    base = entry("zero0", losses=(2.0, 1.0))
    changed = entry(
        "bf16",
        ledger_mib={"params": 4, "gradients": 1, "activations": 7},
        losses=(2.0, 1.5),
        job={"training": {"precision": "bf16"}, "zero": {"stage": 2, "offload_optimizer": "cpu"}},
        user="ada",
        commit="abc",
    )
    return ranking(
        row(base, throughput=speed(300, 294, 303), peak_ratio=1.0),
        row(entry("zero1", losses=(2.0, 1.0)), speed_ratio=ratio(1.0, 0.98, 1.02)),
        row(
            changed,
            throughput=speed(393.4, 387, 397),
            speed_ratio=ratio(1.311, 1.296, 1.34),
            peak_ratio=0.62,
            loss=loss("different", difference=0.5, step=2, reason="weights | in bf16"),
            pareto=True,
        ),
        stopped("zero3", message="rank 1: a | b\nran out; lower micro_batch_size"),
        winners={
            "fastest": Winner(name="bf16", reason="393 samples/s"),
            "smallest": None,
            "balanced": None,
        },
    )


def test_the_answer_comes_first(four):
    text = report(four, name="a | b")
    assert text.startswith("# a \\| b: 4 sharding strategies compared\n\n## The answer\n")
    answer = sections(text)["The answer"]
    assert [list(line.values()) for line in rows_of(answer)] == [
        ["fastest", "bf16", "393 samples/s"],
        ["smallest", "-", "no strategy was measured closely enough"],
        ["balanced", "-", "no strategy was measured closely enough"],
    ]
    assert (
        "Not every strategy computed the same training: bf16 did not. Against zero0: "
        "1 the same to the last bit, 1 DIFFERENT, 1 not known."
    ) in answer
    assert "1 of 4 did not run to their end: zero3 (oom)." in answer


def test_runs_that_are_not_ranked_have_no_winners(four):
    told = replace(four, not_ranked=("batches of 16 and 32",))
    answer = sections(report(told))["The answer"]
    assert "These runs are **not ranked**:\n\n- batches of 16 and 32\n" in answer
    assert tables(answer) == []


@pytest.mark.parametrize(
    ("sameness", "sentence"),
    [
        ("bitwise", "Every strategy computed the same training. Against zero0: 1 the same to"),
        ("rounding", "Every strategy computed the same training. Against zero0: 1 within round"),
        ("not_comparable", "Whether the strategies computed the same training cannot be told."),
        ("unknown", "Whether the strategies computed the same training cannot be told."),
    ],
)
def test_the_same_loss_verdict_is_a_sentence(sameness, sentence):
    told = ranking(row(), row(entry("zero1"), loss=loss(sameness)))
    assert sentence in sections(report(told))["The answer"]


def test_what_cannot_be_compared_is_not_said_to_be_the_same():
    told = ranking(row(), row(entry("a")), row(entry("b"), loss=loss("not_comparable")))
    answer = sections(report(told))["The answer"]
    assert "Every strategy whose losses can be compared computed the same training." in answer


def test_circumstances_are_a_table(four):
    text = report(four, circumstances=[("devices", "cpu"), ("torch | deepspeed", "2.13 | 0.19")])
    assert tables(sections(text)["Circumstances"])[0][2:] == [
        ["devices", "cpu"], ["torch | deepspeed", "2.13 | 0.19"],
    ]  # fmt: skip


def test_costs_are_beside_the_baseline_and_numbers_are_aligned_right(four):
    costs = sections(report(four))["Memory and throughput"]
    assert "Held against zero0, the baseline." in costs
    head, rule, *_ = tables(costs)[0]
    aligned_right = {title for title, dashes in zip(head, rule, strict=True) if dashes[-1] == ":"}
    assert aligned_right == set(head) - {"*", "strategy", "outcome", "same loss"}
    base, same, changed, failed = rows_of(costs)
    assert base["strategy"] == "zero0 (base)"
    assert same["speed x base"] == "no difference shown"
    assert (changed["*"], changed["speed x base"], changed["same loss"]) == (
        "*", "1.31", "DIFFERENT",
    )  # fmt: skip
    assert (failed["outcome"], failed["peak MiB"]) == ("oom", "-")


def test_failures_are_told_with_cause_and_next_step(four):
    assert rows_of(sections(report(four))["What did not run to its end"]) == [
        {
            "strategy": "zero3",
            "outcome": "oom",
            "cause; what to do": "rank 1: a | b ran out; lower micro_batch_size",
        }
    ]


def test_without_failures_there_is_no_section_of_them():
    assert "What did not run to its end" not in sections(report(ranking(row())))


def test_it_says_what_each_strategy_is(four):
    assert rows_of(sections(report(four))["What each strategy is"])[2] == {
        "strategy": "bf16",
        "stage": "2",
        "optimizer on": "cpu",
        "params on": "device",
        "precision": "bf16",
        "recomputes": "no",
        "micro-batch": "4",
        "accumulation": "2",
        "workers": "2",
    }


def test_a_name_that_is_not_how_it_is_sharded_has_that_beside_it():
    told = ranking(row(entry("mine", strategy="zero2-bf16")), baseline=None)
    line = rows_of(sections(report(told))["What each strategy is"])[0]
    assert (line["strategy"], line["sharding"]) == ("mine", "zero2-bf16")


def test_what_fills_the_memory_adds_up_to_the_peak(four):
    section = sections(report(four))["What fills the memory"]
    lines = rows_of(section)
    assert [line["strategy"] for line in lines] == ["zero0 (base)", "zero1", "bf16"]
    for line in lines:
        line.pop("strategy")
        peak = float(line.pop("peak MiB"))
        assert sum(map(float, line.values())) == peak
    assert "What shrank most against zero0:\n\n- optimizer in bf16 by 8.0 MiB" in section


def test_where_a_step_goes_is_told_of_the_slowest_rank():
    made = entry()
    fast, slow = made.record.ranks
    slow = replace(slow, step_s=replace(slow.step_s, median=0.2, optimizer=0.015, logging=0.0004))
    told = ranking(row(with_record(made, ranks=(fast, slow))))
    section = sections(report(told))["Where a step goes"]
    assert rows_of(section) == [
        {
            "strategy": "zero0 (base)",
            "rank": "1",
            "step ms": "200.0",
            "data": "10.0",
            "forward": "30.0",
            "backward": "50.0",
            "optimizer": "15.0",
            "logging": "0.4",
        }
    ]
    assert "Communication" not in section


def test_communication_is_said_to_lie_inside_the_other_parts():
    made = entry(workers=1)
    rank = made.record.ranks[0]
    probed = replace(rank, step_s=replace(rank.step_s, communication=0.0205))
    section = sections(report(ranking(row(with_record(made, ranks=(probed,))))))
    assert rows_of(section["Where a step goes"])[0]["communication"] == "20.5"
    assert "Communication lies inside the other parts" in section["Where a step goes"]


def test_64_ranks_are_told_by_their_spread():
    made = entry(workers=64, global_batch_size=256)
    # Rank n holds 20 + n MiB.
    ranks = tuple(replace(rank, samples_per_s=100.0 + rank.rank) for rank in made.record.ranks)
    text = report(ranking(row(with_record(made, ranks=ranks))))
    assert rows_of(sections(text)["How even the ranks are"]) == [
        {
            "strategy": "zero0 (base)",
            "ranks": "64",
            "smallest peak MiB": "20.0",
            "median peak MiB": "51.5",
            "largest peak MiB": "83.0",
            "slowest samples/s": "100",
            "median samples/s": "132",
            "fastest samples/s": "163",
        }
    ]


def test_losses_are_told_with_difference_step_and_reason(four):
    assert rows_of(sections(report(four))["Whether the losses are the same"]) == [
        {
            "strategy": "zero1",
            "steps": "2",
            "same loss": "to the last bit",
            "largest difference": "0",
            "at step": "-",
            "why": "",
        },
        {
            "strategy": "bf16",
            "steps": "2",
            "same loss": "DIFFERENT",
            "largest difference": "0.5",
            "at step": "2",
            "why": "weights | in bf16",
        },
    ]


def test_a_forecast_stands_beside_what_was_measured_of_the_same_rank():
    # Rank 0 holds 20 MiB, rank 1 21.
    made = with_record(
        entry(),
        forecast_peak_bytes=19 * MIB,
        forecast_error_ratio=-0.05,
        forecast={"rank": 0, "method": "closed_form", "verdict": "FITS"},
    )
    told = ranking(row(made), row(entry("zero1")))
    assert rows_of(sections(report(told))["Forecast and measurement"]) == [
        {
            "strategy": "zero0 (base)",
            "rank": "0",
            "forecast MiB": "19.0",
            "measured MiB": "20.0",
            "error": "-5.00 %",
            "by": "closed form",
            "verdict": "FITS",
        }
    ]


def test_a_forecast_of_what_never_ran_is_told_too():
    never = with_record(stopped("zero0").entry, forecast_peak_bytes=3 * GIB)
    line = rows_of(sections(report(ranking(row(never))))["Forecast and measurement"])[0]
    assert line == {"strategy": "zero0 (base)", "forecast MiB": "3,072.0"}


def test_what_differs_is_told_or_that_nothing_does(four):
    title = "What else differs between the runs"
    assert sections(report(four))[title].strip() == "Nothing besides what was varied."
    told = replace(four, differences=("torch: 2.12 and 2.13", "users: ada, bob"))
    assert sections(report(told))[title].strip() == "- torch: 2.12 and 2.13\n- users: ada, bob"


def test_each_plot_is_in_its_section(four):
    found = {
        title: re.findall(r"!\[[^]]+\]\(plots/(\w+)\.png\)", text)
        for title, text in sections(report(four, plots=PLOTS)).items()
    }
    assert {title: names for title, names in found.items() if names} == {
        "Memory and throughput": ["memory_throughput"],
        "What fills the memory": ["ledger"],
        "Where a step goes": ["steps"],
        "How even the ranks are": ["ranks"],
        "Whether the losses are the same": ["losses"],
        "Forecast and measurement": ["forecast"],
    }


def test_a_plot_that_was_not_drawn_is_not_shown(four):
    assert re.findall(r"plots/\w+", report(four, plots={"steps"})) == ["plots/steps"]


@pytest.mark.parametrize("plots", [(), PLOTS])
def test_whatever_is_missing_every_table_is_whole(four, plots):
    nothing = stopped("zero0", message=None)
    fifty = [row(), *(row(entry(f"s|{n}", workers=64, global_batch_size=256)) for n in range(49))]
    for told in (
        four,
        ranking(baseline=None),
        ranking(row()),
        ranking(nothing, baseline=None),
        ranking(nothing, stopped("zero1"), baseline=None),
        ranking(row(entry(losses=(), rounds=()))),
        ranking(row(entry(losses=(float("nan"),)), loss=loss("unknown"))),
        ranking(*fifty),
    ):
        text = report(told, plots=plots)
        for table in tables(text):
            assert len({len(line) for line in table}) == 1
            assert all(re.fullmatch(r"-+:?", rule) for rule in table[1])
        lines = lines_of(report_csv(told))
        assert [line["strategy"] for line in lines] == [row.name for row in told.rows]
        assert not any(None in line or None in line.values() for line in lines)
        assert not any(None in line or None in line.values() for line in lines_of(losses_csv(told)))


def test_the_csv_has_bytes_seconds_and_ratios(four):
    base, same, changed, failed = lines_of(report_csv(four))
    assert (base["is_baseline"], changed["is_baseline"], changed["pareto"]) == (
        "true", "false", "true",
    )  # fmt: skip
    assert changed["peak_bytes"] == str(13 * MIB)
    assert changed["peak_activations_bytes"] == str(7 * MIB)
    assert changed["backward_peak_bytes"] == str(13 * MIB)
    assert changed["forward_peak_bytes"] == ""
    assert (changed["fullest_rank"], changed["peak_phase"]) == ("1", "backward")
    assert (changed["rank_min_peak_bytes"], changed["rank_max_peak_bytes"]) == (
        str(12 * MIB), str(13 * MIB),
    )  # fmt: skip
    assert (changed["samples_per_s"], changed["samples_per_s_low"]) == ("393.4", "387")
    assert (changed["speed_ratio_high"], changed["difference_shown"]) == ("1.34", "true")
    assert same["difference_shown"] == "false"
    assert changed["step_backward_s"] == "0.05"
    assert (changed["n_rounds"], changed["n_measured_steps"]) == ("1", "4")
    assert (changed["stage"], changed["offload_optimizer"], changed["precision"]) == (
        "2", "cpu", "bf16",
    )  # fmt: skip
    assert (changed["activation_checkpointing"], changed["workers"]) == ("false", "2")
    assert (changed["user"], changed["commit"], base["user"]) == ("ada", "abc", "")
    assert (changed["first_loss"], changed["final_loss"]) == ("2.0", "1.5")
    assert (changed["same_loss"], changed["max_loss_difference"]) == ("different", "0.5")
    assert failed["message"] == "rank 1: a | b\nran out; lower micro_batch_size"
    assert (failed["outcome"], failed["peak_bytes"], failed["same_loss"]) == ("oom", "", "")


def test_the_csv_has_the_last_evaluation():
    evals = tuple(
        EvalResult(
            step=step, loss=0.5 / step, accuracy=0.9, n_samples=10, seconds=1.0, time_unix_s=0.0
        )
        for step in (1, 2)
    )
    line = lines_of(report_csv(ranking(row(with_record(entry(), evals=evals)))))[0]
    assert (line["eval_loss"], line["eval_accuracy_ratio"]) == ("0.25", "0.9")


def test_losses_have_a_line_a_step_and_a_column_a_strategy(four):
    assert losses_csv(four) == "step,zero0,zero1,bf16,zero3\n1,2.0,2.0,2.0,\n2,1.0,1.0,1.5,\n"


def test_a_loss_keeps_every_digit():
    told = ranking(row(entry(losses=(0.1 + 0.2,))))
    assert float(lines_of(losses_csv(told))[0]["zero0"]) == 0.1 + 0.2
