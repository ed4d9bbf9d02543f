"""Fake tensors against real ones: the shim tells the truth, or says that it does not."""

import os
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.forecast.shadow_result import Collective, ShadowResult, differences
from orchestrator.launch.shadows import Shadows, broken_shim, self_test

pytestmark = pytest.mark.ray

TESTS = {
    f"stage-{stage}-{precision}": self_test(stage=stage, precision=precision)
    for stage in (0, 1, 2, 3)
    for precision in ("fp32", "bf16")
}


@pytest.fixture(scope="session")
def tested():
    """Name -> what fake tensors and real ones told."""
    asked = [request for pair in TESTS.values() for request in pair]
    answers = Shadows(cache=None, environment=os.environ).ask(asked)
    return dict(zip(TESTS, zip(answers[::2], answers[1::2], strict=True), strict=True))


@pytest.mark.parametrize("name", TESTS)
def test_a_model_on_fake_tensors_holds_and_sends_what_it_does_on_real_ones(tested, name):
    fake, real = tested[name]
    assert isinstance(fake, ShadowResult), fake
    assert isinstance(real, ShadowResult), real
    assert differences(fake, real) == []
    assert broken_shim(fake, real) is None
    # Of nothing, everything is equal.
    assert min(real.phase_peak_bytes.values()) > real.n_params
    assert real.collectives


@pytest.mark.parametrize("name", TESTS)
def test_the_second_step_is_like_the_third(tested, name):
    assert [one.steps_agree for one in tested[name]] == [True, True]


def test_two_stages_are_told_apart(tested):
    _, second = tested["stage-2-fp32"]
    _, third = tested["stage-3-fp32"]
    said = differences(second, third)
    assert [line.partition(" are ")[0] for line in said] == ["peak bytes", "collectives"]
    assert broken_shim(second, third) == said[0]


@pytest.mark.parametrize("what", ["peak bytes", "host bytes", "collectives"])
def test_a_single_byte_is_a_difference(tested, what):
    fake, real = tested["stage-1-fp32"]
    changes: dict[str, dict[str, Any]] = {
        "peak bytes": {"peak_ledgers": {**fake.peak_ledgers, "step": {"params": 1}}},
        "host bytes": {"host_ledger": {"optimizer": 1}},
        "collectives": {
            "collectives": (
                *fake.collectives,
                Collective(name="allreduce_", phase="step", n_calls=1, payload_bytes=1),
            )
        },
    }
    (said,) = differences(replace(fake, **changes[what]), real)
    assert said.startswith(f"{what} are ")


def test_a_run_that_failed_is_no_proof(tested):
    fake, real = tested["stage-0-fp32"]
    assert broken_shim("it gave no answer", real) == "it gave no answer"
    assert broken_shim(fake, "killed") == "killed"
