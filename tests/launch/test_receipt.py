import logging
from dataclasses import replace

import pytest

from orchestrator.forecast.device_overhead import load_probes
from orchestrator.forecast.forecast import Forecast
from orchestrator.forecast.receipts import load_receipts
from orchestrator.forecast.verdict import Interval
from orchestrator.launch.artifacts import keep_probe, keep_receipt
from orchestrator.launch.home import Home
from orchestrator.launch.receipt import probe_of_run, receipt_of
from orchestrator.measure.sample import CudaMemory, GpuState, ProbedMemory, Record
from orchestrator.measure.summary import summarize
from orchestrator.track.base import RunStart
from orchestrator.track.outbox import Outbox
from tests import small_jobs
from tests.forecast.made_up import DEVICE_MEMORY, OVERHEAD, held_mib, make_forecast
from tests.launch import records

MIB = 2**20
# The made-up forecast is of rank 0, in MiB: init 100, forward 150, backward 210, step 180. What
# ranks tell in the records: init 1, forward 2, backward 4, step 3.


@pytest.fixture
def plan(tmp_path):
    def make(forecast: Forecast | None, **changes):
        return replace(small_jobs.plan_job(tmp_path, **changes), forecast=forecast)

    return make


def run_of(n_ranks=2, *, n_steps=5, told=None, outcome="ok", **changes):
    """A run whose ranks all tell the same."""
    everything: list[Record] = []
    for rank in range(n_ranks):
        everything.append(records.facts(rank, world_size=n_ranks, **(told or {})))
        everything += [records.sample(rank, step=n + 1, **changes) for n in range(n_steps)]
    return summarize(everything, name="small", outcome=outcome, started_unix_s=990.0)


def receipt(plan, record):
    return receipt_of(plan, record, run_key="20251124-small", now_s=1000.5)


def test_a_receipt_has_forecast_and_measurement_of_the_rank_that_was_forecast(plan):
    made = receipt(plan(make_forecast(rank=1)), run_of(2))
    assert (made.run_key, made.time_unix_s, made.rank) == ("20251124-small", 1000.5, 1)
    assert {phase: sum(ledger.values()) for phase, ledger in made.measured.items()} == {
        "init": MIB, "forward": 2 * MIB, "backward": 4 * MIB, "step": 3 * MIB,
    }  # fmt: skip
    assert made.peak_bytes == (210 * MIB, 4 * MIB)
    assert (made.forecast_step_s, made.measured_step_s) == (0.4, 0.5)


def test_a_receipt_says_what_ran(plan):
    made = receipt(
        plan(
            make_forecast(method="closed_form"),
            zero={"stage": 2, "offload_optimizer": "cpu"},
            training={"precision": "bf16", "activation_checkpointing": True},
        ),
        run_of(2),
    )
    assert made.strategy == "zero2-optim-cpu-bf16-ckpt"
    assert (made.stage, made.offload_optimizer, made.offload_params) == (2, "cpu", "none")
    assert (made.precision, made.activation_checkpointing) == ("bf16", True)
    assert (made.workers, made.micro_batch_size, made.accumulation_steps) == (2, 4, 2)
    assert (made.device, made.model, made.method) == ("cpu", "mlp", "closed_form")


def test_the_device_is_the_one_that_the_rank_had(plan):
    made = receipt(plan(make_forecast()), run_of(2, told={"device": "NVIDIA H200"}))
    assert made.device == "NVIDIA H200"


