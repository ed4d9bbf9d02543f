import pytest

from orchestrator.errors import UsageError
from orchestrator.measure.device_table import DEVICES
from orchestrator.measure.devices import (
    device_called,
    find_device,
    model_of,
    peak_flops_per_s,
)

# What CUDA calls the device: our name for it, CUDA cores, boost clock in MHz (data sheets,
# white papers and product briefs; the V100's SXM2 clock is 1530, its PCIe clock 1380).
REAL = {
    "Tesla V100-SXM2-16GB": ("V100 SXM2 16GB", 5120, 1530),
    "Tesla V100-SXM2-32GB": ("V100 SXM2 32GB", 5120, 1530),
    "Tesla V100-PCIE-16GB": ("V100 PCIe 16GB", 5120, 1380),
    "Tesla V100-PCIE-32GB": ("V100 PCIe 32GB", 5120, 1380),
    "Tesla T4": ("T4", 2560, 1590),
    "NVIDIA A100-SXM4-40GB": ("A100 SXM4 40GB", 6912, 1410),
    "NVIDIA A100-SXM4-80GB": ("A100 SXM4 80GB", 6912, 1410),
    "NVIDIA A100-PCIE-40GB": ("A100 PCIe 40GB", 6912, 1410),
    "NVIDIA A100 80GB PCIe": ("A100 PCIe 80GB", 6912, 1410),
    "NVIDIA A10": ("A10", 9216, 1695),
    "NVIDIA A30": ("A30", 3584, 1440),
    "NVIDIA A40": ("A40", 10752, 1740),
    "NVIDIA RTX A6000": ("RTX A6000", 10752, 1800),
    "NVIDIA GeForce RTX 3090": ("GeForce RTX 3090", 10496, 1695),
    "NVIDIA GeForce RTX 4090": ("GeForce RTX 4090", 16384, 2520),
    "NVIDIA L4": ("L4", 7424, 2040),
    "NVIDIA L40S": ("L40S", 18176, 2520),
    "NVIDIA H100 80GB HBM3": ("H100 SXM", 16896, 1980),
    "NVIDIA H100 PCIe": ("H100 PCIe", 14592, 1755),
    "NVIDIA H100 NVL": ("H100 NVL", 16896, 1785),
    "NVIDIA H200": ("H200 SXM", 16896, 1980),
    "NVIDIA H200 NVL": ("H200 NVL", 16896, 1785),
    "NVIDIA B200": ("B200", 18944, 1980),
}


def known(name):
    device = find_device(name)
    assert device is not None
    return device


def peak(name, *, precision):
    rate_and_source = peak_flops_per_s(name, precision=precision)
    assert rate_and_source is not None
    return rate_and_source


def test_every_device_is_found_by_its_real_name_and_by_no_other():
    found = {name: known(name).name for name in REAL}
    assert found == {name: ours for name, (ours, _, _) in REAL.items()}
    assert sorted(found.values()) == sorted(device.name for device in DEVICES)


@pytest.mark.parametrize(
    "older_or_newer_name",
    ["A100-SXM4-40GB", "Tesla A100-SXM4-40GB", "nvidia a100-sxm4-40gb", "NVIDIA A100 SXM4 40GB"],
)
def test_maker_case_and_dashes_make_no_other_device(older_or_newer_name):
    assert known(older_or_newer_name).name == "A100 SXM4 40GB"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "cpu",
        "NVIDIA",
        "AMD Instinct MI300X",
        "NVIDIA A10G",
        "NVIDIA A100",
        "NVIDIA A100X",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA H20",
        "NVIDIA H100",
        "NVIDIA GH200 480GB",
        "NVIDIA L40",
        "NVIDIA GB200",
        "Tesla V100S-PCIE-32GB",
        "Tesla V100-FHHL-16GB",
        "NVIDIA RTX 6000 Ada Generation",
    ],
)
def test_a_device_that_is_merely_like_one_is_unknown(name):
    assert find_device(name) is None
    assert peak_flops_per_s(name, precision="bf16") is None


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "NVIDIA A10-24Q",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
    ],
)
def test_a_slice_or_a_cut_down_device_does_not_get_the_whole_peak(name):
    assert find_device(name) is None


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 80GB HBM3", "fp32", 66.9),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "fp32", 19.5),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-PCIE-32GB", "fp16", 112),
        ("Tesla T4", "fp16", 65),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA A30", "bf16", 165),
        ("NVIDIA A40", "bf16", 149.7),
        ("NVIDIA RTX A6000", "bf16", 154.8),
        ("NVIDIA GeForce RTX 3090", "bf16", 71),
        ("NVIDIA GeForce RTX 4090", "fp16", 165.2),
        ("NVIDIA L40S", "bf16", 362.05),
    ],
)
def test_a_rate_is_the_one_that_is_printed(name, precision, tera):
    rate, _ = peak(name, precision=precision)
    assert rate == pytest.approx(tera * 1e12)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("name", "sparse_tera"),
    [
        ("NVIDIA A100-SXM4-40GB", 624),
        ("NVIDIA A40", 299.4),
        ("NVIDIA L4", 242),
        ("NVIDIA H100 80GB HBM3", 1979),
        ("NVIDIA H100 PCIe", 1513),
        ("NVIDIA H100 NVL", 1671),
        ("NVIDIA H200", 1979),
        ("NVIDIA H200 NVL", 1671),
        ("NVIDIA B200", 4500),
    ],
)
def test_a_dense_rate_is_half_of_the_rate_with_sparsity(name, sparse_tera, precision):
    rate, _ = peak(name, precision=precision)
    assert rate == pytest.approx(sparse_tera * 1e12 / 2, rel=1e-3)


