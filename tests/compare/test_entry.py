import json
from dataclasses import asdict

import pytest

from orchestrator.compare.entry import entry_of, flat_settings
from tests.compare.made_up import JOB, entry

BATCH = {
    "global_batch_size": 16,
    "micro_batch_size": 4,
    "accumulation_steps": 2,
    "workers": 2,
}


def documents():
    plan = {
        "strategy": "zero1",
        "job": JOB,
        "batch": BATCH,
        "resources": {"device": "cpu"},
        "n_params": 1000,
    }
    summary = entry("zero1").record.to_json()
    return {
        "plan": json.loads(json.dumps(plan)),
        "summary": json.loads(json.dumps(summary)),
        "throughput": {"rounds": [{"samples_per_s": [1.0, 2.0]}, {"samples_per_s": [3.0]}]},
        "environment": {"commit": "abc"},
    }


def test_an_entry_is_read_from_the_documents_of_a_run():
    made = entry_of("mine", user="ann", **documents())
    assert (made.name, made.strategy, made.user, made.commit) == ("mine", "zero1", "ann", "abc")
    assert made.rounds == ((1.0, 2.0), (3.0,))
    assert made.peak_bytes == 21 * 2**20
    assert {name: getattr(made, name) for name in BATCH} == BATCH


def test_a_run_that_kept_no_throughput_has_no_rounds():
    assert entry_of("old", **{**documents(), "throughput": None, "environment": None}).rounds == ()


@pytest.mark.parametrize("document", ["plan", "summary"])
def test_documents_of_something_else_are_refused(document):
    with pytest.raises(ValueError, match="the documents of mine are not those of a run"):
        entry_of("mine", **{**documents(), document: {"job": {}}})


def test_a_setting_is_found_by_its_dotted_key():
    made = entry(job={"zero": {"stage": 3}})
    assert made.setting("zero.stage") == 3
    assert made.setting("zero.stage.deeper") is None
    assert made.setting("no.such.key") is None


def test_settings_are_flat():
    flat = flat_settings({"a": {"b": 1, "c": {"d": [1, 2]}, "e": {}}, "f": None})
    assert flat == {"a.b": 1, "a.c.d": [1, 2], "a.e": {}, "f": None}


def test_an_entry_without_ranks_has_no_peak():
    assert entry(rounds=(), losses=(), outcome="infeasible").peak_bytes is None
    assert asdict(entry())["record"]["outcome"] == "ok"