def test_a_phase_that_was_traced_keeps_its_categories_and_what_they_do_not_cover(plan):
    backward = {"params": 3 * MIB, "gradients": MIB // 2}
    probed = ProbedMemory(peak_ledgers={"backward": backward}, edge_ledgers={}, host_ledger={})
    made = receipt(plan(make_forecast()), run_of(2, probed=probed))
    assert made.measured["backward"] == backward | {"unattributed": MIB // 2}
    assert made.measured["forward"] == {"unattributed": 2 * MIB}


def test_a_run_that_ended_in_its_first_step_has_a_receipt_of_its_construction(plan):
    made = receipt(plan(make_forecast()), run_of(2, n_steps=0, outcome="oom"))
    assert made.peak_bytes == (100 * MIB, MIB)
    assert made.measured_step_s is None


def test_host_and_swap_files_stand_beside_their_forecast(plan):
    forecast = make_forecast(host_ledger=held_mib(optimizer=30), nvme_bytes=40 * MIB)
    made = receipt(plan(forecast), run_of(2, host_bytes=31 * MIB, nvme_bytes=41 * MIB))
    assert (made.forecast_host_bytes, made.measured_host_bytes) == (30 * MIB, 31 * MIB)
    assert (made.forecast_nvme_bytes, made.measured_nvme_bytes) == (40 * MIB, 41 * MIB)


def test_on_a_cpu_there_is_nothing_of_a_gpu(plan):
    made = receipt(plan(make_forecast()), run_of(2))
    assert made.forecast_reserved_bytes is made.measured_reserved_bytes is None
    assert made.forecast_device_bytes is made.measured_device_bytes is None


ON_GPU = {
    "device_memory": DEVICE_MEMORY,
    "overhead": OVERHEAD,
    "needed": Interval(low=1100 * MIB, expected=1462 * MIB, high=1864 * MIB),
}
CUDA = CudaMemory(
    reserved_bytes=790 * MIB, cached_bytes=50 * MIB, fragmented_bytes=10 * MIB, n_retries=0
)


def gpu(beyond_mib):
    beyond = None if beyond_mib is None else beyond_mib * MIB
    return GpuState(
        utilization_ratio=None, used_bytes=None, beyond_allocator_bytes=beyond, power_w=None
    )


def test_a_gpu_s_segments_and_all_that_is_taken_of_it_stand_beside_their_forecast(plan):
    made = receipt(plan(make_forecast(**ON_GPU)), run_of(2, cuda=CUDA, gpu=gpu(500)))
    assert (made.forecast_reserved_bytes, made.measured_reserved_bytes) == (800 * MIB, 790 * MIB)
    assert made.forecast_device_bytes == (1100 * MIB, 1864 * MIB)
    assert made.measured_device_bytes == (790 + 500) * MIB


@pytest.mark.parametrize("state", [None, gpu(None)], ids=["no driver", "driver does not tell"])
def test_what_cuda_takes_beyond_the_allocator_is_unknown_where_the_driver_does_not_tell(
    plan, state
):
    made = receipt(plan(make_forecast(**ON_GPU)), run_of(2, cuda=CUDA, gpu=state))
    assert made.measured_reserved_bytes == 790 * MIB
    assert made.measured_device_bytes is None


def test_an_estimate_that_was_not_made_is_unknown(plan):
    assert receipt(plan(make_forecast(step_time=None)), run_of(2)).forecast_step_s is None


def test_without_a_forecast_or_without_its_rank_there_is_no_receipt(plan):
    assert receipt(plan(None), run_of(2)) is None
    assert receipt(plan(make_forecast(rank=5)), run_of(2)) is None
    assert receipt(plan(make_forecast()), run_of(0)) is None
    silent = run_of(1, n_steps=0, told={"init_peak_bytes": None})
    assert receipt(plan(make_forecast()), silent) is None


@pytest.fixture
def outbox(tmp_path):
    start = RunStart(key="one", experiment="small", name="small", start_time_ms=1)
    return Outbox.create(tmp_path / "run", start)


def test_a_receipt_is_kept_with_its_run_and_with_those_of_other_runs(plan, outbox, tmp_path):
    home = Home(path=tmp_path / "home")
    made = receipt(plan(make_forecast()), run_of(2))
    keep_receipt(outbox, made, home)
    text = (outbox.artifacts / "forecast_and_measured.txt").read_text(encoding="utf-8")
    assert "210.0" in text
    assert text.endswith("\n")
    (kept,) = load_receipts(home.receipts).kept
    assert kept.run_key == "20251124-small"
    assert kept.peak_bytes == made.peak_bytes


def test_where_there_is_no_receipt_nothing_is_kept(outbox, tmp_path):
    home = Home(path=tmp_path / "home")
    keep_receipt(outbox, None, home)
    assert not outbox.artifacts.exists() or not list(outbox.artifacts.iterdir())
    assert not home.path.exists()


def test_a_folder_that_cannot_be_written_costs_the_run_nothing_but_a_warning(
    plan, outbox, tmp_path, caplog
):
    (tmp_path / "home").write_text("a file", encoding="utf-8")
    made = receipt(plan(make_forecast()), run_of(2))
    with caplog.at_level(logging.WARNING):
        keep_receipt(outbox, made, Home(path=tmp_path / "home"))
    assert "the receipt is not kept: " in caplog.text
    assert (outbox.artifacts / "forecast_and_measured.txt").exists()


def probe(n_ranks, *, beyond_mib, device="NVIDIA H200"):
    run = run_of(n_ranks, told={"device": device}, gpu=gpu(beyond_mib))
    return probe_of_run(run, now_s=1000.5)


def test_beside_the_tensors_of_a_single_rank_lies_the_context_alone():
    made = probe(1, beyond_mib=500)
    assert (made.device_name, made.n_ranks) == ("NVIDIA H200", 1)
    assert (made.context_bytes, made.communication_bytes) == (500 * MIB, 0)


def test_beside_those_of_several_lies_what_a_run_measured_in_all():
    made = probe(2, beyond_mib=900)
    assert made.n_ranks == 2
    assert made.context_bytes + made.communication_bytes == 900 * MIB


def test_a_run_without_a_driver_to_ask_is_no_probe():
    assert probe_of_run(run_of(2), now_s=1000.5) is None
    assert probe(2, beyond_mib=None) is None


def test_a_probe_is_kept_for_later_forecasts(tmp_path):
    run = run_of(1, told={"device": "NVIDIA H200"}, gpu=gpu(500))
    keep_probe(run, Home(path=tmp_path))
    (kept,) = load_probes(Home(path=tmp_path).probes)
    assert kept.context_bytes == 500 * MIB
