from dataclasses import replace

from orchestrator.forecast.comparison import comparison_text, worst_category
from orchestrator.forecast.receipts import Receipt
from orchestrator.units import MIB


def held(**parts):
    return {name: n_mib * MIB for name, n_mib in parts.items()}


RECEIPT = Receipt(
    run_key="night-run",
    time_unix_s=1e9,
    strategy="zero-2",
    stage=2,
    offload_optimizer="cpu",
    offload_params="none",
    precision="bf16",
    activation_checkpointing=False,
    workers=2,
    micro_batch_size=4,
    accumulation_steps=1,
    device="cpu",
    model="gpt2-tiny",
    method="closed_form",
    versions={},
    rank=1,
    # Peaks: init 100, backward 190, step 1,210.
    forecast={
        "init": held(params=100),
        "backward": held(params=100, gradients=40, activations=50),
        "step": held(params=100, optimizer=1110),
    },
    # Peaks: init 100, backward 200, step 1,600.
    measured={
        "init": held(params=100),
        "backward": held(params=100, gradients=30, activations=70),
        "step": held(params=100, optimizer=1500),
    },
    forecast_host_bytes=None,
    measured_host_bytes=None,
    forecast_nvme_bytes=None,
    measured_nvme_bytes=None,
    forecast_reserved_bytes=None,
    measured_reserved_bytes=None,
    forecast_device_bytes=None,
    measured_device_bytes=None,
    forecast_step_s=None,
    measured_step_s=None,
)


def last_block(receipt):
    return comparison_text(receipt).split("\n\n")[-1].splitlines()


def test_phases_and_then_categories_of_the_measured_peak_stand_beside_each_other():
    assert comparison_text(RECEIPT).splitlines() == [
        "Forecast (closed form) and measurement of night-run, rank 1: gpt2-tiny, zero-2, on cpu",
        "",
        "phase     forecast MiB  measured MiB     error",
        "init             100.0         100.0    0.00 %",
        "backward         190.0         200.0   -5.00 %",
        # 390 of 1,600
        "step           1,210.0       1,600.0  -24.38 %",
        "peak           1,210.0       1,600.0  -24.38 %",
        "",
        "at step       forecast MiB  measured MiB  of the peak",
        "params               100.0         100.0       0.00 %",
        "optimizer          1,110.0       1,500.0     -24.38 %",
        "unattributed           0.0           0.0       0.00 %",
    ]


def test_a_phase_that_only_one_side_knows_has_dashes_and_is_no_peak():
    lines = comparison_text(
        replace(RECEIPT, measured={"init": held(params=80), "forward": held(params=900)})
    ).splitlines()
    assert lines[3:8] == [
        "init             100.0          80.0  +25.00 %",
        "forward              -         900.0         -",
        "backward         190.0             -         -",
        "step           1,210.0             -         -",
        "peak             100.0          80.0  +25.00 %",
    ]


def test_where_nothing_was_measured_there_are_no_categories_and_no_peak():
    unmeasured = replace(RECEIPT, measured={})
    assert [line.split() for line in last_block(unmeasured)] == [
        ["phase", "forecast", "MiB", "measured", "MiB", "error"],
        ["init", "100.0", "-", "-"],
        ["backward", "190.0", "-", "-"],
        ["step", "1,210.0", "-", "-"],
    ]
    assert worst_category(unmeasured) is None


def test_with_no_phase_at_all_only_the_title_is_left():
    assert len(comparison_text(replace(RECEIPT, measured={}, forecast={})).splitlines()) == 1


def test_host_and_nvme_have_a_line_only_where_there_is_something():
    offloaded = replace(
        RECEIPT,
        forecast_host_bytes=3 * MIB,
        measured_host_bytes=4 * MIB,
        forecast_nvme_bytes=2048 * MIB,
    )
    assert last_block(offloaded) == [
        "place  forecast MiB  measured MiB     error",
        "host            3.0           4.0  -25.00 %",
        "NVMe        2,048.0             -         -",
    ]
    empty = replace(offloaded, forecast_nvme_bytes=0, measured_nvme_bytes=0)
    assert [line.split()[0] for line in last_block(empty)] == ["place", "host"]


def gpu_error(measured_mib):
    """What stands in the line of the whole GPU, forecast at 1,000 to 2,000 MiB."""
    on_gpu = replace(
        RECEIPT,
        forecast_reserved_bytes=900 * MIB,
        measured_reserved_bytes=1000 * MIB,
        forecast_device_bytes=(1000 * MIB, 2000 * MIB),
        measured_device_bytes=None if measured_mib is None else measured_mib * MIB,
    )
    reserved, whole = last_block(on_gpu)[1:]
    assert reserved.split() == ["GPU,", "reserved", "900.0", "1,000.0", "-10.00", "%"]
    assert whole.startswith("GPU, in all    1,000.0 to 2,000.0 ")
    return whole.split()[6:]


def test_between_its_bounds_an_interval_is_right_and_beyond_them_off_by_the_nearest():
    assert gpu_error(1000) == ["1,000.0", "0.00", "%"]
    assert gpu_error(1500) == ["1,500.0", "0.00", "%"]
    # 1,000 - 800 of 800; 2,000 - 2,500 of 2,500.
    assert gpu_error(800) == ["800.0", "+25.00", "%"]
    assert gpu_error(2500) == ["2,500.0", "-20.00", "%"]
    assert gpu_error(None) == ["-", "-"]


def test_an_interval_that_was_not_forecast_is_a_dash():
    measured = replace(RECEIPT, measured_device_bytes=5 * MIB)
    assert last_block(measured)[1].split() == ["GPU,", "in", "all", "-", "5.0", "-"]


def test_the_step_s_time_is_told_last_and_the_unknown_one_is_a_dash():
    timed = replace(RECEIPT, forecast_step_s=0.35, measured_step_s=0.28)
    assert last_block(timed) == ["step: forecast 350 ms, measured 280 ms, error +25.00 %"]
    assert last_block(replace(timed, forecast_step_s=None)) == [
        "step: forecast -, measured 280 ms, error -"
    ]


def test_the_worst_category_is_told_with_its_share_of_the_peak():
    # At backward, the measured peak without a step: gradients +10, activations -20 of 200.
    no_step = {name: RECEIPT.measured[name] for name in ("init", "backward")}
    assert worst_category(replace(RECEIPT, measured=no_step)) == (
        "most off at backward: activations, forecast 50.0 MiB, measured 70.0 MiB, "
        "-10.00 % of the peak"
    )


def test_when_every_category_is_right_none_is_called_the_worst():
    right = replace(RECEIPT, forecast=RECEIPT.measured)
    assert worst_category(right) == "every category at step is as forecast"
