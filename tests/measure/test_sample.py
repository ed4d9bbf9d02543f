import json

import pytest

from orchestrator.measure.sample import RankFailure, record_from_json, to_json


def test_every_kind_of_record_survives_json(facts, sample, evaluation):
    failure = RankFailure(
        rank=None,
        step=3,
        time_unix_s=1.5,
        outcome="oom",
        message="no memory",
        details="trace\nback",
    )
    records = [facts(), sample(phase_peak_bytes={"forward": 3}), evaluation(), failure]
    for record in records:
        assert record_from_json(json.loads(json.dumps(to_json(record)))) == record


def test_a_record_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown record kind 'gossip'"):
        record_from_json({"kind": "gossip"})


def test_a_record_that_lacks_a_field_is_refused(evaluation):
    values = to_json(evaluation())
    del values["accuracy"], values["loss"]
    with pytest.raises(ValueError, match="eval record lacks loss, accuracy"):
        record_from_json(values)
