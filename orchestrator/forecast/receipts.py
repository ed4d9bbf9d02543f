"""The Receipt: what was forecast for one rank of a run beside what was measured, kept for later.

One JSON file a run and rank, written whole or not at all. Reads and writes the folder it is given
and nothing else.
"""

import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError

from orchestrator.errors import UsageError
from orchestrator.forecast.setup import Offload, Precision
from orchestrator.measure.ledger import CATEGORIES, Ledger, ledger_of
from orchestrator.measure.sample import PHASES

Method = Literal["shadow", "closed_form"]


def _of_known_phases(ledgers: dict[str, Ledger]) -> dict[str, Ledger]:
    if unknown := ledgers.keys() - set(PHASES):
        raise ValueError(f"unknown phases: {', '.join(sorted(unknown))}")
    return ledgers


def _whole(ledger: Ledger) -> Ledger:
    return ledger_of(ledger.items())


# Limits hold where a file is read or written; a Receipt in memory is not checked.
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Seconds = Annotated[float, Field(ge=0)]
_Interval = Annotated[tuple[_Count, _Count], Strict(False)]
_KnownLedger = Annotated[dict[str, _Count], AfterValidator(_whole)]
_PhaseLedgers = Annotated[dict[str, _KnownLedger], AfterValidator(_of_known_phases)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryError:
    """One category at the phase whose measured peak is the largest."""

    forecast_bytes: int
    measured_bytes: int
    error_ratio: float
    """Forecast less measured, as a share of the whole measured peak: the categories' add up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Forecast and measurement of one rank; `None` is unknown, or not there on such a device."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False
    )

    run_key: str
    """Names the run; a second receipt of the same run and rank replaces the first."""
    time_unix_s: _Seconds
    strategy: str
    stage: int
    offload_optimizer: Offload
    offload_params: Offload
    precision: Precision
    activation_checkpointing: bool
    workers: int
    micro_batch_size: int
    accumulation_steps: int
    device: str
    """`cpu`, or the GPU's name."""
    model: str
    """A short label."""
    method: Method
    """How the forecast was made."""
    versions: dict[str, str]
    """Library -> version."""
    rank: int
    forecast: _PhaseLedgers
    """Phase -> what the device would hold when it holds most, by category."""
    measured: _PhaseLedgers
    """The same as measured; each adds up to the phase's measured peak."""
    forecast_host_bytes: _Count | None
    measured_host_bytes: _Count | None
    forecast_nvme_bytes: _Count | None
    measured_nvme_bytes: _Count | None
    forecast_reserved_bytes: _Count | None
    """Segments that CUDA's allocator takes from the device."""
    measured_reserved_bytes: _Count | None
    forecast_device_bytes: _Interval | None
    """Least and most on the GPU, context and communication included."""
    measured_device_bytes: _Count | None
    forecast_step_s: _Seconds | None
    measured_step_s: _Seconds | None
    receipt_format: Literal[1] = 1
    """Of the JSON form; a file of another is not read."""

    @property
    def offload(self) -> str:
        """What is offloaded where, in words such as `optimizer cpu, params nvme`, or `none`."""
        places = (("optimizer", self.offload_optimizer), ("params", self.offload_params))
        return ", ".join(f"{what} {where}" for what, where in places if where != "none") or "none"

    @property
    def phase_bytes(self) -> dict[str, tuple[int, int]]:
        """Phase -> forecast and measured peak, of the phases that have both, in their order."""
        return {
            phase: (sum(self.forecast[phase].values()), sum(self.measured[phase].values()))
            for phase in PHASES
            if phase in self.forecast and phase in self.measured
        }

    @property
    def measured_peak_phase(self) -> str | None:
        """The phase with the largest measured peak, of those that have both; first of equals."""
        both = self.phase_bytes
        return max(both, key=lambda phase: both[phase][1], default=None)

    @property
    def peak_bytes(self) -> tuple[int, int] | None:
        """Forecast and measured largest peak, maybe of two phases, of those that have both."""
        both = self.phase_bytes.values()
        return (max(f for f, _ in both), max(m for _, m in both)) if both else None

    @property
    def peak_error_ratio(self) -> float | None:
        """Forecast less measured peak, as a share of the measured; negative is under.

        Only phases that have both count: of a run that ended in its backward pass, the step is
        not held against the forecast. `None` where nothing was measured.
        """
        return None if (peak := self.peak_bytes) is None else error_ratio(peak[0], measured=peak[1])

    def phase_error_ratios(self) -> dict[str, float]:
        """Phase -> the same of that phase's peak; without phases that are unknown or empty."""
        ratios = {p: error_ratio(f, measured=m) for p, (f, m) in self.phase_bytes.items()}
        return {phase: ratio for phase, ratio in ratios.items() if ratio is not None}

    def category_errors(self) -> dict[str, CategoryError]:
        """Category -> its error at `measured_peak_phase`; empty where nothing was measured."""
        phase = self.measured_peak_phase
        if phase is None or not (total_bytes := self.phase_bytes[phase][1]):
            return {}
        pairs = (
            (name, self.forecast[phase].get(name, 0), self.measured[phase].get(name, 0))
            for name in CATEGORIES
        )
        return {
            name: CategoryError(
                forecast_bytes=forecast_bytes,
                measured_bytes=measured_bytes,
                error_ratio=(forecast_bytes - measured_bytes) / total_bytes,
            )
            for name, forecast_bytes, measured_bytes in pairs
        }

    def to_json(self) -> dict[str, Any]:
        """The receipt as plain JSON values; a number that is not finite is null."""
        value: dict[str, Any] = json.loads(_text_of(self))
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Receipt":
        """Read it back; a category that a ledger lacks is 0.

        Raises:
            ValueError: a value is missing, unknown or cannot be.
        """
        return _FORM.validate_json(json.dumps(value))


_FORM = TypeAdapter(Receipt)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableReceipt:
    """A file that was skipped."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipts:
    """What a folder holds."""

    kept: tuple[Receipt, ...]
    """By time, run and rank."""
    unreadable: tuple[UnreadableReceipt, ...]
    """Broken files and those of another format, by path."""


def error_ratio(forecast: float, *, measured: float) -> float | None:
    """Forecast less measured, as a share of measured; `None` where nothing was measured."""
    return (forecast - measured) / measured if measured else None


def store_receipt(folder: Path, receipt: Receipt) -> Path:
    """Write a receipt in place of an older one of the same run and rank.

    Args:
        folder: made if it is missing.
        receipt: what was forecast and measured.

    Returns:
        The file.

    Raises:
        UsageError: it cannot be written.
        ValueError: it could not be read back: an unknown category, bytes below 0.
    """
    text = _text_of(receipt)
    _FORM.validate_json(text)
    path = folder / _file_name(receipt)
    # A name that no reader takes for a receipt.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(text + b"\n")
        unfinished.replace(path)
    except OSError as err:
        with suppress(OSError):
            unfinished.unlink()
        raise UsageError(f"{path}: a receipt cannot be written: {err.strerror}") from err
    return path


def load_receipts(folder: Path) -> Receipts:
    """Read every receipt that can be read; one bad file does not hide the others.

    Args:
        folder: where `store_receipt` wrote; nothing is read where there is none.
    """
    kept: list[Receipt] = []
    unreadable: list[UnreadableReceipt] = []
    for path in sorted(folder.glob("*.json")):
        try:
            kept.append(_FORM.validate_json(path.read_bytes()))
        except OSError as err:
            unreadable.append(UnreadableReceipt(path=path, reason=err.strerror or str(err)))
        except ValidationError as err:
            unreadable.append(UnreadableReceipt(path=path, reason=_first_of(err)))
    kept.sort(key=lambda receipt: (receipt.time_unix_s, receipt.run_key, receipt.rank))
    return Receipts(kept=tuple(kept), unreadable=tuple(unreadable))


def _text_of(receipt: Receipt) -> bytes:
    # What is of a wrong type is told by the reader, which store_receipt asks.
    return _FORM.dump_json(receipt, indent=2, warnings=False)


def _first_of(err: ValidationError) -> str:
    first, *others = err.errors(include_url=False, include_context=False, include_input=False)
    key = ".".join(map(str, first["loc"]))
    more = f" (and {len(others)} more)" if others else ""
    return f"{key}: {first['msg']}{more}" if key else first["msg"]


def _file_name(receipt: Receipt) -> str:
    """Readable, and another for each run and rank."""
    readable = re.sub(r"[^a-z0-9.]+", "-", receipt.run_key.lower()).strip("-.")[:80]
    unique = hashlib.sha256(receipt.run_key.encode()).hexdigest()[:8]
    return f"{readable}-{unique}-rank{receipt.rank}.json".lstrip("-")
