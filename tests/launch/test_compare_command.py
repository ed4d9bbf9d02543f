"""`compare` as a person uses it, on a Ray of its own: well, broken, stopped, killed, isolated."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.measure.sample import RankFacts
from orchestrator.track.spool import records_in
from tests.launch.command import Command
from tests.launch.compare_series import (
    WAYS,
    Series,
    broken,
    nothing_fits,
    run,
    stopped,
    well,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
# From the design: what scripts lean on.
ANSWER = {"rows", "baseline", "winners", "report", "seconds"}
ROW = {"strategy", "outcome", "run_id", "peak_bytes", "forecast_peak_bytes", "samples_per_s",
       "samples_per_s_interval", "final_loss", "same_loss", "max_loss_difference",
       "pareto"}  # fmt: skip


def folder_of(command: Command) -> Path:
    """The folder of its comparison."""
    return Path(command.answer["report"]).parents[2]


def pids_in(folder: Path) -> list[set[int]]:
    """The processes of the ranks, of each turn and control."""
    return [
        {record.pid for record in records_in(path) if isinstance(record, RankFacts)}
        for path in folder.glob("*/**/records.jsonl")
        if "too-big" not in str(path)
    ]


def by_name(command: Command) -> dict[str, dict[str, Any]]:
    return {row["strategy"]: row for row in command.answer["rows"]}


@pytest.fixture(scope="module")
def all_series(request, tmp_path_factory) -> Iterator[dict[str, Future[Series]]]:
    """Way -> its commands, for what the selected tests look at; two are run at a time."""
    asked = {
        item.callspec.params.get("series")
        for item in request.session.items
        if hasattr(item, "callspec") and item.module is request.module
    }
    with ThreadPoolExecutor(2) as pool:
        begun = {
            name: pool.submit(run, way, tmp_path_factory.mktemp("compare"))
            for name, way in WAYS.items()
            if name in asked
        }
        yield begun
        ended = [future for future in begun.values() if not future.cancel()]
    for future in ended:
        if future.exception() is None:
            for command in future.result().commands:
                command.close()


@pytest.fixture
def series(all_series, request) -> Series:
    found: Series = all_series[request.param].result()
    return found


def of(way: Callable[[Series], None]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("series", [way.__name__], indirect=True)


@of(well)
class TestAComparisonThatGoesWell:
    @pytest.fixture
    def command(self, series):
        """The first; the second is isolated."""
        return series.commands[0]

    def test_it_answers_with_what_scripts_lean_on(self, command):
        # One does not fit, and that is a result.
        assert command.exit_code == 0, command.stderr
        assert len(command.stdout.splitlines()) == 1
        assert command.answer.keys() >= ANSWER
        rows = by_name(command)
        assert list(rows) == ["zero0", "zero2", "fast", "too-big"]
        assert all(row.keys() >= ROW for row in rows.values())
        assert command.answer["baseline"] == "zero0"
        assert set(command.answer["winners"]) == {"fastest", "smallest", "balanced"}
        assert 0 < command.answer["seconds"] < command.seconds
        for name in ("zero0", "zero2", "fast"):
            row = rows[name]
            low, high = row["samples_per_s_interval"]
            assert (row["outcome"], row["n_rounds"]) == ("ok", 2)
            assert row["peak_bytes"] == row["forecast_peak_bytes"] > 0
            assert low <= row["samples_per_s"] <= high

    def test_what_does_not_fit_by_its_forecast_is_a_row_and_never_runs(self, command):
        row = by_name(command)["too-big"]
        assert row["outcome"] == "infeasible"
        assert (row["peak_bytes"], row["final_loss"], row["same_loss"]) == (None, None, None)
        assert row["forecast_peak_bytes"] > 10_737
        assert row["message"].startswith("it does not fit by its forecast: ")
        assert row["message"].endswith("run it all the same with --force")
        told = records_in(folder_of(command) / "strategies/03-too-big/records.jsonl")
        assert [record.kind for record in told] == ["failure"]

    def test_the_same_again_in_processes_of_its_own_holds_the_same_memory_to_the_byte(self, series):
        in_turns, isolated = map(by_name, series.commands)
        assert series.command.exit_code == 0, series.command.stderr
        assert list(isolated) == ["zero0", "zero2"]
        for name, row in isolated.items():
            assert row["ledger"] == in_turns[name]["ledger"]
            assert row["peak_bytes"] == in_turns[name]["peak_bytes"]
            assert row["final_loss"] == in_turns[name]["final_loss"]
            assert row["run_id"] != in_turns[name]["run_id"]

    def test_isolated_every_turn_has_processes_of_its_own(self, series):
        in_turns, isolated = (pids_in(folder_of(command)) for command in series.commands)
        # Three strategies in two rounds, or two in one; and the baseline with its weights moved,
        # three times in the same processes.
        assert (len(in_turns), len(set.union(*in_turns))) == (3 * 2 + 3, 2)
        assert (len(isolated), len(set.union(*isolated))) == (2 + 3, 2 * 3)
        text = series.command.stderr
        assert "\nStarting 2 ranks for zero2\n" in text
        assert "\nStarting 2 ranks for zero0 from weights moved by a bit, in 3 turns" in text

    def test_losses_are_held_against_the_baselines(self, command):
        rows = by_name(command)
        assert rows["zero2"]["same_loss"] in ("bitwise", "rounding")
        assert rows["fast"]["same_loss"] == "not_comparable"
        assert "training.optimizer.lr" in rows["fast"]["same_loss_reason"]

    def test_a_person_reads_the_table_on_stderr(self, command):
        text = command.stderr
        for line in (
            r"Comparison of well: 4 strategies",
            r"  too-big +2 +8 x 2 +\S+ MiB  TOO_BIG, not run",
            r"  too-big  infeasible: it does not fit by its forecast: .*--force",
            r"Starting 2 ranks for 3 strategies in 9 turns; this takes about ten seconds",
            r"  zero0  +\d+\.\d MiB +[\d,.]+ samples/s  loss \d\.\d{4}",
            r"All turns are over; drawing and writing the report",
            r"[* ]  zero0 \(base\) +ok +1\.80 .*",
            r"  smallest  \w+: a peak of .*",
            r"Look at it with: make ui ARGS='--home .*'",
        ):
            assert re.search(f"^{line}$", text, re.MULTILINE), (line, text)
        assert "Traceback" not in text
        assert "Warning" not in text
        assert "a device" not in text, "the budget of one strategy is not that of all"

    def test_mlflow_has_a_run_with_a_child_for_every_strategy(self, series, command):
        parents = command.tracked("select value from tags where key = 'mlflow.parentRunId'")
        first, second = (one.answer["run_id"] for one in series.commands)
        assert Counter(parents) == {first: 4, second: 2}
        children = "select r.name, r.status from runs r join tags t using (run_uuid) "
        children += "where t.key = 'mlflow.parentRunId' and t.value = "
        assert sorted(command.tracked(f"{children}'{command.answer['run_id']}'")) == [
            ("fast", "FINISHED"),
            ("too-big", "FAILED"),
            ("zero0", "FINISHED"),
            ("zero2", "FINISHED"),
        ]
        of_parent = f"select name, status from runs where run_uuid = '{command.answer['run_id']}'"
        assert command.tracked(of_parent) == [("well comparison", "FINISHED")]
        (file,) = (series.home / "artifacts").glob(
            f"*/{command.answer['run_id']}/artifacts/report/comparison.md"
        )
        assert file.read_text() == Path(command.answer["report"]).read_text()

    def test_the_report_lies_among_the_artifacts(self, command):
        folder = Path(command.answer["report"]).parent
        names = {path.name for path in folder.iterdir()}
        assert names >= {"comparison.md", "comparison.csv", "losses.csv", "plots"}
        assert any((folder / "plots").glob("*.png"))
        assert any((folder_of(command) / "strategies/00-zero0/artifacts/plots").glob("*.png"))

    def test_nothing_is_left(self, series):
        assert series.left == []
        assert list(series.home.glob("**/*unsent*")) == []


BROKEN_MESSAGES = {
    "mistake": r"rank 1 failed after step 4: ValueError: the user's own mistake; see "
    r"logs/failure.txt",
    "memory": r"rank 1 ran out of memory after step 4: no room for it; raise zero.stage, offload, "
    r"or lower micro_batch_size",
    "killed": r"rank 1 was killed by SIGKILL \(pid \d+\) after step 4; if it was the kernel's "
    r"out-of-memory killer, raise zero.stage or lower micro_batch_size",
    "hangs": r"it hangs: no rank goes on after step 4, and nothing was heard for 6.0 s; look at "
    r"what the model or the data wait for there, or raise compare.hang_timeout_s",
    "diverges": r"the loss is nan in step \d on rank [01]; lower training.optimizer.lr or set "
    r"training.gradient_clipping, and look at the data of that step",
    "too-many": r"job.yaml:6:13: resources.workers: 50 workers x 0.5 CPUs need 25 CPUs and this "
    r"machine has \d+; lower resources.workers or .*",
}


@of(broken)
class TestAComparisonInWhichAlmostAllFail:
    def test_every_failure_is_a_row_with_its_outcome_cause_and_next_step(self, series):
        rows = by_name(series.command)
        assert {name: row["outcome"] for name, row in rows.items()} == {
            "well": "ok",
            "mistake": "failed",
            "memory": "oom",
            "killed": "failed",
            "hangs": "failed",
            "diverges": "diverged",
            "too-many": "infeasible",
            "alone": "ok",
        }
        for name, message in BROKEN_MESSAGES.items():
            assert re.search(f"{message}$", rows[name]["message"]), rows[name]["message"]
            assert f"  {name:<8}  {rows[name]['outcome']}: " in series.command.stderr
        assert series.command.exit_code == 1

    def test_those_that_go_well_have_all_their_rounds(self, series):
        rows = by_name(series.command)
        assert [rows[name]["n_rounds"] for name in ("well", "alone")] == [2, 2]
        assert [rows[name]["workers"] for name in ("well", "alone")] == [2, 1]
        assert rows["well"]["final_loss"] > 0

    def test_what_failed_says_where_to_read_on(self, series):
        text = series.command.stderr
        assert "\ndetails of what failed\n" in text
        (path,) = re.findall(r"^  mistake +(\S+failure.txt)$", text, re.MULTILINE)
        details = (series.folder / path).read_text()
        assert re.search(r"users.py\", line \d+, in forward", details)
        assert "Traceback" not in text

    def test_mlflow_has_the_same_outcomes(self, series):
        query = "select name, status from runs order by name"
        assert series.command.tracked(query) == [
            ("alone", "FINISHED"),
            ("diverges", "FAILED"),
            ("hangs", "FAILED"),
            ("killed", "FAILED"),
            ("memory", "FAILED"),
            ("mistake", "FAILED"),
            ("too-many", "FAILED"),
            ("users comparison", "FAILED"),
            ("well", "FINISHED"),
        ]

    def test_nothing_is_left(self, series):
        assert series.left == []
        assert list(series.home.glob("**/*unsent*")) == []


@of(stopped)
class TestAComparisonThatIsStoppedAndKilled:
    def test_ctrl_c_shows_what_there_is(self, series):
        first = series.commands[0]
        assert first.exit_code == 130
        rows = by_name(first)
        assert {name: row["outcome"] for name, row in rows.items()} == {
            "a": "ok",
            "b": "interrupted",
        }
        assert first.answer["interrupted"] is True
        assert "strategies are complete; the same command goes on" in first.stderr
        assert re.search(r"^\*  a \(base\) +ok ", first.stderr, re.MULTILINE)
        assert "Traceback" not in first.stderr

    def test_the_same_command_goes_on_and_measures_nothing_twice(self, series):
        assert [command.process.returncode for command in series.commands] == [130, -9, 0]
        rows = by_name(series.command)
        assert {row["outcome"] for row in rows.values()} == {"ok"}
        assert [row["n_rounds"] for row in rows.values()] == [2, 2, 2]
        assert rows["a"]["run_id"] == by_name(series.commands[0])["a"]["run_id"]
        # Of the command that was killed the first round and a's second were whole.
        there = {name for name, at in series.told().items() if series.spools.get(name) == at}
        assert there >= {
            "strategies/00-a/records.jsonl",
            "strategies/00-a/rounds/2/records.jsonl",
            "strategies/01-b.2/records.jsonl",
            "strategies/02-c/records.jsonl",
        }
        strategies = [name for name in series.told() if name.startswith("strategies/")]
        assert len({name.partition("/r")[0] for name in strategies}) == 4
        assert "Going on with " in series.command.stderr

    def test_mlflow_has_every_strategy_finished_once(self, series):
        query = "select name, status from runs order by name, status"
        assert series.command.tracked(query) == [
            ("a", "FINISHED"),
            ("b", "FINISHED"),
            ("b", "KILLED"),
            ("c", "FINISHED"),
            ("users comparison", "FINISHED"),
        ]

    def test_nothing_is_left(self, series):
        assert series.left == []


@of(nothing_fits)
def test_where_nothing_fits_the_exit_code_says_so(series):
    assert series.command.exit_code == 3
    assert {row["outcome"] for row in series.command.answer["rows"]} == {"infeasible"}
    assert series.command.answer["winners"] == {
        "fastest": None,
        "smallest": None,
        "balanced": None,
    }
    assert "Starting" not in series.command.stderr
    assert series.left == []
