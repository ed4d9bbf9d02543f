"""Finding a GPU in the table: by CUDA's name for it, or by the short name a person types.

Pure; imports no torch. CUDA's name means one device or none, for a device that is merely like it
has another peak. A person's may leave the variant open.
"""

import re
from difflib import get_close_matches

from orchestrator.errors import UsageError
from orchestrator.measure.device_table import DEVICES, DevicePeak

# Makers and product lines; they tell no two devices apart and come and go with the driver.
LINE_WORDS = frozenset({"nvidia", "tesla", "geforce"})

# What people call a variant and neither CUDA nor we do.
OTHER_WORDS = {"H100 SXM": ("sxm5",), "H200 SXM": ("sxm5",)}


def known_devices() -> tuple[DevicePeak, ...]:
    """Every device, in the table's order."""
    return DEVICES


def find_device(device_name: str) -> DevicePeak | None:
    """Find the device that CUDA's name means, and no device that is merely like it.

    Every word of the name must be accounted for, so the most specific match is the only one:
    "NVIDIA H200 NVL" is not an H200.

    Args:
        device_name: as `torch.cuda.get_device_name()` gives it.

    Returns:
        None for a device that is not in the table, a part of one included.
    """
    words = set(_words(device_name)) - LINE_WORDS
    return next((device for device in DEVICES if set(device.match) == words), None)


def device_called(short_name: str) -> DevicePeak:
    """Find the device that a person means by "h200", "A100-80GB" or "rtx 4090".

    Case, dashes and spaces do not matter, nor does the order of words. Where the name leaves the
    variant open, it is the one whose GPUs NVLink joins (SXM before PCIe and NVL), and of those
    the one with the most memory: "a100" is the A100 SXM4 80GB.

    Args:
        short_name: a model, and perhaps its form and memory.

    Raises:
        UsageError: no device of the table is called so.
    """
    squeezed = "".join(_words(short_name))
    meant = [device for device in DEVICES if _may_be_called(device, squeezed)]
    if not meant:
        raise UsageError(_unknown(short_name))
    return max(meant, key=lambda device: (device.nvlink_bytes_per_s or 0, device.memory_bytes))


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


def model_of(device: DevicePeak) -> str:
    """The word that names its model, such as `a100` or `4090`, whatever its variant."""
    return next(word for word in device.match if any(letter.isdigit() for letter in word))


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def _may_be_called(device: DevicePeak, squeezed: str) -> bool:
    """Whether a name without gaps is its model and nothing but further words of its own."""
    model = model_of(device)
    words = {*_words(device.name), *device.match, *LINE_WORDS, *OTHER_WORDS.get(device.name, ())}
    words |= {"sxm" for word in words if word.startswith("sxm")}
    words |= {f"{device.memory_bytes // 10**9}{unit}" for unit in ("gb", "g")}
    other = "|".join(map(re.escape, sorted(words - {model})))
    return re.fullmatch(f"(?:{other})*{re.escape(model)}(?:{other})*", squeezed) is not None


def _unknown(short_name: str) -> str:
    models = list(dict.fromkeys(_short_name(device) for device in DEVICES))
    names = models + ["-".join(_words(device.name)) for device in DEVICES]
    plain = "-".join(_words(short_name))
    near = next(iter(get_close_matches(plain, names, n=1)), None)
    hint = f"did you mean {near!r}? " if near else ""
    return (
        f"unknown device {short_name!r}; {hint}known are {', '.join(models)}, "
        "with form and memory where they matter, such as a100-pcie-40gb"
    )


def _short_name(device: DevicePeak) -> str:
    """Its model, and before it the line that people say along with it: `rtx4090`."""
    rtx = "rtx" if "rtx" in device.match else ""
    return rtx + model_of(device)
