import json
from dataclasses import replace

import pytest

from orchestrator.forecast.shadow_result import Collective, ShadowResult, differences
from tests.forecast.made_up import DEVICE_MEMORY, held, make_shadow


@pytest.mark.parametrize(
    "changes",
    [{}, {"device_memory": DEVICE_MEMORY, "nvme_bytes": 7}, {"collectives": (), "sample": {}}],
    ids=["CPU", "GPU", "nothing sent"],
)
def test_a_result_survives_its_json_form(changes):
    result = make_shadow(**changes)
    told = json.loads(json.dumps(result.to_json()))
    assert ShadowResult.from_json(told) == result


def test_what_is_not_there_is_null_in_json():
    told = make_shadow().to_json()
    assert told["device_memory"] is None
    assert told["nvme_bytes"] is None
    assert told["sample"]["labels"]["same_as"] == "input_ids"


def test_a_result_that_lacks_a_value_is_not_read():
    told = make_shadow().to_json()
    del told["steps_agree"]
    with pytest.raises(TypeError, match="steps_agree"):
        ShadowResult.from_json(told)


def test_a_phase_s_peak_is_all_that_its_ledger_holds():
    assert make_shadow().phase_peak_bytes == {
        "init": 100, "forward": 150, "backward": 190, "step": 180,
    }  # fmt: skip


def test_twins_that_hold_and_send_the_same_do_not_differ_though_one_took_longer():
    slower = make_shadow(seconds=99.0, rss_peak_bytes=1, sample={}, steps_agree=False)
    assert differences(make_shadow(), slower) == []


def test_another_split_of_the_same_peak_is_no_difference():
    # Fake tensors and real ones may come by their categories differently.
    other = replace(make_shadow(), peak_ledgers={"init": held(params=60, buffers=40)})
    same = replace(make_shadow(), peak_ledgers={"init": held(params=100)})
    assert differences(other, same) == []


def test_every_difference_is_a_line_that_says_what_both_saw():
    fake = make_shadow()
    real = make_shadow(
        peak_ledgers={**fake.peak_ledgers, "step": held(params=181)},
        host_ledger=held(optimizer=5),
        collectives=(Collective(name="reduce_", phase="step", n_calls=9, payload_bytes=8),),
    )
    peak, host, sent = differences(fake, real)
    assert peak.startswith("peak bytes are {'init': 100, 'forward': 150, ")
    assert peak.endswith("'step': 181} on real ones")
    assert host.startswith("host bytes are ")
    assert "'optimizer': 5" in host.partition("on fake tensors")[2]
    assert sent.startswith("collectives are (Collective(name='allreduce_'")
    assert len(differences(fake, replace(fake, host_ledger=held(optimizer=5)))) == 1
