import pytest

from orchestrator.measure.device_table import DEVICES
from orchestrator.measure.devices import device_called, known_devices

# Memory bus in bits and what one of its pins carries in Gbit/s (product briefs and white papers).
MEMORY_BUS = {
    "V100 SXM2 16GB": (4096, 1.754),
    "V100 SXM2 32GB": (4096, 1.754),
    "V100 PCIe 16GB": (4096, 1.754),
    "V100 PCIe 32GB": (4096, 1.754),
    "T4": (256, 10),
    "A100 SXM4 40GB": (5120, 2.43),
    "A100 SXM4 80GB": (5120, 3.186),
    "A100 PCIe 40GB": (5120, 2.43),
    "A100 PCIe 80GB": (5120, 3.024),
    "A10": (384, 12.5),
    "A30": (3072, 2.43),
    "A40": (384, 14.5),
    "RTX A6000": (384, 16),
    "GeForce RTX 3090": (384, 19.5),
    "GeForce RTX 4090": (384, 21),
    "L4": (192, 12.5),
    "L40S": (384, 18),
    "H100 SXM": (5120, 5.24),
    "H100 PCIe": (5120, 3.186),
    "H100 NVL": (6016, 5.24),
    "H200 SXM": (6144, 6.25),
    "H200 NVL": (6144, 6.25),
    "B200": (8192, 8),
}


def test_memory_is_as_fast_as_the_pins_of_its_bus_together():
    in_table = {device.name: device.memory_bytes_per_s / 1e9 for device in known_devices()}
    by_hand = {name: bits * gigabits / 8 for name, (bits, gigabits) in MEMORY_BUS.items()}
    assert in_table == pytest.approx(by_hand, rel=0.03)


@pytest.mark.parametrize(
    ("short_name", "n_links", "link_gigabytes"),
    [
        ("v100", 6, 25),
        ("a100-40gb", 12, 25),
        ("a100-80gb", 12, 25),
        ("h100", 18, 25),
        ("h200", 18, 25),
        ("b200", 18, 50),
    ],
)
def test_nvlink_is_counted_in_one_direction(short_name, n_links, link_gigabytes):
    device = device_called(short_name)
    assert device.nvlink_bytes_per_s == n_links * link_gigabytes * 1e9
    assert device.interconnect_bytes_per_s == device.nvlink_bytes_per_s


@pytest.mark.parametrize("short_name", ["a100-pcie", "h100-nvl", "a40", "rtx4090", "t4"])
def test_gpus_that_no_switch_joins_meet_over_pcie(short_name):
    device = device_called(short_name)
    assert device.nvlink_bytes_per_s is None
    assert device.interconnect_bytes_per_s == device.host_link_bytes_per_s


@pytest.mark.parametrize(
    ("short_name", "gigatransfers"),
    [("v100", 8), ("t4", 8), ("a100", 16), ("l40s", 16), ("h200", 32)],
)
def test_pcie_carries_a_bit_a_transfer_on_each_of_sixteen_lanes(short_name, gigatransfers):
    assert device_called(short_name).host_link_bytes_per_s == gigatransfers * 16 / 8 * 1e9


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_the_nearer_memory_is_the_faster(device):
    own, host = device.memory_bytes_per_s, device.host_link_bytes_per_s
    assert own > device.interconnect_bytes_per_s >= host
