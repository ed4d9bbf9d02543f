"""DeepSpeed's compiled ops, made ready before any rank starts.

Two ranks that meet in a first compile can wait minutes for each other, and one that dies in it
leaves a lock behind which every later run waits for ever. So one process builds, under a lock of
ours that goes with its holder, and the stale locks of torch are removed first.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import UsageError

STALE_LOCK_S = 60.0
BUILD_TIMEOUT_S = 900.0


def has_compiler(environment: Mapping[str, str]) -> bool:
    """Whether there is a C++ compiler; CXX names another one than `c++` or `g++`."""
    chosen = environment.get("CXX")
    names = [chosen] if chosen else ["c++", "g++", "clang++"]
    return any(shutil.which(name) for name in names)


def make_ready(
    ops: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    show: Callable[[str], None],
) -> None:
    """Build the ops that are not built yet.

    Args:
        ops: `cpu_adam`, `async_io`.
        folder: where they lie (TORCH_EXTENSIONS_DIR).
        environment: for the compiler.
        show: takes a line for the user before a wait.

    Raises:
        UsageError: an op cannot be built; carries the compiler's last line and the way out.
    """
    if not ops:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_stale_locks(folder)
        for op in ops:
            if not (folder / f".{op}.ready").exists():
                show(f"Compiling DeepSpeed's {op}, once on this machine; it takes a minute or two")
                _build(op, folder=folder, environment=environment)
                (folder / f".{op}.ready").touch()


def _build(op: str, *, folder: Path, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "orchestrator.worker.compiled_ops", op]
    variables = {**environment, "TORCH_EXTENSIONS_DIR": str(folder), "MAX_JOBS": "2"}
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            env=variables,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise UsageError(
            f"compiling {op} took over {time.monotonic() - started:.0f} s and was stopped"
        ) from err
    if done.returncode:
        log_path = folder / f"{op}.log"
        log_path.write_text(done.stdout + done.stderr, encoding="utf-8")
        raise UsageError(
            f"DeepSpeed's {op} cannot be compiled: {_reason(done.stderr)}; {_WAYS_OUT[op]} "
            f"(whole output: {log_path})"
        )


_WAYS_OUT = {
    "cpu_adam": "install g++ (apt-get install g++), or set zero.offload_optimizer: none",
    "async_io": "install libaio and g++ (apt-get install libaio-dev g++), or set offload to cpu",
}


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["the compiler said nothing"])[-1][:200]


def _remove_stale_locks(folder: Path) -> None:
    """Remove torch's lock files that no build of ours can hold, since we hold the outer lock.

    Source:
        torch 2.13.0, utils/file_baton.py: a file made with O_EXCL, waited for without limit.
    """
    for path in folder.glob("*/lock"):
        if time.time() - path.stat().st_mtime > STALE_LOCK_S:
            os.unlink(path)
