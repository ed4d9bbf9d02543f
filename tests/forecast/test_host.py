import pytest

from orchestrator.forecast.host import host_forecast
from orchestrator.forecast.verdict import Interval
from orchestrator.units import MIB
from tests.forecast.strategies import make_setup

# Published nowhere, measured here: a process without tensors takes 350 to 750 MiB, and Ray 300 to
# 1,200 MiB of a node.


def forecast(setup, **changes):
    sizes = {
        "offloaded_bytes": 0,
        "pinned_rounding_bytes": 0,
        "device_peak_bytes": 0,
        "n_elements": 0,
        **changes,
    }
    return host_forecast(setup, **sizes)


def gpus(n_ranks, **changes):
    return make_setup(device="cuda", n_ranks=n_ranks, **{"ranks_per_node": n_ranks, **changes})


def mib(low, expected, high):
    return Interval(low=low * MIB, expected=expected * MIB, high=high * MIB)


def test_a_node_holds_ray_and_the_processes_of_its_ranks():
    # 300 + 350 and 1,200 + 750; and another 350 to 750 for each rank more.
    assert forecast(gpus(1)).node_bytes == mib(650, 1300, 1950)
    assert forecast(gpus(2)).node_bytes == mib(1000, 1850, 2700)


def test_what_every_rank_offloads_counts_for_each_with_its_rounding():
    made = forecast(gpus(2), offloaded_bytes=100 * MIB, pinned_rounding_bytes=28 * MIB)
    assert made.node_bytes == mib(1000 + 256, 1850 + 256, 2700 + 256)
    assert (made.offloaded_bytes, made.pinned_rounding_bytes) == (100 * MIB, 28 * MIB)


def test_what_a_gpu_holds_is_not_the_nodes():
    made = forecast(gpus(1), device_peak_bytes=5000 * MIB)
    assert made.tensor_bytes == 0
    assert made.node_bytes == mib(650, 1300, 1950)


def test_on_a_cpu_what_a_rank_trains_with_is_the_nodes_and_stands_beside_what_it_offloads():
    setup = make_setup(device="cpu", n_ranks=2, ranks_per_node=2)
    made = forecast(setup, device_peak_bytes=200 * MIB, offloaded_bytes=100 * MIB, n_elements=10**9)
    assert made.tensor_bytes == 200 * MIB
    # The model that is being built is in the peak already.
    assert made.start_bytes == 0
    assert made.node_bytes == mib(1000 + 600, 1850 + 600, 2700 + 600)


@pytest.mark.parametrize(("offloaded_mib", "fullest_mib"), [(100, 400), (500, 500)])
def test_beside_gpus_every_rank_builds_the_whole_model_in_fp32_before_it_offloads_any(
    offloaded_mib, fullest_mib
):
    # 4 bytes an element.
    made = forecast(gpus(8), offloaded_bytes=offloaded_mib * MIB, n_elements=100 * MIB)
    assert made.start_bytes == 400 * MIB
    assert made.node_bytes.low == (300 + 8 * (350 + fullest_mib)) * MIB
    assert made.node_bytes.high == (1200 + 8 * (750 + fullest_mib)) * MIB


def test_ranks_on_other_nodes_take_nothing_of_this_one():
    held = {"offloaded_bytes": 100 * MIB}
    far = forecast(gpus(64, ranks_per_node=8), **held)
    assert far.ranks_per_node == 8
    assert far.node_bytes == forecast(gpus(8), **held).node_bytes
