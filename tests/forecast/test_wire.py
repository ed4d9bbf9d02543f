import pytest

from orchestrator.forecast.wire import ring_wire_bytes, wire_terms
from tests.forecast.strategies import layered_profile, make_setup

# bf16 on two ranks, as measured (MEMORY.md, section 2.7). S = 2P.
P = 64_000
S = 2 * P


def sent(*, n_params=P, profile=None, **changes):
    setup = make_setup(**{"precision": "bf16", **changes})
    found: dict[str, int] = {}
    for term in wire_terms(setup, profile=profile, n_params=n_params):
        found[term.collective] = found.get(term.collective, 0) + term.payload_bytes
    return found


@pytest.mark.parametrize(
    ("collective", "share"),
    [("all_reduce", 2), ("all_gather", 1), ("reduce_scatter", 1), ("broadcast", 1)],
)
def test_a_ring_sends_so_many_n_minus_1_nths(collective, share):
    assert ring_wire_bytes(collective, 1000, 4) == share * 750
    assert ring_wire_bytes(collective, 1000, 1) == 0


def test_a_ring_needs_a_rank():
    with pytest.raises(ValueError, match="0 ranks cannot send"):
        ring_wire_bytes("all_reduce", 1, 0)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({"stage": 0}, {"all_reduce": 1}),
        ({"stage": 1}, {"all_reduce": 1, "all_gather": 1}),
        # every micro-batch
        ({"stage": 2}, {"all_reduce": 2, "all_gather": 1}),
        ({"stage": 2, "multi_rank_bucket_allreduce": False}, {"reduce": 2, "all_gather": 1}),
        # forward and backward, every micro-batch
        ({"stage": 3}, {"all_gather": 2 * 2, "reduce_scatter": 2}),
    ],
    ids=str,
)
def test_payload_of_a_step_of_two_micro_batches_in_gradients_of_the_model(strategy, expected):
    found = sent(accumulation_steps=2, **strategy)
    assert {name: n / S for name, n in found.items()} == pytest.approx(expected, rel=0.001)


def test_a_model_of_small_parameters_is_gathered_once_a_step_at_stage_3():
    profile = layered_profile((1000,) * 64)
    changes = {"stage": 3, "persistence_threshold_elements": 100_000, "accumulation_steps": 2}
    found = sent(profile=profile, n_params=None, **changes)
    assert found == {"reduce_scatter": 2 * S, "all_gather": S}


@pytest.mark.parametrize(
    ("stage", "n_ranks", "wire"),
    # 2(N-1)/N, 3(N-1)/N, (2g+1)(N-1)/N and 3g(N-1)/N of S at g = 2
    [(0, 4, 2 * 0.75), (1, 4, 3 * 0.75), (2, 4, 5 * 0.75), (3, 4, 6 * 0.75), (3, 1, 0)],
)
def test_bytes_on_the_wire_are_those_of_rings(stage, n_ranks, wire):
    setup = make_setup(stage=stage, n_ranks=n_ranks, precision="bf16", accumulation_steps=2)
    terms = wire_terms(setup, n_params=P)
    assert sum(term.wire_bytes for term in terms) / S == pytest.approx(wire, rel=0.001)


def test_stage_1_sends_less_than_stage_2_when_gradients_are_accumulated():
    def wire(stage):
        setup = make_setup(stage=stage, accumulation_steps=4)
        return sum(term.wire_bytes for term in wire_terms(setup, n_params=P))

    assert wire(1) < wire(2)


# Calls and payload of one step of two real gloo ranks, counted by their operations: GPT-2 of
# 842,496 parameters has 12 buckets of 105,312 elements; here the same with equal layers.
@pytest.mark.parametrize(("stage", "n_times"), [(1, 1), (2, 4)])
def test_buckets_are_filled_until_the_next_gradient_does_not_fit(stage, n_times):
    profile = layered_profile((10,) * 9)
    setup = make_setup(stage=stage, reduce_bucket_elements=25, accumulation_steps=4)
    reduced, gathered = wire_terms(setup, profile=profile)
    # two and two, and one that is left
    assert (reduced.n_calls, reduced.payload_bytes) == (5 * n_times, 360 * n_times)
    # padded from 90 to 92 elements
    assert (gathered.n_calls, gathered.payload_bytes) == (1, 4 * 92)


def test_without_multi_rank_buckets_each_is_sent_in_as_many_parts_as_it_has_owners():
    profile = layered_profile((10,) * 4)
    setup = make_setup(
        stage=2, reduce_bucket_elements=15, multi_rank_bucket_allreduce=False, n_ranks=2
    )
    whole = make_setup(
        stage=2, reduce_bucket_elements=40, multi_rank_bucket_allreduce=False, n_ranks=2
    )
    # Partitions end with a layer; a bucket of all belongs to both ranks.
    assert wire_terms(setup, profile=profile)[0].n_calls == 4
    assert wire_terms(whole, profile=profile)[0].n_calls == 2


def test_gradients_added_up_in_fp32_are_sent_in_bf16():
    found = sent(stage=1, grad_accum_dtype="fp32", n_params=P)
    assert found == {"all_reduce": S, "all_gather": S}


def test_the_torch_engine_reduces_fp32_gradients_once_a_step():
    assert sent(engine="torch", precision="fp32", accumulation_steps=4) == {"all_reduce": 4 * P}
