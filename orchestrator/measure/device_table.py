"""The table of GPUs: what each can do at most, by the document that says so.

Pure data; imports no torch. A figure that no source covers is left out: a guessed peak is a wrong
utilisation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

GB = 10**9

# One direction of 16 lanes; data sheets print 32, 64 and 128 GB/s for both together.
PCIE_3 = 16 * GB
PCIE_4 = 32 * GB
PCIE_5 = 64 * GB

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
        memory_bytes_per_s: between the chip and its memory, reading and writing together.
        nvlink_bytes_per_s: to the other GPUs of its node, one direction, half of what is printed.
            `None` where they meet over PCIe only, or in twos or fours over bridges sold apart.
        host_link_bytes_per_s: PCIe's, one direction, half of what is printed.
        source: title of the document of every figure; after a semicolon, what was done to its
            figures and where another document was used.
    """

    name: str
    match: tuple[str, ...]
    flops_per_s: Mapping[str, float]
    memory_bytes: int
    memory_bytes_per_s: int
    nvlink_bytes_per_s: int | None = None
    host_link_bytes_per_s: int
    source: str

    @property
    def interconnect_bytes_per_s(self) -> int:
        """To the other GPUs of its node, one direction: NVLink, or else PCIe."""
        return self.nvlink_bytes_per_s or self.host_link_bytes_per_s


