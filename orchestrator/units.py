"""Sizes and durations: bytes and seconds inside, MiB, GiB and ms where people read.

Pure arithmetic; touches nothing outside.
"""

import math
import re

KIB = 2**10
MIB = 2**20
GIB = 2**30
TIB = 2**40

_BYTES_PER = {
    "": 1, "b": 1, "k": 10**3, "kb": 10**3, "kib": KIB, "m": 10**6, "mb": 10**6, "mib": MIB,
    "g": 10**9, "gb": 10**9, "gib": GIB, "t": 10**12, "tb": 10**12, "tib": TIB,
}  # fmt: skip
_SECONDS_PER = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
_SIZE = re.compile(r"\s*(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z]*)\s*")


def parse_size(text: str) -> int:
    """Read a size such as `16GiB`, `512 MB` or `4096`.

    Args:
        text: an amount and a unit; `KiB` to `TiB` are powers of 1024, `KB` to `TB` powers of 1000,
            no unit is bytes.

    Returns:
        Bytes, rounded down.

    Raises:
        ValueError: it is not a size.
    """
    match = _SIZE.fullmatch(text)
    unit = match["unit"].lower() if match else None
    if match is None or unit not in _BYTES_PER:
        raise ValueError(f"{text!r} is not a size; write an amount and a unit, such as 16GiB")
    n_bytes = float(match["amount"]) * _BYTES_PER[unit]
    if not math.isfinite(n_bytes):
        raise ValueError(f"{text!r} is not a size; it is larger than any number we can count with")
    return int(n_bytes)


def parse_duration(text: str) -> float:
    """Read a duration such as `10m`, `30 s`, `1.5h` or `90`, which is seconds.

    Returns:
        Seconds.

    Raises:
        ValueError: it is not a duration.
    """
    match = _SIZE.fullmatch(text)
    unit = match["unit"].lower() if match else None
    if match is None or unit not in _SECONDS_PER:
        raise ValueError(f"{text!r} is not a duration; write one such as 30s, 10m or 2h")
    return float(match["amount"]) * _SECONDS_PER[unit]


def as_mib(n_bytes: float | None) -> str:
    """Bytes as `12.3 MiB`; an unknown amount is a dash."""
    return "-" if n_bytes is None else f"{n_bytes / MIB:,.1f} MiB"


def as_bytes(n_bytes: float | None) -> str:
    """Bytes in the largest binary unit that leaves at least 1: `1.5 GiB`."""
    if n_bytes is None:
        return "-"
    for size, unit in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(n_bytes) >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes:.0f} B"


def as_duration(seconds: float | None) -> str:
    """Seconds as `350 ms`, `12.3 s`, `4 min 05 s` or `2 h 03 min`."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"
