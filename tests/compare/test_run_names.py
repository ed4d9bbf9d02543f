import re
import time

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.compare.run_names import RunToName, run_names
from tests.compare.made_up import entry

NOON = time.mktime((2026, 11, 25, 12, 0, 0, 0, 0, -1))
MINUTE, DAY = 60.0, 86400.0


def run(name="made-up", strategy="zero2", *, at=NOON, run_id=None, **made):
    """A run that bears its job's name, as a launch does, unless it is given another."""
    came_to = entry(strategy, **made)
    return RunToName(
        run_id=run_id or f"{id(came_to):032x}", name=name, entry=came_to, started_unix_s=at
    )


def lr(value, **more):
    return run(job={"training": {"optimizer": {"name": "adamw", "lr": value}}}, **more)


def test_launches_are_called_by_how_they_shard_and_not_by_their_jobs_name():
    assert run_names([run(), run(strategy="zero3-optim-cpu")]) == ["zero2", "zero3-optim-cpu"]


def test_a_run_that_was_given_a_name_keeps_it():
    assert run_names([run("the good one"), run("zero2-lr0.1"), run()]) == [
        "the good one",
        "zero2-lr0.1",
        "zero2",
    ]


def test_one_line_is_made_of_a_name_and_of_none_at_all_the_strategy():
    assert run_names([run("two\nlines\t here"), run(" \n")]) == ["two lines here", "zero2"]


def test_what_most_runs_have_goes_without_saying():
    runs = [run(strategy="zero0"), run(strategy="zero1"), run(), lr(0.01)]
    assert run_names(runs) == ["zero0", "zero1", "zero2", "zero2-lr0.01"]


def test_of_two_settings_that_are_equally_frequent_both_are_told():
    assert run_names([lr(0.001), lr(0.01)]) == ["zero2-lr0.001", "zero2-lr0.01"]


def test_a_setting_is_told_only_where_it_tells_runs_apart():
    runs = [lr(0.001), lr(0.01, strategy="zero3")]
    assert run_names(runs) == ["zero2", "zero3"]


def test_another_model_is_told_by_its_kind_and_not_by_every_setting_of_it():
    resnet = {"family": "resnet", "config": {"depths": [1, 1]}}
    users = {"family": None, "factory": "mine:net", "config": {"width": 9}}
    assert run_names([run(), run(job={"model": resnet}), run(job={"model": users})]) == [
        "zero2-mlp",
        "zero2-resnet",
        "zero2-mine:net",
    ]


def test_batches_are_told_as_they_came_out_whatever_the_job_says_of_them():
    assert run_names([run(), run(micro_batch_size=8), run(workers=4)]) == [
        "zero2",
        "zero2-micro8",
        "zero2-workers4",
    ]


def test_the_same_job_of_two_people_is_told_apart_by_them():
    assert run_names([run(user="alice"), run(user="Bob Ó/x"), run(user=None)]) == [
        "zero2-alice",
        "zero2-Bob_x",
        "zero2-unknown",
    ]


def test_the_same_job_on_two_devices_is_told_apart_by_them_and_not_by_who_ran_it():
    gpu = run(device="cuda", user="bob", circumstances={"devices": ("NVIDIA H100",)})
    assert run_names([run(user="alice"), gpu]) == ["zero2-cpu", "zero2-cuda"]
    other = run(device="cuda", user="bob", circumstances={"devices": ("NVIDIA A100",)})
    assert run_names([gpu, other]) == ["zero2-NVIDIA_H100", "zero2-NVIDIA_A100"]


def test_the_very_same_job_is_told_apart_by_when_it_ran():
    assert run_names([run(), run(at=NOON + DAY)]) == ["zero2-2026-11-25", "zero2-2026-11-26"]
    assert run_names([run(), run(at=NOON + MINUTE)]) == ["zero2-12:00", "zero2-12:01"]
    assert run_names([run(), run(at=NOON + 1)]) == ["zero2-12:00:00", "zero2-12:00:01"]


def test_what_began_in_the_same_second_is_told_apart_by_its_id():
    assert run_names([run(run_id="a" * 32), run(run_id="b" * 32)]) == [
        "zero2-aaaaaaaa",
        "zero2-bbbbbbbb",
    ]


def test_more_is_told_of_those_alone_that_are_still_alike():
    runs = [run(user="alice"), run(user="alice", at=NOON + MINUTE), run(user="bob")]
    assert run_names(runs) == ["zero2-alice-12:00", "zero2-alice-12:01", "zero2-bob"]


def test_a_name_that_was_made_gives_way_to_none_that_was_given():
    runs = [lr(0.001), lr(0.01), run("zero2-lr0.01", run_id="c" * 32)]
    names = run_names(runs)
    assert len(set(names)) == 3
    assert "zero2-lr0.01-cccccccc" in names


run_or_twin = st.builds(
    run,
    st.sampled_from(["made-up", "zero2", "zero2-alice", "zero2-12:00", ""]),
    st.sampled_from(["zero2", "zero3"]),
    at=st.sampled_from([NOON, NOON + 1, NOON + MINUTE, NOON + DAY]),
    user=st.sampled_from(["alice", "bob", None]),
    micro_batch_size=st.sampled_from([4, 8]),
    job=st.sampled_from([None, {"training": {"seed": 1}}, {"data": {"source": "text"}}]),
)


@given(st.lists(run_or_twin, max_size=12))
def test_no_two_runs_ever_have_the_same_name_and_none_is_without(runs):
    named = [
        RunToName(
            run_id=f"{n:08x}{n:024x}", name=r.name, entry=r.entry, started_unix_s=r.started_unix_s
        )
        for n, r in enumerate(runs)
    ]
    names = run_names(named)
    assert len(set(names)) == len(names) == len(runs)
    assert all(re.fullmatch(r"\S(.*\S)?", name) for name in names)
