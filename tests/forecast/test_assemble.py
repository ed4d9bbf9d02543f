import math
from dataclasses import replace

import pytest

from orchestrator.forecast.assemble import Asked, Evidence, assemble
from orchestrator.forecast.closed_form import closed_form
from orchestrator.forecast.device_overhead import ProbedOverhead
from orchestrator.forecast.forecast import Budget
from orchestrator.forecast.sent import sent_terms
from orchestrator.forecast.shadow_result import Collective
from orchestrator.forecast.verdict import Interval, Verdict
from tests.forecast.made_up import DEVICE_MEMORY, held, make_shadow
from tests.forecast.strategies import layered_profile, make_setup

MB, GB = 10**6, 10**9
PROFILE = layered_profile([100, 200, 300])
ON_GPU = {"device": "cuda", "n_ranks": 1, "ranks_per_node": 1}


def ask(*, setup=None, **changes):
    setup = setup or make_setup()
    return Asked(
        **{
            "setup": setup,
            "strategy": "zero0",
            "device": setup.device,
            "n_params": 600,
            "n_elements": 600,
            "global_batch_size": 4,
            "device_peak": None,
            "budget": None,
            "node_budget_bytes": None,
            **changes,
        }
    )


def know(**changes):
    return Evidence(
        **{"shadow": None, "why_closed_form": None, "profile": None, "probed": None, **changes}
    )


def by_shadow(shadow=None, *, profile=None, probed=None, **asked):
    return assemble(
        ask(**asked), know(shadow=shadow or make_shadow(), profile=profile, probed=probed)
    )


def peak_of(setup, *, profile=PROFILE):
    form = closed_form(setup, profile=profile)
    return max(sum(ledger.values()) for ledger in form.phase_ledgers.values())


def test_a_shadow_run_is_told_as_it_was_seen():
    made = by_shadow(make_shadow(rank=1))
    assert (made.method, made.rank) == ("shadow", 1)
    assert made.phase_peak_bytes == {"init": 100, "forward": 150, "backward": 190, "step": 180}
    assert made.peak_phase == "backward"
    assert made.phase_ledgers["backward"]["gradients"] == 40
    assert made.activations_known


def test_phases_come_in_the_order_of_a_step():
    ledgers = make_shadow().peak_ledgers
    shadow = make_shadow(peak_ledgers={phase: ledgers[phase] for phase in sorted(ledgers)})
    assert list(by_shadow(shadow).phase_ledgers) == ["init", "forward", "backward", "step"]


def test_why_there_is_no_shadow_run_is_told_only_where_there_is_none():
    why = "the model looks at values"
    without = assemble(ask(), know(why_closed_form=why))
    assert (without.method, without.why_closed_form) == ("closed_form", why)
    beside = assemble(ask(), know(shadow=make_shadow(), why_closed_form=why))
    assert (beside.method, beside.why_closed_form) == ("shadow", None)


def test_without_a_model_it_is_said_that_activations_are_missing():
    made = assemble(ask(), know())
    assert not made.activations_known
    assert "activations are not in it: they need the model itself" in made.notes
    known = assemble(ask(), know(profile=PROFILE))
    assert known.activations_known
    assert known.notes == ()


def test_a_cpu_rank_needs_its_tensors_within_a_hundredth_of_a_shadow_run():
    shadow = make_shadow(peak_ledgers={"step": held(params=10_000)})
    assert by_shadow(shadow).needed == Interval(low=9_900, expected=10_000, high=10_100)
    assert by_shadow(shadow).overhead is None


def test_a_cpu_rank_needs_its_tensors_within_a_tenth_of_the_closed_form():
    setup = make_setup()
    made = assemble(ask(setup=setup), know(profile=PROFILE))
    peak_bytes = peak_of(setup)
    assert made.needed.expected == peak_bytes
    assert made.needed.low == pytest.approx(0.9 * peak_bytes, abs=1)
    assert made.needed.high == pytest.approx(1.1 * peak_bytes, abs=1)


def test_a_gpu_needs_the_allocators_segments_and_what_cuda_takes_beside_them():
    memory = replace(DEVICE_MEMORY, reserved_peak_bytes=10 * GB)
    made = by_shadow(make_shadow(device_memory=memory), setup=make_setup(**ON_GPU))
    # Published: 200 to 700 MB of context, and no NCCL for a single rank.
    assert made.needed.low == 10 * GB + 200 * MB
    assert made.needed.expected == 10 * GB + 450 * MB
    assert made.needed.high == pytest.approx(10.5 * GB + 700 * MB, abs=1)
    assert made.device_memory == memory


def test_a_gpu_by_the_closed_form_needs_its_tensors_within_a_tenth_and_cuda_s_share():
    setup = make_setup(**ON_GPU)
    made = assemble(ask(setup=setup), know(profile=PROFILE))
    peak_bytes = peak_of(setup)
    assert made.needed.low == math.floor(0.9 * peak_bytes) + 200 * MB
    assert made.needed.high == pytest.approx(1.1 * peak_bytes + 700 * MB, abs=1)
    assert made.device_memory is None


