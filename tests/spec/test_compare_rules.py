"""Comparisons are checked variant by variant (single faults are in `test_bad_jobs`)."""

import time

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec.load import load_job


def test_a_setting_that_some_variant_uses_is_not_idle(write_job):
    path = write_job(
        "zero: {stage: 3, nvme_path: /mnt/nvme}\n"
        "compare: {axes: {zero.offload_params: [none, nvme]}}"
    )
    assert load_job(path).spec.zero.nvme_path == "/mnt/nvme"


def test_a_setting_that_no_variant_uses_is_idle(write_job):
    path = write_job(
        "zero: {stage: 3, nvme_path: /mnt/nvme}\n"
        "compare: {axes: {zero.offload_params: [none, cpu]}}"
    )
    with pytest.raises(SpecError, match="nothing is offloaded to nvme"):
        load_job(path)


def test_combinations_that_cannot_run_are_named_and_counted(write_job):
    path = write_job(
        "compare: {axes: {zero.stage: [0, 1, 2, 3], zero.offload_params: [none, cpu], "
        "training.seed: [0, 1, 2]}}"
    )
    with pytest.raises(SpecError, match="cannot run") as caught:
        load_job(path)
    messages = [problem.message for problem in caught.value.problems]
    # 3 stages cannot offload parameters, times 3 seeds; five are shown.
    assert len(messages) == 6
    assert messages[0].startswith("{zero.stage: 0, zero.offload_params: cpu, training.seed: 0}")
    assert messages[-1] == "4 more combinations that cannot run; exclude them"


def test_faults_of_the_job_itself_come_before_those_of_its_variants(write_job):
    path = write_job(
        "zero: {stage: 2, offload_params: cpu}\ncompare: {axes: {zero.offload_params: [cpu]}}"
    )
    with pytest.raises(SpecError, match="needs stage 3") as caught:
        load_job(path)
    assert [problem.key for problem in caught.value.problems] == ["zero.offload_params"]


def test_two_thousand_combinations_are_checked_within_two_seconds_of_cpu(write_job):
    seeds = ", ".join(map(str, range(500)))
    path = write_job(f"compare: {{axes: {{zero.stage: [0, 1, 2, 3], training.seed: [{seeds}]}}}}")
    start = time.process_time()
    load_job(path)
    assert time.process_time() - start < 2
