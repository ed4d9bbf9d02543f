import json
import math
from dataclasses import replace

import pytest

from orchestrator.measure.run_record_json import run_record_from_json
from orchestrator.measure.summary import summarize


@pytest.fixture
def record(facts, sample, evaluation):
    steps = [
        sample(rank=rank, step=step, loss=1.0 / step, probe=step == 2)
        for step in (1, 2, 3, 4)
        for rank in (0, 1)
    ]
    told = [facts(rank=0, world_size=2), facts(rank=1, world_size=2), *steps, evaluation(step=4)]
    return summarize(told, name="a run", outcome="ok", started_unix_s=0.0, run_id="r1")


def read_back(record):
    return run_record_from_json(json.loads(json.dumps(record.to_json())))


def test_a_record_comes_back_as_it_was_but_for_when_it_was_evaluated(record):
    back = read_back(record)
    assert back.evals[0].loss == record.evals[0].loss
    assert replace(back, evals=record.evals) == record


def test_a_loss_that_was_no_number_is_none_again(record):
    back = read_back(replace(record, losses=(1.0, math.nan)))
    assert back.losses[0] == 1.0
    assert math.isnan(back.losses[1])


def test_the_forecast_peak_comes_back_with_the_forecast(record):
    forecast = {"device_bytes": {"total": 5}}
    record = replace(record, forecast=forecast, forecast_peak_bytes=5, forecast_error_ratio=0.5)
    assert read_back(record).forecast_peak_bytes == 5


def test_a_document_without_its_keys_is_refused():
    with pytest.raises(KeyError, match="circumstances"):
        run_record_from_json({"run_id": None})