def test_a_probe_makes_what_cuda_takes_narrow():
    probe = ProbedOverhead(
        device_name="NVIDIA H200",
        driver_version="570.1",
        context_bytes=500 * MB,
        communication_bytes=0,
        n_ranks=1,
        measured_unix_s=1.0,
    )
    memory = replace(DEVICE_MEMORY, reserved_peak_bytes=10 * GB)
    shadow = make_shadow(device_memory=memory)
    made = by_shadow(shadow, setup=make_setup(**ON_GPU), probed=probe)
    # Measured, and a tenth more.
    assert made.needed.low == 10 * GB + 500 * MB
    assert made.needed.high == pytest.approx(10.5 * GB + 550 * MB, abs=1)


# Of 10,000 bytes on a CPU: up to 10,100.
@pytest.mark.parametrize(
    ("budget_bytes", "verdict"),
    [(10_100, Verdict.FITS), (10_099, Verdict.TIGHT), (9_999, Verdict.TOO_BIG)],
)
def test_the_upper_end_is_held_against_the_budget(budget_bytes, verdict):
    shadow = make_shadow(peak_ledgers={"step": held(params=10_000)})
    made = by_shadow(shadow, budget=Budget(n_bytes=budget_bytes, of="of my budget"))
    assert made.verdict is verdict
    assert made.reason.startswith("9.8 KiB, up to 9.9 KiB of ")
    assert " of my budget (" in made.reason
    assert made.remedy is None


def test_a_node_that_is_too_small_for_its_ranks_is_told_though_the_device_is_large_enough():
    budget = Budget(n_bytes=GB, of="of my budget")
    # Ray and two processes take 1,000 to 2,700 MiB, 1,850 in the middle.
    for node_bytes, verdict in (
        (1000 * 2**20, Verdict.TOO_BIG),
        (2000 * 2**20, Verdict.TIGHT),
        (3000 * 2**20, Verdict.FITS),
    ):
        made = by_shadow(budget=budget, node_budget_bytes=node_bytes)
        assert made.verdict is verdict
        told = made.reason.partition("; ")[2]
        if verdict is Verdict.FITS:
            assert told == ""
        else:
            assert told.startswith("1.8 GiB, up to 2.6 GiB of ")
            assert " of the node's memory for 2 ranks (" in told


def test_without_a_budget_the_node_alone_is_told_in_the_singular_of_one_rank():
    made = by_shadow(setup=make_setup(n_ranks=1, ranks_per_node=1), node_budget_bytes=10 * GB)
    assert made.verdict is Verdict.FITS
    assert made.reason.startswith(
        "1.3 GiB, up to 1.9 GiB of 9.3 GiB of the node's memory for 1 rank ("
    )


def test_a_device_over_its_budget_is_not_saved_by_a_node_with_room():
    budget = Budget(n_bytes=1, of="of my budget")
    assert by_shadow(budget=budget, node_budget_bytes=10**15).verdict is Verdict.TOO_BIG


def test_where_no_budget_is_known_everything_fits_and_that_is_said():
    made = by_shadow()
    assert (made.verdict, made.reason) == (Verdict.FITS, "no budget is known")


# Stage 2, two ranks: of 600 parameters a rank's 300 are on the host six times in 4 bytes: master
# weights, two moments, the gradients, the weights on their way back, and a staged gradient of 300.
OFFLOAD = make_setup(
    stage=2,
    offload_optimizer="cpu",
    fused_optimizer=True,
    device="cuda",
    pinned=True,
)
# All but the moments is pinned: 1,200 bytes in blocks of 2,048.
ROUNDING = 4 * (2048 - 1200)


def test_the_closed_form_counts_host_tensors_and_tells_rounding_of_pinned_blocks_beside_them():
    made = assemble(ask(setup=OFFLOAD), know(profile=PROFILE))
    assert made.host_bytes == 6 * 1200
    assert made.host.offloaded_bytes == 6 * 1200
    assert made.host.pinned_rounding_bytes == ROUNDING


def test_a_shadow_run_whose_host_tensors_are_the_same_gives_the_same_node():
    seen = make_shadow(host_ledger=held(optimizer=3600, gradients=1200, buffers=2400))
    one = by_shadow(seen, profile=PROFILE, setup=OFFLOAD)
    assert one.host_bytes == 6 * 1200
    assert one.host == assemble(ask(setup=OFFLOAD), know(profile=PROFILE)).host


def test_what_is_not_pinned_is_not_rounded():
    made = assemble(ask(setup=replace(OFFLOAD, pinned=False)), know(profile=PROFILE))
    assert made.host.pinned_rounding_bytes == 0


def test_frozen_parameters_count_while_a_rank_builds_the_model():
    made = by_shadow(setup=make_setup(**ON_GPU), n_elements=10_000)
    assert made.host.start_bytes == 40_000


