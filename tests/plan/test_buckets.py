import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.buckets import bucket_sizes, nvme_buffer_size

# deepspeed 0.19.8, runtime/zero/config.py
DEFAULTS = {
    "reduce_bucket_size": 5e8,
    "allgather_bucket_size": 5e8,
    "stage3_prefetch_bucket_size": 5e7,
    "stage3_param_persistence_threshold": 1e5,
    "stage3_max_live_parameters": 1e9,
    "stage3_max_reuse_distance": 1e9,
}


def test_seven_billion_parameters_get_the_defaults_of_deepspeed():
    sizes = bucket_sizes(7_000_000_000, stage=1) | bucket_sizes(7_000_000_000, stage=3)
    assert sizes == DEFAULTS


def test_each_stage_sizes_the_buckets_it_uses():
    assert bucket_sizes(10**9, stage=0) == {}
    lower = {"reduce_bucket_size": 125_000, "allgather_bucket_size": 125_000}
    assert bucket_sizes(10**6, stage=1) == lower
    assert bucket_sizes(10**6, stage=2) == lower
    # stage 3 gathers through the prefetch bucket
    assert "allgather_bucket_size" not in bucket_sizes(10**6, stage=3)


SIZES = [(stage, key) for stage in (1, 3) for key in bucket_sizes(1, stage=stage)]


@given(n_params=st.integers(min_value=2, max_value=10**12), stage=st.sampled_from([1, 2, 3]))
def test_no_buffer_is_larger_than_the_model_or_than_the_default(n_params, stage):
    for key, size in bucket_sizes(n_params, stage=stage).items():
        assert 0 <= size <= min(n_params, DEFAULTS[key])
        assert size > 0 or key == "stage3_param_persistence_threshold"


@given(n_params=st.integers(min_value=1, max_value=10**12), stage=st.sampled_from([1, 2]))
def test_the_allgather_bucket_is_even_and_as_large_as_the_reduce_bucket(n_params, stage):
    sizes = bucket_sizes(n_params, stage=stage)
    # deepspeed 0.19.8 refuses odd ones
    assert sizes["allgather_bucket_size"] % 2 == 0
    assert abs(sizes["allgather_bucket_size"] - sizes["reduce_bucket_size"]) <= 1


@pytest.mark.parametrize(("stage", "key"), SIZES)
@given(n_params=st.integers(min_value=1, max_value=10**11))
def test_a_larger_model_never_gets_a_smaller_buffer(stage, key, n_params):
    small, large = (bucket_sizes(n, stage=stage)[key] for n in (n_params, 2 * n_params))
    assert small <= large


@given(n_params=st.integers(min_value=100_000, max_value=10**10))
def test_on_a_model_of_any_use_most_parameters_are_sharded(n_params):
    assert bucket_sizes(n_params, stage=3)["stage3_param_persistence_threshold"] <= n_params / 1000


@pytest.mark.parametrize(("n_params", "size"), [(0, 1), (5000, 5000), (10**12, 10**8)])
def test_the_nvme_buffer_takes_the_largest_parameter_of_any_small_model(n_params, size):
    assert nvme_buffer_size(n_params) == size
