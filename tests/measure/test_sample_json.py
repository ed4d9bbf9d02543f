import json
from typing import get_args

import pytest

from orchestrator.measure.ledger import empty_ledger
from orchestrator.measure.sample import (
    CudaMemory,
    GpuState,
    MemoryTimeline,
    ProbedMemory,
    RankDone,
    RankFailure,
    RankSpeed,
    Record,
    ResidentMemory,
)
from orchestrator.measure.sample_json import record_from_json, to_json

FAILURE = RankFailure(
    rank=None, step=3, time_unix_s=1.5, outcome="oom", message="no memory", details="trace\nback"
)
TIMELINE = MemoryTimeline(
    rank=1, step=2, time_unix_s=1.5, at_s=[0.0, 0.25], phase=["forward", "step"],
    ledger={"params": [1, 2], "gradients": [0, 3]},
)  # fmt: skip
SPEED = RankSpeed(
    rank=1,
    time_unix_s=1.5,
    model_flops=2e9,
    peak_flops_per_s=None,
    peak_source=None,
    batch_norm=True,
    draws_random=None,
)


@pytest.fixture
def full_sample(sample):
    """A sample in which everything is known."""
    ledgers = {"forward": {**empty_ledger(), "params": 5}}
    return sample(
        phase_peak_bytes={"forward": 3},
        probed=ProbedMemory(peak_ledgers=ledgers, edge_ledgers=ledgers, host_ledger=empty_ledger()),
        resident=ResidentMemory(start_bytes=1, peak_bytes={"forward": 2}, pss_bytes={}),
        cuda=CudaMemory(reserved_bytes=4, cached_bytes=3, fragmented_bytes=2, n_retries=1),
        gpu=GpuState(
            utilization_ratio=0.5, used_bytes=None, beyond_allocator_bytes=7, power_w=300.0
        ),
    )


def test_every_kind_of_record_survives_json(facts, sample, evaluation, node_sample, full_sample):
    records = [
        facts(), sample(), full_sample, TIMELINE, SPEED, node_sample(), evaluation(), FAILURE,
        RankDone(rank=1, time_unix_s=1.5),
    ]  # fmt: skip
    assert {type(record) for record in records} == set(get_args(Record))
    for record in records:
        assert record_from_json(json.loads(json.dumps(to_json(record)))) == record


def test_every_part_of_a_sample_comes_back_as_what_it_was(full_sample):
    again = record_from_json(json.loads(json.dumps(to_json(full_sample))))
    for name in ("probed", "resident", "cuda", "gpu"):
        assert type(getattr(again, name)) is type(getattr(full_sample, name))


def test_a_record_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown record kind 'gossip'"):
        record_from_json({"kind": "gossip"})


def test_a_record_that_lacks_a_field_is_refused(evaluation):
    values = to_json(evaluation())
    del values["accuracy"], values["loss"]
    with pytest.raises(ValueError, match="eval record lacks loss, accuracy"):
        record_from_json(values)
