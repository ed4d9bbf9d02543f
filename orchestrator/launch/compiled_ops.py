"""DeepSpeed's compiled ops, made ready before any rank starts.

Two ranks that meet in a first compile can wait minutes for each other, and one that dies in it
leaves a lock behind which every later run waits for ever. So one process builds, under a lock of
ours that goes with its holder, and the stale locks of torch are removed first.
"""

import contextlib
import fcntl
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import psutil

from orchestrator.errors import UsageError

STALE_LOCK_S = 60.0
"""A lock so old is nobody's, unless another program builds into the same folder."""
BUILD_TIMEOUT_S = 900.0
_LOCKS = "*/lock"


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
        ops: `cpu_adam`, `cpu_lion`, `fused_lion`, `async_io`.
        folder: where they lie (TORCH_EXTENSIONS_DIR).
        environment: for the compiler.
        show: takes a line for the user before a wait.

    Raises:
        UsageError: an op cannot be built, or the folder not be written; carries the compiler's last
            line and the way out.
    """
    if not ops:
        return
    with _opened_lock(folder) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if all(_is_ready(op, folder) for op in ops):
                return
            show("Waiting for another run that compiles the same")
            fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_stale_locks(folder)
        for op in ops:
            if not _is_ready(op, folder):
                show(f"Compiling DeepSpeed's {op}, once on this machine; it takes a minute or two")
                # A compiler that is killed leaves its temporary files behind.
                with tempfile.TemporaryDirectory(
                    prefix=".build-", dir=folder, ignore_cleanup_errors=True
                ) as temporary:
                    variables = {**environment, "TMPDIR": temporary}
                    _build(op, folder=folder, environment=variables, lock=lock)
                _ready_file(op, folder).touch()


def _is_ready(op: str, folder: Path) -> bool:
    return _ready_file(op, folder).exists()


def _ready_file(op: str, folder: Path) -> Path:
    return folder / f".{op}.ready"


def _opened_lock(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / ".building").open("w")
    except OSError as err:
        raise UsageError(
            f"folder of compiled ops {folder} cannot be written: {err.strerror}; "
            "choose another with TORCH_EXTENSIONS_DIR"
        ) from err


def _build(op: str, *, folder: Path, environment: Mapping[str, str], lock: TextIO) -> None:
    command = [sys.executable, "-m", "orchestrator.worker.compiled_ops", op]
    variables = {**environment, "TORCH_EXTENSIONS_DIR": str(folder), "MAX_JOBS": "2"}
    locks_before = set(folder.glob(_LOCKS))
    # A session of its own, so that Ctrl-C reaches it once: through us.
    with subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        # It holds our lock for as long as it lives, should this process be killed.
        pass_fds=[lock.fileno()],
    ) as build:
        try:
            output, _ = build.communicate(timeout=BUILD_TIMEOUT_S)
        except BaseException as err:
            _end(build.pid)
            if not isinstance(err, subprocess.TimeoutExpired):
                raise
            raise UsageError(
                f"compiling DeepSpeed's {op} took over {BUILD_TIMEOUT_S:.0f} s and was stopped; "
                f"{_WAYS_OUT[op]}"
            ) from err
        finally:
            if build.wait():
                for left in set(folder.glob(_LOCKS)) - locks_before:
                    left.unlink(missing_ok=True)
    if build.returncode:
        log_path = folder / f"{op}.log"
        log_path.write_text(output, encoding="utf-8")
        raise UsageError(
            f"DeepSpeed's {op} cannot be compiled: {_reason(output)}; {_WAYS_OUT[op]} "
            f"(whole output: {log_path})"
        )


def _end(pid: int) -> None:
    """Kill a process and all below it; ninja gives each compiler a process group of its own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        build = psutil.Process(pid)
        for process in (build, *build.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


_WAYS_OUT = {
    "cpu_adam": "install g++ (apt-get install g++), or set zero.offload_optimizer: none",
    "cpu_lion": "install g++ (apt-get install g++), or choose another training.optimizer.name",
    "fused_lion": "install the CUDA toolkit with nvcc, or set zero.offload_optimizer: cpu",
    "async_io": "install libaio and g++ (apt-get install libaio-dev g++), or set offload to cpu",
}


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["the compiler said nothing"])[-1][:200].rstrip(".")


def _remove_stale_locks(folder: Path) -> None:
    """Remove torch's lock files that no build of ours can hold, since we hold the outer lock.

    Source:
        torch 2.13.0, utils/file_baton.py: a file made with O_EXCL, waited for without limit.
    """
    for path in folder.glob(_LOCKS):
        if time.time() - path.stat().st_mtime > STALE_LOCK_S:
            path.unlink(missing_ok=True)
