"""One NVIDIA GPU as its driver sees it, through nvidia-ml-py: the only view that has everything.

PyTorch's allocator knows what it took; the CUDA context, NCCL and libraries are beyond it.
"""

from typing import Any

from orchestrator.measure.sample import GpuState

EVERY_S = 1.0
"""Seconds between two questions to the driver, which take some hundred microseconds."""


class Gpu:
    """Asks for one device; `open_gpu` finds it."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        """Take what `open_gpu` has found.

        Args:
            nvml: the module `pynvml`, or one that answers as it does.
            handle: its handle of the device.
        """
        self._nvml = nvml
        self._handle = handle
        self._asked_s: float | None = None

    def state(self, *, now_s: float, reserved_bytes: int) -> GpuState | None:
        """Ask the driver, unless that was done a moment ago.

        Args:
            now_s: a clock that only goes forward.
            reserved_bytes: what PyTorch's allocator holds of the device now.

        Returns:
            What the device can tell; `None` between two questions.
        """
        if self._asked_s is not None and now_s - self._asked_s < EVERY_S:
            return None
        self._asked_s = now_s
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        rates = self._ask("nvmlDeviceGetUtilizationRates")
        milliwatts = self._ask("nvmlDeviceGetPowerUsage")
        used_bytes = None if memory is None else int(memory.used)
        return GpuState(
            utilization_ratio=None if rates is None else rates.gpu / 100,
            used_bytes=used_bytes,
            beyond_allocator_bytes=None if used_bytes is None else used_bytes - reserved_bytes,
            power_w=None if milliwatts is None else milliwatts / 1e3,
        )

    def _ask(self, question: str) -> Any:
        """An answer; `None` where this device or driver has none."""
        try:
            return getattr(self._nvml, question)(self._handle)
        except self._nvml.NVMLError:
            return None


def open_gpu(uuid: str) -> Gpu | None:
    """Find a device by the identity that PyTorch gives it; indices differ where some are hidden.

    Args:
        uuid: as `torch.cuda.get_device_properties(i).uuid` prints it.

    Returns:
        The device; `None` where there is no driver to ask, as in some containers.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(name))
    except pynvml.NVMLError:
        return None