@pytest.mark.parametrize("name", REAL)
def test_fp32_is_two_operations_per_core_and_clock_and_so_not_tf32(name):
    _, n_cores, boost_mhz = REAL[name]
    rate, _ = peak(name, precision="fp32")
    assert rate == pytest.approx(2 * n_cores * boost_mhz * 1e6, rel=0.01)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_tensor_cores_are_faster_than_none_and_bf16_is_as_fast_as_fp16(device):
    rates = device.flops_per_s
    assert rates["fp16"] > 1.5 * rates["fp32"]
    assert rates.get("bf16") in (None, rates["fp16"])


@pytest.mark.parametrize("name", ["Tesla V100-SXM2-32GB", "Tesla T4"])
def test_a_device_without_bf16_tensor_cores_has_no_bf16_rate(name):
    assert peak_flops_per_s(name, precision="bf16") is None
    assert peak_flops_per_s(name, precision="fp16") is not None


def test_a_precision_without_a_figure_has_no_rate():
    assert peak_flops_per_s("NVIDIA H100 80GB HBM3", precision="fp8") is None


def test_the_source_names_the_document_and_the_precision_but_not_what_was_done_to_it():
    _, source = peak("NVIDIA H100 NVL", precision="bf16")
    assert source == "NVIDIA H100 Tensor Core GPU data sheet, dense bf16"
    assert "halved" in known("NVIDIA H100 NVL").source


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("NVIDIA A100-SXM4-40GB", 40),
        ("NVIDIA H100 80GB HBM3", 80),
        ("NVIDIA H100 NVL", 94),
        ("NVIDIA H200", 141),
        ("NVIDIA B200", 180),
        ("NVIDIA L4", 24),
    ],
)
def test_memory_is_in_the_gigabytes_of_the_data_sheet(name, gigabytes):
    assert known(name).memory_bytes == gigabytes * 1_000_000_000


@pytest.mark.parametrize(
    ("short_name", "name"),
    [
        ("h200", "H200 SXM"),
        ("H200", "H200 SXM"),
        ("b200", "B200"),
        ("l40s", "L40S"),
        ("a10", "A10"),
        ("rtx4090", "GeForce RTX 4090"),
        ("RTX 4090", "GeForce RTX 4090"),
        ("geforce-rtx-4090", "GeForce RTX 4090"),
        ("4090", "GeForce RTX 4090"),
        ("a6000", "RTX A6000"),
        ("a100-80gb", "A100 SXM4 80GB"),
        ("A100 80GB", "A100 SXM4 80GB"),
        ("a10080g", "A100 SXM4 80GB"),
        ("a100-40gb", "A100 SXM4 40GB"),
        ("a100-pcie-40gb", "A100 PCIe 40GB"),
        ("a100-40gb-pcie", "A100 PCIe 40GB"),
        ("h100-sxm5", "H100 SXM"),
        ("h100-pcie", "H100 PCIe"),
        ("h100_nvl", "H100 NVL"),
        ("h100-94gb", "H100 NVL"),
        ("h200-nvl", "H200 NVL"),
        ("v100-16gb", "V100 SXM2 16GB"),
    ],
)
def test_a_short_name_needs_neither_case_nor_gaps(short_name, name):
    assert device_called(short_name).name == name


@pytest.mark.parametrize(
    ("short_name", "name"),
    [
        ("v100", "V100 SXM2 32GB"),
        ("a100", "A100 SXM4 80GB"),
        ("a100-pcie", "A100 PCIe 80GB"),
        # Not the NVL, though it has more memory.
        ("h100", "H100 SXM"),
    ],
)
def test_an_open_variant_is_the_one_with_nvlink_and_then_the_one_with_most_memory(short_name, name):
    assert device_called(short_name).name == name


def test_every_device_is_called_by_its_full_name_and_by_cudas():
    assert [device_called(device.name) for device in DEVICES] == list(DEVICES)
    assert {cuda: device_called(cuda).name for cuda in REAL} == {
        cuda: name for cuda, (name, _, _) in REAL.items()
    }


@pytest.mark.parametrize(
    "unlike",
    ["", "sxm", "80gb", "gh200", "a100a100", "a100-64gb", "rtx4090laptop", "a100x", "4080"],
)
def test_a_short_name_with_another_word_or_none_means_no_device(unlike):
    with pytest.raises(UsageError, match=r"unknown device .* known are v100, t4, a100, "):
        device_called(unlike)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("h20", "h200"), ("rtx-409", "rtx4090"), ("a100-pci-40gb", "a100-pcie-40gb")],
)
def test_an_unknown_short_name_is_answered_by_the_nearest(misspelt, meant):
    with pytest.raises(UsageError, match=f"unknown device '{misspelt}'; did you mean '{meant}'"):
        device_called(misspelt)


def test_a_model_is_named_alike_in_every_variant():
    models = {model_of(device) for device in DEVICES if "A100" in device.name}
    assert models == {"a100"}
    assert model_of(device_called("rtx-a6000")) == "a6000"
