"""The folder of a comparison: who holds it, what it is found by, what lies where."""

from dataclasses import replace

import pytest

from orchestrator.compare.strategies import strategies_of
from orchestrator.errors import UsageError
from orchestrator.launch.comparison.folder import (
    ComparisonFolder,
    State,
    fingerprint,
    new_folder,
    outdated,
    unfinished,
)
from orchestrator.launch.comparison.planned import PlannedStrategy
from orchestrator.launch.home import open_home
from orchestrator.plan.launch_plan import make_plan
from tests import small_jobs

USERS = {"factory": "users:model", "config": {}}


@pytest.fixture
def home(tmp_path):
    return open_home(tmp_path / "home")


@pytest.fixture
def make(home):
    made = []

    def make_one(at_unix_s: float = 0, **changes: object) -> ComparisonFolder:
        folder = new_folder(home, name="job", at_unix_s=at_unix_s, fingerprint="same")
        state = State(
            name="job",
            fingerprint="same",
            started_unix_s=at_unix_s,
            strategies=("zero0",),
            complete=False,
            spent_s=1.5,
        )
        folder.write(replace(state, **changes))  # type: ignore[arg-type]
        made.append(folder)
        return folder

    yield make_one
    for folder in made:
        folder.release()


def planned_of(folder, **changes):
    job = small_jobs.write_job(folder, **changes)
    planned = []
    for strategy in strategies_of(job.spec):
        own = replace(job, spec=strategy.spec)
        plan = make_plan(own, machine=small_jobs.MACHINE, n_params=10)
        planned.append(PlannedStrategy(strategy=strategy, job=own, plan=plan, infeasible=None))
    return job, planned


def print_of(folder, *, machine=small_jobs.MACHINE, **changes):
    job, planned = planned_of(folder, **{"compare": {"axes": {"zero.stage": [0, 1]}}, **changes})
    return fingerprint(planned, job.spec.compare, machine=machine)


def test_what_it_says_of_itself_is_read_back(make):
    folder = make()
    assert folder.state().spent_s == 1.5
    assert folder.state().strategies == ("zero0",)


def test_the_newest_that_is_not_complete_is_found(make, home):
    for at_unix_s, complete in ((1e9, False), (2e9, False), (3e9, True)):
        make(at_unix_s, complete=complete).release()
    found = unfinished(home, fingerprint="same")
    assert found is not None
    found.release()
    assert found.state().started_unix_s == 2e9


def test_another_fingerprint_is_another_comparison(make, home):
    make().release()
    assert unfinished(home, fingerprint="another") is None


def test_one_that_another_command_works_on_is_left_to_it(make, home):
    folder = make()
    assert unfinished(home, fingerprint="same") is None
    folder.release()
    found = unfinished(home, fingerprint="same")
    assert found is not None
    found.release()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "job"}', '{"strategies": null}'])
def test_a_damaged_state_is_none_to_go_on_with(make, home, text):
    folder = make()
    folder.release()
    (folder.path / "state.json").write_text(text)
    assert unfinished(home, fingerprint="same") is None


def test_a_new_folder_that_is_in_use_is_refused(make, home):
    make()
    with pytest.raises(UsageError, match="is in use by another comparison; wait for it to end"):
        new_folder(home, name="job", at_unix_s=0, fingerprint="same")


def test_the_newest_that_was_begun_under_other_circumstances_is_told(make, home):
    one = make(1e9, fingerprint="another")
    one.release()
    assert outdated(home, name="job", fingerprint="same") == one.key
    assert outdated(home, name="job", fingerprint="another") is None
    assert outdated(home, name="other", fingerprint="same") is None
    make(2e9, complete=True).release()
    assert outdated(home, name="job", fingerprint="same") is None, "there is a newer one"


def test_attempts_are_counted_and_the_newest_is_last(make):
    folder = make()
    names = []
    for _ in range(3):
        path = folder.next_attempt(7, "zero2")
        path.mkdir(parents=True)
        names.append(path.name)
    assert names == ["07-zero2", "07-zero2.2", "07-zero2.3"]
    assert [path.name for path in folder.attempts(7, "zero2")] == names


def test_the_same_job_has_the_same_fingerprint(tmp_path):
    assert print_of(tmp_path) == print_of(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"seed": 1}},
        {"data": {"source": "digits", "image_size": 16}},
        {"compare": {"axes": {"zero.stage": [0, 2]}}},
        {"compare": {"axes": {"zero.stage": [0, 1]}, "rounds": 2}},
        {"machine": replace(small_jobs.MACHINE, n_cpus=4)},
        {"machine": replace(small_jobs.MACHINE, name="the cluster at head:6379")},
    ],
    ids=str,
)
def test_whatever_a_measurement_depends_on_changes_the_fingerprint(tmp_path, change):
    assert print_of(tmp_path, **change) != print_of(tmp_path)


@pytest.mark.parametrize("with_it", ["first", "second"])
def test_the_users_own_code_changes_the_fingerprint(tmp_path, with_it):
    """Also where only a later strategy uses it."""
    built_in = {"family": "mlp"}
    models = [USERS, built_in] if with_it == "first" else [built_in, USERS]
    variants = [{"name": f"v{n}", "model": model} for n, model in enumerate(models)]
    (tmp_path / "users.py").write_text("one = 1")
    before = print_of(tmp_path, compare={"variants": variants})
    (tmp_path / "users.py").write_text("one = 2")
    assert print_of(tmp_path, compare={"variants": variants}) != before


TEXT = {"source": "text", "path": "texts", "max_bytes": None}
GPT2 = {"model": {"family": "gpt2"}, "data": TEXT}


@pytest.mark.parametrize("change", ["longer", "another file"])
def test_the_users_own_text_changes_the_fingerprint(tmp_path, change):
    text = tmp_path / "texts" / "below" / "one.txt"
    text.parent.mkdir(parents=True)
    text.write_text("one" * 1000)
    before = print_of(tmp_path, **GPT2)
    assert print_of(tmp_path, **GPT2) == before
    if change == "longer":
        text.write_text("two" * 1001)
    else:
        (text.parent / "two.txt").write_text("two")
    assert print_of(tmp_path, **GPT2) != before


def test_a_text_that_is_missing_is_for_whoever_reads_it_to_tell(tmp_path):
    assert print_of(tmp_path, **GPT2) == print_of(tmp_path, **GPT2)
