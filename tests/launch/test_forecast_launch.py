"""`launch` with its forecast, on real runs: what is too big does not start, what is told holds."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.forecast.receipts import load_receipts
from orchestrator.units import GIB
from tests.launch.command import Command

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

# 16 MiB holds no strategy that keeps Adam's state on the device of two ranks.
BUDGET_GIB = 2**-6
JOB = f"""
name: told
model: {{family: mlp, config: {{hidden_sizes: [1000, 900]}}}}
data: {{source: synthetic, image_size: 8, channels: 1, n_eval_samples: 16}}
training: {{steps: 3, global_batch_size: 16, micro_batch_size: 4}}
zero: {{stage: 0}}
resources: {{workers: 2, device: cpu, cpus_per_worker: 0.5, memory_budget_gib: {BUDGET_GIB}}}
"""
# Weights, gradients and Adam's two, which a rank without sharding holds.
N_BYTES = 16 * (64 * 1000 + 1000 + 1000 * 900 + 900 + 900 * 10 + 10)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    path = tmp_path_factory.mktemp("told") / "job.yaml"
    path.write_text(JOB, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(job):
    """Give one command; forecasts are kept for the next, and not with those of the user."""
    commands = []

    def command(verb, *arguments, home):
        ran = Command(
            *(verb, "--json", *arguments),
            home=job.parent / home,
            forecast=True,
            XDG_CACHE_HOME=str(job.parent / "cache"),
        )
        commands.append(ran)
        return ran.wait()

    yield command
    for one in commands:
        one.close()


@pytest.fixture(scope="module")
def refused(run, job):
    """Stage 0, which needs too much."""
    return run("launch", job, home="refused")


@pytest.fixture(scope="module")
def launched(run, job, refused):
    """What is told to fit and what is forced, side by side: a run waits more than it works."""
    changes = refused.answer["forecast"]["remedy"]["overrides"]
    arguments = [word for change in changes for word in ("--set", change)]
    with ThreadPoolExecutor(2) as pool:
        mended = pool.submit(run, "launch", job, *arguments, home="mended")
        forced = pool.submit(run, "launch", job, "--force", home="forced")
    return mended.result(), forced.result()


@pytest.fixture(scope="module")
def mended(launched):
    """The same with what is told to fit."""
    return launched[0]


@pytest.fixture(scope="module")
def forced(launched):
    """Stage 0, launched all the same."""
    return launched[1]


class TestWhatDoesNotFit:
    def test_it_ends_with_exit_code_3_and_what_would_fit(self, refused):
        assert refused.exit_code == 3
        answer = refused.answer
        assert (answer["outcome"], answer["exit_code"]) == ("infeasible", 3)
        forecast = answer["forecast"]
        assert forecast["verdict"] == "TOO_BIG"
        assert forecast["method"] == "shadow"
        assert forecast["budget_bytes"] == BUDGET_GIB * GIB
        assert forecast["device_bytes"]["total"] > N_BYTES
        remedy = forecast["remedy"]
        assert remedy["needed_bytes"] <= BUDGET_GIB * GIB
        for change in remedy["overrides"]:
            assert f"--set {change}" in answer["error"]

    def test_the_last_line_tells_the_same(self, job, refused):
        last = refused.stderr.splitlines()[-1]
        assert last == refused.answer["error"]
        assert last.startswith(f"{job}: it does not fit: ")
        assert last.endswith("or launch it all the same with --force")
        assert "Traceback" not in refused.stderr

    def test_nothing_was_started(self, refused):
        assert not (refused.home / "runs").exists()
        assert not (refused.home / "mlflow.db").exists()
        assert load_receipts(refused.home / "receipts").kept == ()
        assert refused.left_running() == []
        assert refused.left_behind() == []


class TestWhatIsToldToFit:
    def test_it_runs_within_the_budget(self, mended):
        assert mended.exit_code == 0, mended.stderr
        assert mended.answer["outcome"] == "ok"
        assert mended.answer["forecast"]["verdict"] == "FITS"
        for rank in mended.answer["ranks"]:
            assert rank["peak_bytes"] < BUDGET_GIB * GIB

    def test_the_forecast_stands_beside_what_was_measured(self, mended):
        answer = mended.answer
        assert answer["forecast"]["method"] == "shadow"
        ratio = answer["forecast_error_ratio"]
        assert abs(ratio) < 0.01
        row = answer["ranks"][answer["forecast"]["rank"]]
        forecast_bytes = answer["forecast"]["device_bytes"]["total"]
        assert ratio == pytest.approx((forecast_bytes - row["peak_bytes"]) / row["peak_bytes"])
        assert answer["forecast"]["host_bytes"] == row["host_bytes"] > 0

    def test_it_is_what_was_told_when_the_job_was_refused(self, mended, refused):
        remedy = refused.answer["forecast"]["remedy"]
        assert mended.answer["forecast"]["strategy"] == remedy["strategy"]
        assert mended.answer["forecast"]["device_bytes"]["total"] == remedy["peak_bytes"]
        assert max(rank["peak_bytes"] for rank in mended.answer["ranks"]) <= remedy["needed_bytes"]

    def test_a_receipt_is_left(self, mended):
        receipts = load_receipts(mended.home / "receipts")
        assert receipts.unreadable == ()
        (receipt,) = receipts.kept
        assert receipt.run_key == mended.folder.name
        assert receipt.peak_error_ratio == mended.answer["forecast_error_ratio"]
        assert receipt.phase_error_ratios().keys() == {"init", "forward", "backward", "step"}
        assert receipt.workers == 2
        assert receipt.method == "shadow"

    def test_a_later_look_at_accuracy_counts_it(self, mended, run):
        told = run("forecast", "--accuracy", home="mended")
        assert told.exit_code == 0
        of_all = [row for row in told.answer["rows"] if row["group"] == {}]
        assert [(row["observed"], row["n"]) for row in of_all] == [("peak", 1), ("phase", 4)]
        ratio = abs(mended.answer["forecast_error_ratio"])
        assert of_all[0]["median_ratio"] == of_all[0]["p95_ratio"] == pytest.approx(ratio)
        assert of_all[0]["worst"]["run_key"] == mended.folder.name

    def test_it_is_tracked_as_one_that_fits(self, mended):
        tags = dict(mended.tracked("select key, value from tags"))
        assert tags["orchestrator.forecast"] == "FITS"
        assert "orchestrator.forced" not in tags
        assert _plan_of(mended.folder)["forced"] is False
        # A run that fits says nothing of a way out.
        assert "--force" not in mended.stderr


class TestWhatIsForced:
    def test_it_runs_although_it_does_not_fit(self, forced):
        assert forced.exit_code == 0, forced.stderr
        assert forced.answer["outcome"] == "ok"
        assert forced.answer["forecast"]["verdict"] == "TOO_BIG"
        for rank in forced.answer["ranks"]:
            assert rank["peak_bytes"] > max(N_BYTES, BUDGET_GIB * GIB)
        assert abs(forced.answer["forecast_error_ratio"]) < 0.01

    def test_its_plan_and_its_tags_say_so(self, forced):
        plan = _plan_of(forced.folder)
        assert plan["forced"] is True
        assert plan["forecast"]["verdict"] == "TOO_BIG"
        tags = dict(forced.tracked("select key, value from tags"))
        assert tags["orchestrator.forced"] == "true"
        assert tags["orchestrator.forecast"] == "TOO_BIG"


def _plan_of(folder: Path):
    return json.loads((folder / "artifacts" / "plan.json").read_text(encoding="utf-8"))
