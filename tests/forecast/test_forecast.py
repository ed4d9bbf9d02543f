import json

import pytest

from orchestrator.forecast.forecast import Budget, Change, CrossCheck
from orchestrator.forecast.verdict import Verdict
from orchestrator.measure.ledger import CATEGORIES
from orchestrator.units import GIB, MIB
from tests.forecast.made_up import DEVICE_MEMORY, OVERHEAD, held, held_mib, make_forecast

# The design's JSON form of a forecast, in its order.
DESIGN = [
    "strategy", "workers", "rank", "method", "device_bytes", "phase_peak_bytes", "host_bytes",
    "nvme_bytes", "wire_bytes_per_step", "ideal_states_bytes", "budget_bytes", "verdict", "reason",
]  # fmt: skip


def test_the_json_form_has_the_design_s_keys_first():
    assert list(make_forecast().to_json())[: len(DESIGN)] == DESIGN


def test_the_json_form_is_plain_json_with_everything_that_is_known():
    made = make_forecast(
        device="H200 SXM",
        device_memory=DEVICE_MEMORY,
        overhead=OVERHEAD,
        cross_check=CrossCheck(phase_peak_bytes={"init": 1}, difference_ratio=-0.5),
        remedy=Change(
            overrides=("zero.stage=3",),
            strategy="zero3",
            peak_bytes=1,
            needed_bytes=2,
            method="shadow",
        ),
        nvme_bytes=5,
        notes=("a note",),
    )
    # No NaN, no infinity, no object; what was a tuple is a list.
    told = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert told["verdict"] == "FITS"
    assert told["needed"] == {"low": 207 * MIB, "expected": 210 * MIB, "high": 213 * MIB}
    assert told["remedy"]["overrides"] == ["zero.stage=3"]
    assert told["notes"] == ["a note"]
    assert told["terms"][0]["source"] == "the book of weights"
    assert told["wire"][1]["collective"] == "all_gather"


def test_the_device_bytes_are_the_ledger_of_the_fullest_phase_and_its_total():
    told = make_forecast().to_json()
    assert told["peak_phase"] == "backward"
    assert list(told["device_bytes"]) == ["total", *CATEGORIES]
    assert told["device_bytes"]["total"] == 210 * MIB
    assert told["device_bytes"]["gradients"] == 60 * MIB
    assert sum(told["device_bytes"][name] for name in CATEGORIES) == 210 * MIB
    assert told["phase_peak_bytes"] == {
        "init": 100 * MIB, "forward": 150 * MIB, "backward": 210 * MIB, "step": 180 * MIB,
    }  # fmt: skip


def test_what_is_unknown_or_not_there_is_null():
    told = make_forecast(
        budget=None, step_time=None, flops_per_step=None, node_budget_bytes=None
    ).to_json()
    for key in ("budget_bytes", "budget", "nvme_bytes", "step_time", "flops_per_step", "remedy",
                "cross_check", "device_memory", "overhead", "node_budget_bytes"):  # fmt: skip
        assert told[key] is None, key


def test_a_budget_is_told_in_bytes():
    told = make_forecast(
        budget=Budget(n_bytes=16 * GIB, of="of it"), verdict=Verdict.TOO_BIG, reason="no"
    ).to_json()
    assert (told["budget_bytes"], told["verdict"], told["reason"]) == (16 * GIB, "TOO_BIG", "no")


def test_the_first_of_equally_full_phases_is_the_peak():
    even = make_forecast(
        phase_ledgers={
            "init": held(params=1),
            "forward": held(params=7),
            "backward": held(gradients=7),
        }
    )
    assert even.peak_phase == "forward"
    assert even.peak_bytes == 7


def test_host_and_wire_are_the_sums_of_their_parts():
    made = make_forecast(host_ledger=held_mib(optimizer=30, gradients=10, buffers=2))
    told = made.to_json()
    assert told["host_bytes"] == 42 * MIB
    # Gradients 60 and weights 50.
    assert told["wire_bytes_per_step"] == 110 * MIB


def test_a_rank_alone_sends_nothing_and_that_is_known():
    assert make_forecast(wire=()).to_json()["wire_bytes_per_step"] == 0


@pytest.mark.parametrize(
    ("verdict", "activations_known", "asks"),
    [
        ("FITS", True, False),
        ("TIGHT", True, True),
        ("TIGHT", False, False),
        ("TOO_BIG", False, True),
    ],
)
def test_a_change_is_asked_for_by_what_is_known_not_by_what_is_unknown(
    verdict, activations_known, asks
):
    made = make_forecast(verdict=Verdict(verdict), activations_known=activations_known)
    assert made.asks_for_a_change is asks
