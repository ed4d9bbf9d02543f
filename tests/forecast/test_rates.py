import math

import pytest

from orchestrator.errors import UsageError
from orchestrator.forecast.rates import fit_alpha_beta, rates_for, with_measured
from orchestrator.measure.devices import device_called

KIB, MIB = 2**10, 2**20
SIZES = [64 * KIB, MIB, 16 * MIB, 256 * MIB]


def rates(short_name="h100", **changes):
    settings = {"precision": "bf16", "n_ranks": 8, "ranks_per_node": 8, "backend": "nccl"}
    device = None if short_name is None else device_called(short_name)
    return rates_for(device, **{**settings, **changes})


@pytest.mark.parametrize(
    ("short_name", "precision", "tera"),
    [
        # 45 % of tensor cores, 60 % of the others.
        ("h100", "bf16", 445.2),
        ("a100", "bf16", 140.4),
        ("v100", "fp16", 56.25),
        ("a100", "fp32", 11.7),
    ],
)
def test_a_gpu_reaches_less_than_half_of_its_tensor_cores(short_name, precision, tera):
    reached = rates(short_name, precision=precision).flops_per_s
    assert reached == pytest.approx(tera * 1e12, rel=1e-3)


def test_a_precision_that_a_gpu_lacks_is_refused_with_those_it_has():
    with pytest.raises(UsageError, match=r"V100 SXM2 32GB .* bf16; choose fp32 or fp16"):
        rates("v100")


@pytest.mark.parametrize("settings", [{"n_ranks": 0}, {"ranks_per_node": 0}])
def test_rates_are_of_at_least_one_rank(settings):
    with pytest.raises(ValueError, match="there is at least one"):
        rates(**settings)


@pytest.mark.parametrize(
    ("short_name", "settings", "gigabytes"),
    [
        # 80 % of 450, 300 and 32 GB/s.
        ("h100", {}, 360),
        ("a100", {}, 240),
        ("a100-pcie", {}, 25.6),
        # One 400 or 200 Gbit/s card a GPU, 92 % of it.
        ("h200", {"n_ranks": 2, "ranks_per_node": 1}, 46),
        ("a100", {"n_ranks": 2, "ranks_per_node": 1}, 23),
        ("a100", {"n_ranks": 16, "ranks_per_node": 4}, 92),
        # Eight such cards are faster than NVLink: 368 GB/s.
        ("h200", {"n_ranks": 16}, 360),
        # A node of any other GPU shares a card of 100 Gbit/s.
        ("v100", {"n_ranks": 16, "precision": "fp16"}, 11.5),
        ("rtx4090", {"n_ranks": 2, "ranks_per_node": 1}, 11.5),
    ],
)
def test_a_rank_sends_as_fast_as_the_slowest_part_of_its_rings(short_name, settings, gigabytes):
    assert rates(short_name, **settings).beta_bytes_per_s == pytest.approx(gigabytes * 1e9)


@pytest.mark.parametrize(
    ("short_name", "settings", "microseconds"),
    [
        ("h100", {"n_ranks": 1}, 8.4),
        # A start, and 7 hops over NVLink or PCIe.
        ("h100", {}, 8.4 + 7 * 3.4),
        ("l40s", {}, 8.4 + 7 * 5.7),
        # 15 hops, 2 of them from node to node.
        ("h100", {"n_ranks": 16}, 8.4 + 13 * 3.4 + 2 * 9.6),
        # Every hop leaves a node.
        ("h100", {"n_ranks": 4, "ranks_per_node": 1}, 8.4 + 3 * 9.6),
    ],
)
def test_a_call_takes_a_start_and_a_hop_to_every_other_rank(short_name, settings, microseconds):
    assert rates(short_name, **settings).alpha_s == pytest.approx(microseconds * 1e-6)


def test_gloo_is_as_slow_beside_a_gpu_as_on_a_cpu():
    for short_name in ("h100", None):
        gloo = rates(short_name, backend="gloo")
        assert (gloo.alpha_s, gloo.beta_bytes_per_s) == (1e-4, 1e9)
        assert gloo.sources["beta_bytes_per_s"] == "a guess for gloo"


