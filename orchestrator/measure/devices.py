"""What GPUs can do at most: dense peak rates by precision, each with its source.

Pure data and arithmetic; imports no torch. Makes a peak from CUDA's name for the device, and
`None` from a name or precision that no source covers: a guessed peak is a wrong utilisation.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

GB = 10**9

# Makers and product lines; they tell no two devices apart and come and go with the driver.
LINE_WORDS = frozenset({"nvidia", "tesla", "geforce"})

V100 = "NVIDIA V100 Tensor Core GPU data sheet"
A100 = "NVIDIA A100 Tensor Core GPU data sheet"
GA102 = "NVIDIA Ampere GA102 GPU Architecture white paper V2"
H100 = "NVIDIA H100 Tensor Core GPU Architecture white paper"
HALVED = "; bf16 and fp16 halved, as given with sparsity"


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePeak:
    """The most that one kind of GPU can do, without sparsity.

    Attributes:
        name: for people.
        match: lower-case words of CUDA's name for the device (`torch.cuda.get_device_name()`)
            that must all occur. Any other word, save the maker's and the product line's, makes
            it another device: "Ti", "Laptop", a slice ("MIG 1g.5gb").
        flops_per_s: by precision. "bf16" and "fp16" are of tensor cores that accumulate in fp32.
            "fp32" is without tensor cores, because torch multiplies in full fp32 and not in TF32
            unless told to (`torch.get_float32_matmul_precision()` is "highest").
        memory_bytes: capacity as sold, in the data sheet's GB of 1e9 bytes. The device itself
            reports a few per cent more or less, for it counts in GiB and takes off ECC.
        source: title of the document; after a semicolon, what was done to its figures.
    """

    name: str
    match: tuple[str, ...]
    flops_per_s: Mapping[str, float]
    memory_bytes: int
    source: str


DEVICES: tuple[DevicePeak, ...] = (
    # Neither V100 nor T4 has bf16 in its tensor cores, so they have no such rate.
    DevicePeak(
        name="V100 SXM2 16GB",
        match=("v100", "sxm2", "16gb"),
        flops_per_s={"fp32": 15.7e12, "fp16": 125e12},
        memory_bytes=16 * GB,
        source=V100,
    ),
    DevicePeak(
        name="V100 SXM2 32GB",
        match=("v100", "sxm2", "32gb"),
        flops_per_s={"fp32": 15.7e12, "fp16": 125e12},
        memory_bytes=32 * GB,
        source=V100,
    ),
    DevicePeak(
        name="V100 PCIe 16GB",
        match=("v100", "pcie", "16gb"),
        flops_per_s={"fp32": 14e12, "fp16": 112e12},
        memory_bytes=16 * GB,
        source=V100,
    ),
    DevicePeak(
        name="V100 PCIe 32GB",
        match=("v100", "pcie", "32gb"),
        flops_per_s={"fp32": 14e12, "fp16": 112e12},
        memory_bytes=32 * GB,
        source=V100,
    ),
    DevicePeak(
        name="T4",
        match=("t4",),
        flops_per_s={"fp32": 8.1e12, "fp16": 65e12},
        memory_bytes=16 * GB,
        source="NVIDIA T4 Tensor Core GPU data sheet",
    ),
    DevicePeak(
        name="A100 SXM4 40GB",
        match=("a100", "sxm4", "40gb"),
        flops_per_s={"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
        memory_bytes=40 * GB,
        source=A100,
    ),
    DevicePeak(
        name="A100 SXM4 80GB",
        match=("a100", "sxm4", "80gb"),
        flops_per_s={"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
        memory_bytes=80 * GB,
        source=A100,
    ),
    DevicePeak(
        name="A100 PCIe 40GB",
        match=("a100", "pcie", "40gb"),
        flops_per_s={"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
        memory_bytes=40 * GB,
        source=A100,
    ),
    DevicePeak(
        name="A100 PCIe 80GB",
        match=("a100", "pcie", "80gb"),
        flops_per_s={"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
        memory_bytes=80 * GB,
        source=A100,
    ),
    DevicePeak(
        name="A10",
        match=("a10",),
        flops_per_s={"fp32": 31.2e12, "bf16": 125e12, "fp16": 125e12},
        memory_bytes=24 * GB,
        source="NVIDIA A10 Tensor Core GPU data sheet",
    ),
    DevicePeak(
        name="A30",
        match=("a30",),
        flops_per_s={"fp32": 10.3e12, "bf16": 165e12, "fp16": 165e12},
        memory_bytes=24 * GB,
        source="NVIDIA A30 Tensor Core GPU data sheet",
    ),
    DevicePeak(
        name="A40",
        match=("a40",),
        flops_per_s={"fp32": 37.4e12, "bf16": 149.7e12, "fp16": 149.7e12},
        memory_bytes=48 * GB,
        source="NVIDIA A40 data sheet",
    ),
    DevicePeak(
        name="RTX A6000",
        match=("rtx", "a6000"),
        flops_per_s={"fp32": 38.7e12, "bf16": 154.8e12, "fp16": 154.8e12},
        memory_bytes=48 * GB,
        source=GA102,
    ),
    DevicePeak(
        name="GeForce RTX 3090",
        match=("rtx", "3090"),
        # Half of what its tensor cores do when they accumulate in fp16; so it is with the 4090.
        flops_per_s={"fp32": 35.6e12, "bf16": 71e12, "fp16": 71e12},
        memory_bytes=24 * GB,
        source=GA102,
    ),
    DevicePeak(
        name="GeForce RTX 4090",
        match=("rtx", "4090"),
        flops_per_s={"fp32": 82.6e12, "bf16": 165.2e12, "fp16": 165.2e12},
        memory_bytes=24 * GB,
        source="NVIDIA Ada GPU Architecture white paper",
    ),
    DevicePeak(
        name="L4",
        match=("l4",),
        flops_per_s={"fp32": 30.3e12, "bf16": 121e12, "fp16": 121e12},
        memory_bytes=24 * GB,
        source=f"NVIDIA L4 Tensor Core GPU data sheet{HALVED}",
    ),
    DevicePeak(
        name="L40S",
        match=("l40s",),
        flops_per_s={"fp32": 91.6e12, "bf16": 362.05e12, "fp16": 362.05e12},
        memory_bytes=48 * GB,
        source="NVIDIA L40S data sheet",
    ),
    DevicePeak(
        name="H100 SXM",
        match=("h100", "80gb", "hbm3"),
        flops_per_s={"fp32": 66.9e12, "bf16": 989.4e12, "fp16": 989.4e12},
        memory_bytes=80 * GB,
        source=H100,
    ),
    DevicePeak(
        name="H100 PCIe",
        match=("h100", "pcie"),
        flops_per_s={"fp32": 51.2e12, "bf16": 756e12, "fp16": 756e12},
        memory_bytes=80 * GB,
        source=H100,
    ),
    DevicePeak(
        name="H100 NVL",
        match=("h100", "nvl"),
        flops_per_s={"fp32": 60e12, "bf16": 835.5e12, "fp16": 835.5e12},
        memory_bytes=94 * GB,
        source=f"NVIDIA H100 Tensor Core GPU data sheet{HALVED}",
    ),
    DevicePeak(
        name="H200 SXM",
        match=("h200",),
        flops_per_s={"fp32": 67e12, "bf16": 989.5e12, "fp16": 989.5e12},
        memory_bytes=141 * GB,
        source=f"NVIDIA H200 Tensor Core GPU data sheet{HALVED}",
    ),
    DevicePeak(
        name="H200 NVL",
        match=("h200", "nvl"),
        flops_per_s={"fp32": 60e12, "bf16": 835.5e12, "fp16": 835.5e12},
        memory_bytes=141 * GB,
        source=f"NVIDIA H200 Tensor Core GPU data sheet{HALVED}",
    ),
    DevicePeak(
        name="B200",
        match=("b200",),
        flops_per_s={"fp32": 75e12, "bf16": 2250e12, "fp16": 2250e12},
        memory_bytes=180 * GB,
        source=f"NVIDIA Blackwell data sheet, one GPU of HGX B200{HALVED}",
    ),
)


def find_device(device_name: str) -> DevicePeak | None:
    """Find the device that CUDA's name means, and no device that is merely like it.

    Every word of the name must be accounted for, so the most specific match is the only one:
    "NVIDIA H200 NVL" is not an H200.

    Args:
        device_name: as `torch.cuda.get_device_name()` gives it.

    Returns:
        None for a device that is not in `DEVICES`, a part of one included.
    """
    words = set(re.findall(r"[a-z0-9]+", device_name.lower())) - LINE_WORDS
    return next((device for device in DEVICES if set(device.match) == words), None)


def peak_flops_per_s(device_name: str, *, precision: str) -> tuple[float, str] | None:
    """The most operations per second that one device does, and where that is written.

    Args:
        device_name: as `torch.cuda.get_device_name()` gives it.
        precision: "fp32", "bf16" or "fp16".

    Returns:
        The dense rate and its source in words; None where either device or precision is unknown.
    """
    device = find_device(device_name)
    rate = device.flops_per_s.get(precision) if device else None
    if device is None or rate is None:
        return None
    title = device.source.partition(";")[0]
    return rate, f"{title}, dense {precision}"
