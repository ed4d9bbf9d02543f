"""Local text as bytes, cut into sequences: a table of tokens 0 to 255.

Reads the user's files, or the modules of the Python standard library, which every machine has.
"""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from orchestrator.data.samples import Datasets, TokenTable
from orchestrator.data.split import held_out
from orchestrator.errors import UsageError
from orchestrator.spec.data import TextData
from orchestrator.units import as_bytes

PROBE_BYTES = 8192


def build_text(data: TextData, *, folder: Path) -> Datasets:
    """Read text, cut it into sequences and hold some out, evenly spread over the text.

    Args:
        data: Section.
        folder: Where the job file lies; a relative `path` starts there.

    Returns:
        `input_ids` and `labels`, the same bytes as int64.

    Raises:
        UsageError: The path is missing, cannot be read, has no text, or too little for one sequence
            to train on and one to evaluate on.
    """
    place = folder / data.path if data.path is not None else _standard_library()
    paths = _standard_modules(place) if data.path is None else _text_files(place)
    text = _read(paths, max_bytes=data.max_bytes)
    if not text:
        raise UsageError(
            f"data.path {place} has no text in it; name a text file or a folder with some"
        )
    n_sequences = len(text) // data.sequence_length
    if n_sequences < 2:
        raise UsageError(
            f"data.path {place} has {as_bytes(len(text))} of text, too little for two sequences of "
            f"{data.sequence_length} (one to train on, one to evaluate on); "
            "add text, raise max_bytes or lower sequence_length"
        )
    tokens_NT = torch.from_numpy(
        np.frombuffer(text, dtype=np.uint8)[: n_sequences * data.sequence_length]
        .reshape(n_sequences, data.sequence_length)
        .copy()
    )
    out = torch.from_numpy(held_out(n_sequences, fraction=data.eval_fraction))
    return Datasets(train=TokenTable(tokens_NT[~out]), eval=TokenTable(tokens_NT[out]))


def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _standard_modules(place: Path) -> list[Path]:
    """List the top-level modules, sorted.

    Distributions leave out some packages, and installed libraries lie in a folder here. The one
    file that differs between machines holds the settings Python was built with.
    """
    modules = (path for path in place.glob("*.py") if not path.name.startswith("_sysconfigdata"))
    return sorted(modules, key=lambda path: path.name)


def _text_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UsageError(
            f"data.path {place} does not exist; correct it (relative paths start at the "
            "job file's folder), or leave it out for the Python standard library's sources"
        )
    files = [
        path
        for path in place.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(place).parts)
    ]
    return sorted(files, key=lambda path: path.relative_to(place).as_posix())


def _read(paths: list[Path], *, max_bytes: int | None) -> bytes:
    """Put the text files' bytes end to end, at most `max_bytes`."""
    text = bytearray()
    for content in _contents(paths):
        text += content
        if max_bytes is not None and len(text) >= max_bytes:
            return bytes(text[:max_bytes])
    return bytes(text)


def _contents(paths: list[Path]) -> Iterator[bytes]:
    """Read files one after the other, but for those with a zero byte near their start."""
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as err:
            raise UsageError(f"data.path: {path} cannot be read: {err.strerror}") from err
        if b"\0" not in content[:PROBE_BYTES]:
            yield content
