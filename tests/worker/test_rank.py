"""A whole rank in this process: one worker under the plain engine."""

import time

import pytest

from orchestrator.measure.sample import (
    EvalResult,
    MemoryTimeline,
    NodeSample,
    RankDone,
    RankFacts,
    RankSample,
    RankSpeed,
    Record,
)
from orchestrator.worker.loop import DivergedError
from orchestrator.worker.place import Place
from orchestrator.worker.rank import run_rank
from tests.worker.ranks import free_port

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("this_process")]
ALONE = {"resources": {"workers": 1}}
POISON = """
import torch

class Rows(torch.utils.data.Dataset):
    def __init__(self, poisoned):
        self.poisoned = poisoned
    def __len__(self):
        return 64
    def __getitem__(self, i):
        x = torch.full((4,), float("nan") if i in self.poisoned else float(i % 7))
        return {"pixel_values": x, "labels": i % 2}

def build(poisoned):
    return {"train": Rows(set(poisoned)), "eval": Rows(set())}
"""


def train(made):
    records: list[Record] = []
    place = Place(
        rank=0,
        world_size=1,
        local_rank=0,
        node="here",
        master_address="127.0.0.1",
        master_port=free_port(),
        entered_unix_s=time.time(),
    )
    try:
        run_rank(made, place, put=records.append, timeout_s=30)
    except DivergedError as err:
        return records, err
    return records, None


def test_a_rank_tells_facts_then_samples_then_an_evaluation(plan):
    schedule = {"name": "linear", "warmup_steps": 2}
    records, error = train(
        plan(
            **ALONE,
            training={
                "engine": "torch",
                "steps": 5,
                "optimizer": {"lr": 1.0},
                "schedule": schedule,
                "eval_every_steps": 2,
            },
        )
    )
    assert error is None
    kinds = [type(record) for record in records]
    assert kinds == [
        RankFacts, RankSample, NodeSample, RankSample, MemoryTimeline, EvalResult, RankSample,
        RankSample, RankSpeed, EvalResult, RankSample, EvalResult, RankDone,
    ]  # fmt: skip
    facts = records[0]
    assert (facts.total_steps, facts.n_params, facts.device) == (5, 85_002, "cpu")
    assert facts.n_train_samples + facts.n_eval_samples == 1797
    assert set(facts.startup_s) == {"imports", "process_group", "data", "model", "engine"}
    # fp32 weights: nothing else rests on the device before the first step
    assert facts.init_peak_bytes == pytest.approx(4 * 85_002, rel=0.01)
    samples = [record for record in records if isinstance(record, RankSample)]
    assert [sample.step for sample in samples] == [1, 2, 3, 4, 5]
    assert [sample.lr for sample in samples] == pytest.approx([0.5, 1.0, 0.75, 0.5, 0.25])
    assert {sample.n_samples for sample in samples} == {16}
    assert {sample.n_tokens for sample in samples} == {None}
    assert all((sample.grad_norm or 0) > 0 for sample in samples)
    evaluations = [record for record in records if isinstance(record, EvalResult)]
    assert [result.step for result in evaluations] == [2, 4, 5]
    assert {result.n_samples for result in evaluations} == {facts.n_eval_samples}
    assert all(0 <= (result.accuracy or 0) <= 1 for result in evaluations)


def test_epochs_are_rounded_up_to_whole_steps(plan):
    made = plan(
        **ALONE, training={"engine": "torch", "epochs": 1, "steps": None, "global_batch_size": 500}
    )
    records, _ = train(made)
    # 1,438 of 1,797 digits are trained on: 2.9 batches of 500
    assert records[0].total_steps == 3


def test_a_plain_run_learns_the_digits(plan):
    records, _ = train(plan(**ALONE, training={"engine": "torch", "steps": 60}))
    losses = [record.loss for record in records if isinstance(record, RankSample)]
    assert losses[0] == pytest.approx(2.303, abs=0.4)
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]


def test_a_loss_that_is_not_a_number_ends_the_run_and_is_placed(plan, write_module):
    write_module("poisoned_rows", POISON)
    # Every step takes all 64 samples; sample 5 is read in the first.
    made = plan(
        **ALONE,
        model={
            "family": "mlp",
            "config": {"input_size": 4, "num_labels": 2, "hidden_sizes": [3]},
        },
        data={"factory": "poisoned_rows:build", "config": {"poisoned": [5]}},
        training={"engine": "torch", "global_batch_size": 64, "micro_batch_size": 16},
    )
    records, error = train(made)
    assert str(error) == "the loss is nan in step 1 on rank 0"
    assert [type(record) for record in records] == [RankFacts]
