"""The text of a job file, read with bounds: a regular file, small, UTF-8.

Touches the file system, reading only.
"""

import codecs
import stat
from itertools import islice
from pathlib import Path

from orchestrator.errors import Problem, SpecError, UsageError
from orchestrator.spec.finding import closest
from orchestrator.spec.yaml_tree import MOST_CHARACTERS

_UTF8_MARK = codecs.BOM_UTF8
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_MOST_LISTED = 1000


def read_source(path: Path) -> str:
    """Read a job file's text.

    Args:
        path: as the user gave it; never read beyond 256 KiB.

    Raises:
        UsageError: there is no such regular file, or it cannot be read.
        SpecError: it is too large or not UTF-8.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as err:
        raise UsageError(f"{path}: no such file; {_other_files(path)}") from err
    except OSError as err:
        raise UsageError(f"{path}: {err.strerror or err}; give the path of a job file") from err
    except ValueError as err:
        raise UsageError(f"{str(path)!r}: not a path; give the path of a job file") from err
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path}: a folder; {_files_in(path)}")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path}: not a regular file; give the path of a job file")
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_CHARACTERS + 1)
    except OSError as err:
        message = f"{path}: cannot be read ({err.strerror or err}); check its permissions"
        raise UsageError(message) from err
    return _decode(raw, path)


def _decode(raw: bytes, path: Path) -> str:
    if len(raw) > MOST_CHARACTERS:
        size = f"larger than {MOST_CHARACTERS // 1024} KiB"
        raise _bad_text(path, 0, b"", f"{size}; keep data out of the job file")
    if raw.startswith(_UTF8_MARK):
        raise _bad_text(path, 0, raw, "begins with a byte order mark; save as UTF-8 without BOM")
    if raw.startswith(_WIDE_MARKS):
        raise _bad_text(path, 0, raw, "encoded as UTF-16 or UTF-32; save the file as UTF-8")
    if b"\0" in raw:
        message = "a null byte; save the file as UTF-8 text"
        raise _bad_text(path, raw.index(b"\0"), raw, message)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as err:
        raise _bad_text(path, err.start, raw, "not UTF-8; save the file as UTF-8 text") from err


def _bad_text(path: Path, index: int, raw: bytes, message: str) -> SpecError:
    before = raw[:index]
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", errors="replace")) + 1
    return SpecError([Problem(where=f"{path}:{line}:{column}", key="", message=message)])


def _job_files(folder: Path) -> list[str]:
    try:
        entries = [entry.name for entry in islice(folder.iterdir(), _MOST_LISTED)]
    except OSError:
        return []
    return sorted(name for name in entries if name.endswith((".yaml", ".yml")))


def _other_files(path: Path) -> str:
    names = _job_files(path.parent)
    found = closest(path.name, names) or closest(f"{path.name}.yaml", names)
    if found:
        return f"did you mean {path.parent / found}?"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    return _files_in(path.parent)


def _files_in(folder: Path) -> str:
    names = _job_files(folder)
    if not names:
        return "give the path of a job file"
    shown = ", ".join(str(folder / name) for name in names[:5])
    return f"give a job file, such as {shown}"
