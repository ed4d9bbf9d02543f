"""Editors check a job file against a JSON schema that says what the loader says."""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import orchestrator.spec
from orchestrator.spec.schema import SCHEMA_FILE, job_schema, schema_text

COMMITTED = Path(orchestrator.spec.__file__).parent / SCHEMA_FILE


def is_valid(job: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(job_schema()).is_valid(job))


def changed(text: str, changes: str) -> Any:
    return yaml.safe_load(text) | yaml.safe_load(changes)


def test_the_committed_schema_is_current():
    if os.environ.get("GOLDEN") == "1":
        COMMITTED.write_text(schema_text(), encoding="utf-8")
    assert COMMITTED.read_text(encoding="utf-8") == schema_text(), "run `make golden`"


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(job_schema())
    assert json.loads(schema_text()) == job_schema()


def test_every_section_is_closed_and_every_key_described():
    sections = [job_schema(), *job_schema()["$defs"].values()]
    for section in sections:
        assert section["additionalProperties"] is False
        for name, key in section["properties"].items():
            assert key["description"], name


@pytest.mark.parametrize(
    "changes",
    [
        "{}",
        "model: {family: gpt2, config: {n_embd: 8}}",
        "model: {factory: 'a:b', config: {x: [1]}}",
        "data: {factory: 'a:b'}",
        "data: {source: synthetic, kind: tokens}",
        "training: {epochs: 3, micro_batch_size: 2, optimizer: {lr: 0.1, betas: [0.9, 0.95]}}",
        "zero: {stage: 3, offload_params: nvme, nvme_path: /x}",
        "deepspeed: ds.json",
        "deepspeed: {zero_optimization: {stage: 3}}",
        "resources: {memory_budget_gib: 16GiB}",
        "resources: {memory_budget_gib: 16.5, cpus_per_worker: 1}",
        "compare: null",
        "compare: {axes: {zero.stage: [0, 1]}, exclude: [{zero.stage: 0}]}",
        "compare: {variants: [{name: a, zero.stage: 1}]}",
        "model: {family: resnet, config: {depths: [1], hidden_sizes: [8]}}",
    ],
)
def test_the_schema_accepts_what_is_right(small_job, changes):
    assert is_valid(changed(small_job, changes))


@pytest.mark.parametrize(
    "changes",
    [
        "name: Bad Name",
        "name: 3",
        "nam: x",
        "model: {family: bert}",
        "model: {family: cnn, factory: 'a:b'}",
        "model: {family: resnet, config: {n_embd: 3}}",
        "model: {family: resnet, config: {depths: []}}",
        "model: {family: resnet, config: {depths: [0]}}",
        "model: {}",
        "data: {source: digits, sequence_length: 3}",
        "data: {source: digits, eval_fraction: 0}",
        "data: {source: digits, channels: 2}",
        "training: {steps: 0}",
        "training: {steps: abc}",
        "training: {optimizer: {lr: 0}}",
        "training: {optimizer: {lr: -1}}",
        "training: {optimizer: {betas: [0.9]}}",
        "training: {optimizer: {betas: [0.9, 0.9, 0.9]}}",
        "training: {precision: fp8}",
        "training: {activation_checkpointing: 'on'}",
        "zero: {stage: 4}",
        "zero: {stge: 1}",
        "zero: null",
        "deepspeed: 3",
        "resources: {workers: 0}",
        "resources: {memory_budget_gib: -1}",
        "compare: {axes: {zero.stage: 1}}",
    ],
)
def test_the_schema_refuses_what_is_wrong(small_job, changes):
    assert not is_valid(changed(small_job, changes))


@pytest.mark.parametrize("key", ["name", "model", "data", "training"])
def test_the_schema_knows_what_must_be_there(small_job, key):
    job = yaml.safe_load(small_job)
    del job[key]
    assert not is_valid(job)