def test_a_strategy_that_does_not_swap_has_no_bytes_of_swap_files_not_even_0():
    swapping = make_setup(stage=3, offload_optimizer="nvme")
    assert by_shadow(make_shadow(nvme_bytes=77), setup=swapping).nvme_bytes == 77
    # Too small for files of their own.
    assert assemble(ask(setup=swapping), know(profile=PROFILE)).nvme_bytes == 0
    assert by_shadow().nvme_bytes is None


def shadow_of(n_bytes):
    return make_shadow(peak_ledgers={"step": held(params=n_bytes)})


def test_a_closed_form_that_is_off_by_more_than_a_hundredth_is_told():
    peak_bytes = peak_of(make_setup())
    far = by_shadow(shadow_of(peak_bytes * 5 // 4), profile=PROFILE)
    assert far.cross_check is not None
    assert far.cross_check.difference_ratio == pytest.approx(-0.2, abs=1e-3)
    assert far.notes == ("the closed form says -20.0% of that peak; the shadow run is taken",)
    near = by_shadow(shadow_of(peak_bytes), profile=PROFILE)
    assert near.cross_check is not None
    assert near.cross_check.difference_ratio == 0
    assert near.notes == ()


def test_without_the_model_there_is_nothing_to_check_a_shadow_run_against():
    made = by_shadow(shadow_of(1))
    assert made.cross_check is None
    assert made.notes == ()


def test_a_shadow_run_whose_steps_differ_is_told_after_what_was_asked_to_be_told():
    made = by_shadow(make_shadow(steps_agree=False), notes=("the batch has grown",))
    assert made.notes[0] == "the batch has grown"
    assert "the second and the third step of the shadow run differ" in made.notes[1]


def test_what_a_shadow_run_sent_goes_round_the_ring():
    # An all-reduce of S bytes on N ranks sends 2(N-1)/N S, anything else half of that.
    calls = (
        Collective(name="allreduce_", phase="backward", n_calls=2, payload_bytes=1000),
        Collective(name="_allgather_base_", phase="step", n_calls=1, payload_bytes=800),
        Collective(name="barrier", phase="step", n_calls=1, payload_bytes=0),
    )
    sent = sent_terms(make_shadow(collectives=calls), n_ranks=4)
    assert [(t.collective, t.phase, t.n_calls, t.payload_bytes, t.wire_bytes) for t in sent] == [
        ("all_reduce", "backward", 2, 1000, 1500),
        ("all_gather", "step", 1, 800, 600),
    ]


def test_a_rank_alone_sends_nothing():
    assert sent_terms(make_shadow(), n_ranks=1) == ()
    assert by_shadow(setup=make_setup(n_ranks=1, ranks_per_node=1)).wire_bytes_per_step == 0


def test_without_a_shadow_run_the_closed_form_says_what_is_sent():
    # Stage 0 on two ranks: all gradients in fp32 round a ring of two.
    made = assemble(ask(), know(profile=PROFILE))
    assert made.wire_bytes_per_step == 4 * 600


def test_a_forecast_carries_what_it_was_asked_about():
    setup = make_setup(n_ranks=64, ranks_per_node=8, stage=1, precision="bf16")
    asked = ask(setup=setup, strategy="zero1-bf16", device="H200 SXM", n_params=7_500_000_000)
    made = assemble(asked, know(shadow=make_shadow()))
    assert (made.strategy, made.device, made.workers) == ("zero1-bf16", "H200 SXM", 64)
    assert made.global_batch_size == 4
    # ZeRO (arXiv:1910.02054), figure 1.
    assert made.ideal_states_bytes / GB == pytest.approx(31.4, abs=0.05)
    assert made.host.ranks_per_node == 8


def test_a_step_of_several_micro_batches_computes_each():
    made = by_shadow(setup=make_setup(accumulation_steps=3))
    assert made.flops_per_step == 3 * 300
    assert made.step_time is not None
    unknown = assemble(ask(), know())
    assert (unknown.flops_per_step, unknown.step_time) == (None, None)


def test_stage_2_says_what_it_sends_more_than_stage_1_for_each_further_micro_batch():
    sent = [
        Collective(name="allreduce_", phase="backward", n_calls=4, payload_bytes=4 * MB),
        Collective(name="_allgather_base_", phase="step", n_calls=1, payload_bytes=MB),
    ]
    setup = make_setup(stage=2, n_ranks=2, ranks_per_node=2, accumulation_steps=4)
    made = by_shadow(make_shadow(collectives=tuple(sent)), setup=setup)
    # Each of 4 all-reduces of 1 MB sends 2 x 1/2 of it from 2 ranks; stage 1 has one of them.
    assert "stage 1 would send 2.9 MiB less a step" in " ".join(made.notes)


def test_what_may_fit_without_its_activations_is_not_said_to_fit():
    room = Budget(n_bytes=GB, of="of the budget")
    made = assemble(ask(budget=room), know(profile=None))
    assert not made.activations_known
    assert made.verdict is Verdict.TIGHT
    assert made.reason.endswith("activations come on top")
    assert made.to_json()["device_bytes"]["activations"] is None
