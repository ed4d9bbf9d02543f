import re

import pytest

from orchestrator.forecast.by_count import StageRow, by_count
from orchestrator.forecast.forecast import Change
from orchestrator.forecast.host import HostForecast
from orchestrator.forecast.terms import Term
from orchestrator.forecast.verdict import Interval, Verdict
from orchestrator.launch.strategy_grid import GridRow
from orchestrator.measure.devices import device_called, known_devices
from orchestrator.plan.strategies import Candidate
from orchestrator.render.forecast import (
    by_count_text,
    devices_text,
    forecast_text,
    grid_text,
    short_forecast_text,
    terms_text,
    way_out,
)
from orchestrator.units import GIB, MIB
from tests import small_jobs
from tests.forecast.made_up import DEVICE_MEMORY, OVERHEAD, held, held_mib, make_forecast

REMEDY = Change(
    method="shadow",
    overrides=("zero.stage=3", "zero.offload_optimizer=cpu"),
    strategy="zero3-optim-cpu",
    peak_bytes=300 * MIB,
    needed_bytes=3 * GIB,
)


def facts_of(text):
    """Key -> what is said of it, of the rows below the table; without the rows that go on."""
    rows = [re.split(r" {2,}", line.strip(), maxsplit=1) for line in text.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def cells(line):
    return re.split(r" {2,}", line.strip())


def test_the_first_line_says_of_what_it_is_and_how_it_was_made():
    first = forecast_text(make_forecast(), name="small").splitlines()[0]
    assert first == "Forecast of small: zero2 on 2 ranks (CPUs), rank 0, by a shadow run"


def test_one_rank_on_a_gpu_is_told_so_and_the_closed_form_too():
    made = make_forecast(workers=1, device="H200 SXM", method="closed_form", rank=0)
    first = forecast_text(made, name="small").splitlines()[0]
    assert first.endswith("zero2 on 1 rank (H200 SXM), rank 0, by the closed form")


def test_every_phase_has_its_peak_by_category_and_the_fullest_is_marked():
    table = forecast_text(make_forecast(), name="small").split("\n\n")[1].splitlines()
    assert cells(table[0]) == [
        "at the peak of", "MiB", "params", "gradients", "activations", "temporaries",
    ]  # fmt: skip
    assert [cells(line) for line in table[1:]] == [
        ["init", "100.0", "100.0", "0.0", "0.0", "0.0"],
        ["forward", "150.0", "100.0", "0.0", "50.0", "0.0"],
        ["backward <", "210.0", "100.0", "60.0", "50.0", "0.0"],
        ["step", "180.0", "100.0", "60.0", "0.0", "20.0"],
    ]


def test_what_follows_from_it_is_told_below():
    facts = facts_of(forecast_text(make_forecast(), name="small"))
    assert facts["batch"] == "16 samples a step"
    assert facts["wire"] == "110.0 MiB sent by a rank each step"
    assert facts["ideal"] == "80.0 MiB of states by the ZeRO paper"
    assert facts["step"] == "about 400 ms, an estimate"
    assert facts["verdict"] == "FITS: it is small"
    # Of a CPU there are neither segments nor anything beyond them, and nothing is swapped.
    for key in ("allocator", "beyond it", "on NVMe", "no shadow", "fits with", "note"):
        assert key not in facts


def test_every_collective_of_some_size_has_a_line_with_its_calls():
    text = forecast_text(make_forecast(), name="small")
    assert "all-reduce gradients, every micro-batch: 3 calls, 60.0 MiB\n" in text
    assert "all-gather updated weights: 1 call, 100.0 MiB\n" in text


def test_a_rank_alone_and_a_step_that_is_not_known_have_no_line():
    text = forecast_text(make_forecast(wire=(), step_time=None), name="small")
    facts = facts_of(text)
    assert "wire" not in facts
    assert "step" not in {line.split()[0] for line in text.split("\n\n")[2].splitlines()}


def test_a_gpu_has_its_segments_and_what_is_taken_beyond_them():
    made = make_forecast(device="H200 SXM", device_memory=DEVICE_MEMORY, overhead=OVERHEAD)
    facts = facts_of(forecast_text(made, name="small"))
    assert facts["allocator"] == (
        "800.0 MiB reserved in 7 segments, 100.0 MiB of it cached or fragmented"
    )
    # 100 + 200 and 424 + 600.
    assert facts["beyond it"] == "300.0 MiB to 1.0 GiB (the book of contexts)"


def host(**changes):
    return HostForecast(
        **{
            "ranks_per_node": 8,
            "offloaded_bytes": 0,
            "pinned_rounding_bytes": 0,
            "tensor_bytes": 0,
            "start_bytes": 0,
            "node_bytes": Interval(low=GIB, expected=20 * GIB, high=30 * GIB),
            **changes,
        }
    )


def test_the_host_is_told_with_all_that_a_rank_puts_there_and_the_whole_node():
    full = host(offloaded_bytes=5 * GIB, pinned_rounding_bytes=GIB // 2, start_bytes=2 * GIB)
    facts = facts_of(forecast_text(make_forecast(host=full), name="small"))
    assert facts["on host"] == (
        "5.0 GiB offloaded by a rank; 512.0 MiB by rounding pinned blocks up; "
        "2.0 GiB for the whole model while a rank starts; "
        "20.0 GiB on a node with 8 ranks, up to 30.0 GiB"
    )


def test_where_nothing_is_offloaded_only_the_node_is_told():
    made = make_forecast(host=host(ranks_per_node=1))
    facts = facts_of(forecast_text(made, name="small"))
    assert facts["on host"] == "20.0 GiB on a node with 1 rank, up to 30.0 GiB"


def test_swap_files_are_told_where_there_are_any():
    facts = facts_of(forecast_text(make_forecast(nvme_bytes=3 * GIB), name="small"))
    assert facts["on NVMe"] == "3.0 GiB"


def test_why_there_is_no_shadow_run_is_told():
    made = make_forecast(method="closed_form", why_closed_form="the model looks at values")
    assert facts_of(forecast_text(made, name="small"))["no shadow"] == "the model looks at values"
    assert "no shadow run: the model looks at values" in short_forecast_text(made)


def test_every_note_has_a_line():
    text = forecast_text(make_forecast(notes=("one thing", "another thing")), name="small")
    assert re.findall(r"^  note +(.*)$", text, re.MULTILINE) == ["one thing", "another thing"]


@pytest.mark.parametrize("verdict", [Verdict.TIGHT, Verdict.TOO_BIG])
def test_what_does_not_fit_says_why_and_what_would(verdict):
    made = make_forecast(verdict=verdict, reason="5.0 GiB of 4.0 GiB of it", remedy=REMEDY)
    told = "--set zero.stage=3 --set zero.offload_optimizer=cpu (zero3-optim-cpu: 3.0 GiB)"
    for text in (forecast_text(made, name="small"), short_forecast_text(made)):
        *_, reason, way = text.splitlines()
        assert re.fullmatch(rf" +verdict +{verdict.value}: 5\.0 GiB of 4\.0 GiB of it", reason)
        assert re.fullmatch(rf" +fits with +{re.escape(told)}", way)
    assert way_out(made) == f"it fits with {told}"


def test_where_no_single_strategy_fits_that_is_said_with_what_else_to_do():
    assert way_out(make_forecast(verdict=Verdict.TOO_BIG)) == (
        "no single strategy fits; use more workers, a smaller model or a larger budget"
    )


def test_the_short_form_has_the_peak_and_the_verdict():
    assert short_forecast_text(make_forecast()).splitlines() == [
        "  forecast  210.0 MiB of tensors on rank 0 at backward, by a shadow run",
        "  verdict   FITS: it is small",
    ]


def test_the_short_form_tells_the_host_where_something_is_there():
    made = make_forecast(host_ledger=held_mib(optimizer=30))
    assert "  on host   30.0 MiB" in short_forecast_text(made).splitlines()


@pytest.fixture
def row(tmp_path):
    plan = small_jobs.plan_job(tmp_path)

    def make(name, *overrides, **changes):
        candidate = Candidate(
            spec=plan.spec, overrides=overrides, n_changes=len(overrides), price=0.0
        )
        forecast = make_forecast(**changes)
        return GridRow(candidate=candidate, plan=plan, profile=None, forecast=forecast, name=name)

    return make


def test_a_grid_has_a_line_for_each_strategy_in_the_order_given(row):
    rows = [row("zero3", "zero.stage=3"), row("zero0"), row("zero1", "zero.stage=1")]
    head, *lines = grid_text(rows).splitlines()
    assert cells(head) == [
        "strategy", "micro", "peak MiB", "at", "needed MiB", "host MiB", "wire MiB/step",
        "step est.", "by", "verdict",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines] == ["zero3", "zero0", "zero1"]
    assert cells(lines[0]) == [
        "zero3", "4", "210.0", "backward", "213.0", "0.0", "110.0", "400 ms", "shadow", "FITS",
    ]  # fmt: skip


def test_a_grid_says_which_line_is_the_job_as_it_stands(row):
    itself, other = grid_text([row("zero0"), row("zero1", "zero.stage=1")]).splitlines()[1:]
    assert cells(itself)[-1] == "the job as it stands"
    assert cells(other)[-1] == "FITS"


def test_a_grid_says_why_a_strategy_does_not_fit(row):
    big = row("zero0", verdict=Verdict.TOO_BIG, reason="5.0 GiB of 4.0 GiB of it")
    assert cells(grid_text([big]).splitlines()[1])[-2:] == ["TOO_BIG", "5.0 GiB of 4.0 GiB of it"]


def test_a_step_that_is_not_known_is_a_dash(row):
    unknown = row("zero0", step_time=None, method="closed_form")
    line = cells(grid_text([unknown]).splitlines()[1])
    assert line[7:9] == ["-", "closed form"]


def test_every_term_is_told_with_its_formula_and_source_and_empty_ones_are_left_out():
    def term(**changes):
        return Term(
            **{
                "phase": "step",
                "category": "optimizer",
                "place": "host",
                "n_bytes": 3 * MIB // 2,
                "what": "moments 8P/N",
                "source": "a paper",
                **changes,
            }
        )

    head, *lines = terms_text([term(), term(n_bytes=0)]).splitlines()
    assert cells(head) == ["phase", "category", "place", "MiB", "what", "source"]
    assert [cells(line) for line in lines] == [
        ["step", "optimizer", "host", "1.5", "moments 8P/N", "a paper"]
    ]


def test_a_mere_size_is_told_in_gb_as_the_paper_does():
    rows = by_count(7_500_000_000, n_ranks=64, precision="bf16", optimizer="adamw")
    title, table, notes = by_count_text(rows, n_params=7_500_000_000).split("\n\n")
    assert title == "7,500,000,000 parameters, of one rank, in GB of 1e9 bytes"
    lines = [cells(line) for line in table.splitlines()]
    assert lines[0][:4] == ["stage", "optimizer on", "ideal GB", "DeepSpeed rests GB"]
    # ZeRO (arXiv:1910.02054), figure 1.
    assert [(line[0], line[1], line[2]) for line in lines[1:5]] == [
        ("0", "device", "120.0"), ("1", "device", "31.4"), ("2", "device", "16.6"),
        ("3", "device", "1.9"),
    ]  # fmt: skip
    assert [line[:2] for line in lines[5:]] == [["2", "host"], ["3", "host"]]
    assert "arXiv:1910.02054, figure 1" in notes


def test_a_mere_size_is_held_against_a_device_that_was_asked_for():
    row = StageRow(
        stage=0,
        offload_optimizer="none",
        ideal_states_bytes=16 * 10**9,
        resting_ledger=held(params=2 * 10**9),
        peak_bytes=70_500_000_000,
        peak_phase="step",
        host_bytes=0,
    )
    h200 = device_called("h200")
    table = by_count_text([row], n_params=10**9, device=h200).split("\n\n")[1].splitlines()
    assert cells(table[0])[-1] == "of one H200 SXM"
    # Half of its 141 GB.
    assert cells(table[1]) == ["0", "device", "16.0", "2.0", "70.5", "step", "0.0", "50%"]


def test_every_known_device_has_a_line_with_its_source():
    head, *lines = devices_text(known_devices()).splitlines()
    assert cells(head) == ["device", "GB", "bf16 TFLOP/s", "fp32 TFLOP/s", "source"]
    assert [cells(line)[0] for line in lines] == [device.name for device in known_devices()]
    told = {cells(line)[0]: cells(line)[1:] for line in lines}
    # The data sheets'.
    assert told["H100 SXM"][:3] == ["80", "989.4", "66.9"]
    assert "H100 Tensor Core GPU Architecture white paper" in told["H100 SXM"][3]


def test_a_rate_that_a_device_does_not_have_is_a_dash():
    # A T4's tensor cores know no bf16.
    assert cells(devices_text([device_called("t4")]).splitlines()[1])[2] == "-"