DEVICES: tuple[DevicePeak, ...] = (
    # Neither V100 nor T4 has bf16 in its tensor cores, so they have no such rate.
    DevicePeak(
        name="V100 SXM2 16GB",
        match=("v100", "sxm2", "16gb"),
        flops_per_s={"fp32": 15.7e12, "fp16": 125e12},
        memory_bytes=16 * GB,
        memory_bytes_per_s=900 * GB,
        nvlink_bytes_per_s=150 * GB,
        host_link_bytes_per_s=PCIE_3,
        source=V100,
    ),
    DevicePeak(
        name="V100 SXM2 32GB",
        match=("v100", "sxm2", "32gb"),
        flops_per_s={"fp32": 15.7e12, "fp16": 125e12},
        memory_bytes=32 * GB,
        memory_bytes_per_s=900 * GB,
        nvlink_bytes_per_s=150 * GB,
        host_link_bytes_per_s=PCIE_3,
        source=V100,
    ),
    DevicePeak(
        name="V100 PCIe 16GB",
        match=("v100", "pcie", "16gb"),
        flops_per_s={"fp32": 14e12, "fp16": 112e12},
        memory_bytes=16 * GB,
        memory_bytes_per_s=900 * GB,
        host_link_bytes_per_s=PCIE_3,
        source=V100,
    ),
    DevicePeak(
        name="V100 PCIe 32GB",
        match=("v100", "pcie", "32gb"),
        flops_per_s={"fp32": 14e12, "fp16": 112e12},
        memory_bytes=32 * GB,
        memory_bytes_per_s=900 * GB,
        host_link_bytes_per_s=PCIE_3,
        source=V100,
    ),
    DevicePeak(
        name="T4",
        match=("t4",),
        flops_per_s={"fp32": 8.1e12, "fp16": 65e12},
        memory_bytes=16 * GB,
        memory_bytes_per_s=320 * GB,
        host_link_bytes_per_s=PCIE_3,
        source="NVIDIA T4 Tensor Core GPU data sheet; memory rate of its product brief",
    ),
    DevicePeak(
        name="A100 SXM4 40GB",
        match=("a100", "sxm4", "40gb"),
        flops_per_s={"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
        memory_bytes=40 * GB,
        memory_bytes_per_s=1555 * GB,
        nvlink_bytes_per_s=300 * GB,
        host_link_bytes_per_s=PCIE_4,
        source=A100,
    ),
    DevicePeak(
        name="A100 SXM4 80GB",
        match=("a100", "sxm4", "80gb"),
        flops_per_s={"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
        memory_bytes=80 * GB,
        memory_bytes_per_s=2039 * GB,
        nvlink_bytes_per_s=300 * GB,
        host_link_bytes_per_s=PCIE_4,
        source=A100,
    ),
    DevicePeak(
        name="A100 PCIe 40GB",
        match=("a100", "pcie", "40gb"),
        flops_per_s={"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
        memory_bytes=40 * GB,
        memory_bytes_per_s=1555 * GB,
        host_link_bytes_per_s=PCIE_4,
        source=A100,
    ),
    DevicePeak(
        name="A100 PCIe 80GB",
        match=("a100", "pcie", "80gb"),
        flops_per_s={"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
        memory_bytes=80 * GB,
        memory_bytes_per_s=1935 * GB,
        host_link_bytes_per_s=PCIE_4,
        source=A100,
    ),
    DevicePeak(
        name="A10",
        match=("a10",),
        flops_per_s={"fp32": 31.2e12, "bf16": 125e12, "fp16": 125e12},
        memory_bytes=24 * GB,
        memory_bytes_per_s=600 * GB,
        host_link_bytes_per_s=PCIE_4,
        source="NVIDIA A10 Tensor Core GPU data sheet",
    ),
    DevicePeak(
        name="A30",
        match=("a30",),
        flops_per_s={"fp32": 10.3e12, "bf16": 165e12, "fp16": 165e12},
        memory_bytes=24 * GB,
        memory_bytes_per_s=933 * GB,
        host_link_bytes_per_s=PCIE_4,
        source="NVIDIA A30 Tensor Core GPU data sheet",
    ),
    DevicePeak(
        name="A40",
        match=("a40",),
        flops_per_s={"fp32": 37.4e12, "bf16": 149.7e12, "fp16": 149.7e12},
        memory_bytes=48 * GB,
        memory_bytes_per_s=696 * GB,
        host_link_bytes_per_s=PCIE_4,
        source="NVIDIA A40 data sheet",
    ),
    DevicePeak(
        name="RTX A6000",
        match=("rtx", "a6000"),
        flops_per_s={"fp32": 38.7e12, "bf16": 154.8e12, "fp16": 154.8e12},
        memory_bytes=48 * GB,
        memory_bytes_per_s=768 * GB,
        host_link_bytes_per_s=PCIE_4,
        source=GA102,
    ),
    DevicePeak(
        name="GeForce RTX 3090",
        match=("rtx", "3090"),
        # Half of what its tensor cores do when they accumulate in fp16; so it is with the 4090.
        flops_per_s={"fp32": 35.6e12, "bf16": 71e12, "fp16": 71e12},
        memory_bytes=24 * GB,
        memory_bytes_per_s=936 * GB,
        host_link_bytes_per_s=PCIE_4,
        source=GA102,
    ),
    DevicePeak(
        name="GeForce RTX 4090",
        match=("rtx", "4090"),
        flops_per_s={"fp32": 82.6e12, "bf16": 165.2e12, "fp16": 165.2e12},
        memory_bytes=24 * GB,
        memory_bytes_per_s=1008 * GB,
        host_link_bytes_per_s=PCIE_4,
        source="NVIDIA Ada GPU Architecture white paper",
    ),
    DevicePeak(
        name="L4",
        match=("l4",),
        flops_per_s={"fp32": 30.3e12, "bf16": 121e12, "fp16": 121e12},
        memory_bytes=24 * GB,
        memory_bytes_per_s=300 * GB,
        host_link_bytes_per_s=PCIE_4,
        source=f"NVIDIA L4 Tensor Core GPU data sheet{HALVED}",
    ),
    DevicePeak(
        name="L40S",
        match=("l40s",),
        flops_per_s={"fp32": 91.6e12, "bf16": 362.05e12, "fp16": 362.05e12},
        memory_bytes=48 * GB,
        memory_bytes_per_s=864 * GB,
        host_link_bytes_per_s=PCIE_4,
        source="NVIDIA L40S data sheet",
    ),
    DevicePeak(
        name="H100 SXM",
        match=("h100", "80gb", "hbm3"),
        flops_per_s={"fp32": 66.9e12, "bf16": 989.4e12, "fp16": 989.4e12},
        memory_bytes=80 * GB,
        memory_bytes_per_s=3352 * GB,
        nvlink_bytes_per_s=450 * GB,
        host_link_bytes_per_s=PCIE_5,
        source=H100,
    ),
    DevicePeak(
        name="H100 PCIe",
        match=("h100", "pcie"),
        flops_per_s={"fp32": 51.2e12, "bf16": 756e12, "fp16": 756e12},
        memory_bytes=80 * GB,
        memory_bytes_per_s=2039 * GB,
        host_link_bytes_per_s=PCIE_5,
        source=H100,
    ),
    DevicePeak(
        name="H100 NVL",
        match=("h100", "nvl"),
        flops_per_s={"fp32": 60e12, "bf16": 835.5e12, "fp16": 835.5e12},
        memory_bytes=94 * GB,
        memory_bytes_per_s=3900 * GB,
        host_link_bytes_per_s=PCIE_5,
        source=f"NVIDIA H100 Tensor Core GPU data sheet{HALVED}",
    ),
    DevicePeak(
        name="H200 SXM",
        match=("h200",),
        flops_per_s={"fp32": 67e12, "bf16": 989.5e12, "fp16": 989.5e12},
        memory_bytes=141 * GB,
        memory_bytes_per_s=4800 * GB,
        nvlink_bytes_per_s=450 * GB,
        host_link_bytes_per_s=PCIE_5,
        source=f"NVIDIA H200 Tensor Core GPU data sheet{HALVED}",
    ),
    DevicePeak(
        name="H200 NVL",
        match=("h200", "nvl"),
        flops_per_s={"fp32": 60e12, "bf16": 835.5e12, "fp16": 835.5e12},
        memory_bytes=141 * GB,
        memory_bytes_per_s=4800 * GB,
        host_link_bytes_per_s=PCIE_5,
        source=f"NVIDIA H200 Tensor Core GPU data sheet{HALVED}",
    ),
    DevicePeak(
        name="B200",
        match=("b200",),
        flops_per_s={"fp32": 75e12, "bf16": 2250e12, "fp16": 2250e12},
        memory_bytes=180 * GB,
        memory_bytes_per_s=8000 * GB,
        nvlink_bytes_per_s=900 * GB,
        host_link_bytes_per_s=PCIE_5,
        # The chip's host link is of generation 6; the processors beside it have 5.
        source=f"NVIDIA Blackwell data sheet, one GPU of HGX B200{HALVED}; PCIe of DGX B200",
    ),
)