def test_a_cpus_rates_say_that_they_are_guesses():
    sources = rates(None, precision="fp32", backend="gloo").sources
    assert sources["flops_per_s"] == sources["memory_bytes_per_s"] == "a guess for any CPU"


def test_memory_and_host_link_reach_four_fifths():
    h100 = rates()
    assert h100.memory_bytes_per_s == pytest.approx(0.8 * 3352e9)
    assert h100.host_link_bytes_per_s == pytest.approx(0.8 * 64e9)


@pytest.mark.parametrize(
    ("n_ranks", "ranks_per_node", "elements"), [(1, 8, 1.4e9), (8, 8, 1.75e8), (16, 4, 3.5e8)]
)
def test_ranks_of_a_node_share_its_cpu(n_ranks, ranks_per_node, elements):
    shared = rates(n_ranks=n_ranks, ranks_per_node=ranks_per_node)
    assert shared.cpu_adam_elements_per_s == pytest.approx(elements)


def test_a_measured_rate_takes_the_place_of_a_default_and_of_its_source():
    measured = with_measured(rates(), source="probe of node-1", alpha_s=2e-5, beta_bytes_per_s=3e11)
    assert (measured.alpha_s, measured.beta_bytes_per_s) == (2e-5, 3e11)
    assert measured.sources["alpha_s"] == "probe of node-1"
    assert measured.flops_per_s == rates().flops_per_s
    assert "45%" in measured.sources["flops_per_s"]


def test_a_rate_of_another_name_cannot_be_measured():
    with pytest.raises(TypeError, match="gamma_s"):
        with_measured(rates(), source="probe", gamma_s=1.0)


@pytest.mark.parametrize(("alpha_s", "beta"), [(1e-4, 1e9), (2e-5, 3.6e11), (0.0, 1e10)])
def test_points_on_a_line_give_the_line_back(alpha_s, beta):
    found_alpha_s, found_beta = fit_alpha_beta([(n, alpha_s + n / beta) for n in SIZES])
    assert found_alpha_s == pytest.approx(alpha_s, rel=1e-6, abs=1e-12)
    assert found_beta == pytest.approx(beta, rel=1e-6)


def test_a_fifth_of_noise_on_large_calls_does_not_drown_alpha():
    noise = [1.0, 1.0, 1.2, 0.8]
    samples = [(n, (1e-4 + n / 1e9) * by) for n, by in zip(SIZES, noise, strict=True)]
    alpha_s, beta = fit_alpha_beta(samples)
    assert alpha_s == pytest.approx(1e-4, rel=0.2)
    assert beta == pytest.approx(1e9, rel=0.2)


def test_a_line_that_would_start_below_nothing_starts_at_nothing():
    # Through (1, 1) and (2, 3) a line starts at -1; of the relative errors 1 - b and 1 - 2b/3 the
    # squares are least at b = (1 + 2/3) / (1 + 4/9) = 15/13.
    alpha_s, beta = fit_alpha_beta([(1, 1.0), (2, 3.0)])
    assert alpha_s == 0
    assert beta == pytest.approx(13 / 15)


def test_calls_that_get_faster_with_size_have_no_cost_by_the_byte():
    # Of the relative errors 1 - a/2 and 1 - a the squares are least at a = 1.5 / 1.25.
    alpha_s, beta = fit_alpha_beta([(1, 2.0), (10, 1.0)])
    assert alpha_s == pytest.approx(1.2)
    assert math.isinf(beta)


@pytest.mark.parametrize(
    "samples", [[], [(1, 1.0)], [(1, 1.0), (1, 2.0)], [(1, 1.0), (2, 0.0)], [(1, -1.0), (2, 1.0)]]
)
def test_a_line_needs_two_sizes_and_time(samples):
    with pytest.raises(ValueError, match="two sizes that took some time"):
        fit_alpha_beta(samples)
