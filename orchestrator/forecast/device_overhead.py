"""The DeviceOverhead: what a rank takes of its GPU beyond torch's allocator, and probes of it.

Intervals as published, or narrow ones from a ProbedOverhead that was measured on such a node; a
probe is one JSON file. Reads and writes the folder it is given and nothing else.
"""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import UsageError

T = TypeVar("T")

MB = 10**6
CONTEXT_BYTES = (200 * MB, 700 * MB)
"""Of one process; how much depends on the device, the driver and the kernels that are loaded.

Source: pytorch/pytorch issue 28113; within it 287 MB lazily and 667 MB eagerly loaded, pull request
86509, and some 300 to 400 MB in issues 107667 and 109888.
"""

PAIR_BYTES = (544 * MB, 1600 * MB)
GROUP_BYTES = (688 * MB, 6000 * MB)
"""NCCL on each GPU, for two ranks and for more.

Source: NVIDIA/nccl issue 964, 544 MB for two and 688 MB for three or four A100 in a group, and
issue 864, about 1.6 GB with one communicator and about 6 GB with three or more.
"""

PROBE_MARGIN_RATIO = 0.1
"""How much more than the probe a run may take, for it loads more kernels. Ours, not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedOverhead:
    """What was measured once on a kind of node."""

    device_name: str
    """As `torch.cuda.get_device_name()` gives it."""
    driver_version: str
    context_bytes: int
    communication_bytes: int
    """On one GPU; 0 of a single rank."""
    n_ranks: int
    measured_unix_s: float

    def to_json(self) -> dict[str, Any]:
        """The probe as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ProbedOverhead":
        """Read it back.

        Raises:
            KeyError: a value is missing.
            TypeError: a value is of another type.
            ValueError: a number is below what can be.
        """
        probe = cls(
            device_name=_typed(value["device_name"], str),
            driver_version=_typed(value["driver_version"], str),
            context_bytes=_typed(value["context_bytes"], int),
            communication_bytes=_typed(value["communication_bytes"], int),
            n_ranks=_typed(value["n_ranks"], int),
            measured_unix_s=float(value["measured_unix_s"]),
        )
        if min(probe.context_bytes, probe.communication_bytes, probe.n_ranks - 1) < 0:
            raise ValueError("bytes are at least 0 and ranks at least 1")
        return probe


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOverhead:
    """Least and most bytes on one rank's GPU, beside what torch's allocator reserves."""

    context_bytes: tuple[int, int]
    communication_bytes: tuple[int, int]
    source: str

    @property
    def total_bytes(self) -> tuple[int, int]:
        """Least and most of both together."""
        (low, high), (more_low, more_high) = self.context_bytes, self.communication_bytes
        return low + more_low, high + more_high


def device_overhead(n_ranks: int, *, probed: ProbedOverhead | None) -> DeviceOverhead:
    """Bound what CUDA's context and NCCL take of a GPU.

    Args:
        n_ranks: data-parallel ranks, at least 1; a single one has no NCCL.
        probed: measured on the kind of node that is asked about; `None` gives what is published.

    Returns:
        A probe makes the context's interval narrow, and NCCL's if it had as many ranks; one of
        fewer ranks is NCCL's least, one of more its most.

    Raises:
        ValueError: `n_ranks` is below 1.
    """
    if n_ranks < 1:
        raise ValueError(f"n_ranks is {n_ranks}; there is at least one")
    published = _published(n_ranks)
    if probed is None:
        source = "published: pytorch issue 28113; nccl issues 864, 964"
        return DeviceOverhead(
            context_bytes=CONTEXT_BYTES, communication_bytes=published, source=source
        )
    return DeviceOverhead(
        context_bytes=_narrow(probed.context_bytes),
        communication_bytes=_communication(n_ranks, published=published, probed=probed),
        source=f"probe of {probed.device_name}, driver {probed.driver_version}, "
        f"ranks: {probed.n_ranks}",
    )


def store_probe(folder: Path, *, probe: ProbedOverhead) -> Path:
    """Write a probe in place of an older one of the same device and driver.

    Args:
        folder: made if it is missing.
        probe: what was measured.

    Returns:
        The file.

    Raises:
        UsageError: it cannot be written.
    """
    path = folder / _file_name(probe)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(probe.to_json(), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as err:
        raise UsageError(f"{path}: a probe cannot be written: {err.strerror}") from err
    return path


def load_probes(folder: Path) -> tuple[ProbedOverhead, ...]:
    """Read every probe, by device and driver; none where there is no folder.

    Raises:
        UsageError: a file cannot be read or is no probe.
    """
    probes = [_load(path) for path in folder.glob("*.json")]
    return tuple(sorted(probes, key=lambda probe: (probe.device_name, probe.driver_version)))


def find_probe(
    probes: tuple[ProbedOverhead, ...], *, device_name: str, driver_version: str
) -> ProbedOverhead | None:
    """The probe of a device under a driver; `None` if there is none."""
    wanted = (device_name, driver_version)
    return next((p for p in probes if (p.device_name, p.driver_version) == wanted), None)


def _published(n_ranks: int) -> tuple[int, int]:
    if n_ranks == 1:
        return 0, 0
    return PAIR_BYTES if n_ranks == 2 else GROUP_BYTES


def _communication(
    n_ranks: int, *, published: tuple[int, int], probed: ProbedOverhead
) -> tuple[int, int]:
    if n_ranks == 1 or probed.n_ranks == 1:
        return published
    low, high = _narrow(probed.communication_bytes)
    if probed.n_ranks < n_ranks:
        return low, max(high, published[1])
    if probed.n_ranks > n_ranks:
        return min(low, published[0]), high
    return low, high


def _narrow(measured_bytes: int) -> tuple[int, int]:
    return measured_bytes, measured_bytes + round(measured_bytes * PROBE_MARGIN_RATIO)


def _file_name(probe: ProbedOverhead) -> str:
    """Readable, and another for each device and driver."""
    kind = f"{probe.device_name}\n{probe.driver_version}"
    readable = re.sub(r"[^a-z0-9.]+", "-", kind.lower()).strip("-.")
    return f"{readable}-{hashlib.sha256(kind.encode()).hexdigest()[:8]}.json"


def _load(path: Path) -> ProbedOverhead:
    try:
        return ProbedOverhead.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as err:
        raise UsageError(f"{path}: the probe cannot be read: {err.strerror}") from err
    except (KeyError, TypeError, ValueError) as err:
        raise UsageError(f"{path}: this is no probe ({err!r}); delete it and probe again") from err


def _typed(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
