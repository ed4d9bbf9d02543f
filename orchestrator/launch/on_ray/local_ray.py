"""A Ray on this machine that lives and dies with one run.

Its processes get a session of their own, so that a signal to the whole process group (Ctrl-C, a
closed terminal, `timeout`) reaches the driver alone, which then stops them in order. What they
write lies in a temporary folder that goes with them.
"""

import contextlib
import gc
import logging
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.launch.base import LOOPBACK, LOOPBACK_ONLY
from orchestrator.launch.stop_signals import signals_kept
from orchestrator.plan.resources import Resources

OBJECT_STORE_BYTES = 80 * 2**20
LONGEST_TEMP_FOLDER = 16
"""Characters: Ray puts 90 behind them, and a socket's path has at most 107 (unix(7))."""

# Set in this process before Ray is imported, and inherited by all that Ray starts.
_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a local node is not preempted
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else every line of a rank appears twice
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # else relative data paths break
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # takes 127.0.0.1 as it is given, on Linux too
    **LOOPBACK_ONLY,
}


class RayStartError(OrchestratorError):
    """Ray does not start on this machine."""


class LocalRay:
    """Started, stopped, and started again if need be.

    Args:
        verbose: let Ray talk to the terminal.
    """

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._folder: Path | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._replaced: dict[str, str | None] = {}

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._folder is not None

    def apply_environment(self, rank_environment: Mapping[str, str]) -> None:
        """Set what this Ray and its ranks inherit, until it is stopped.

        Ray reads some of it when it is imported.
        """
        for name, value in rank_environment.items():
            self._replaced.setdefault(name, os.environ.get(name))
            os.environ[name] = value
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

    def start(self, resources: Resources) -> None:
        """Start Ray for what a run needs; `apply_environment` comes before.

        Raises:
            RayStartError: it does not start.
            KeyboardInterrupt: SIGTERM came meanwhile.
        """
        import ray

        # As many processes are started beforehand as there are CPUs, so they are counted by what
        # this run needs: its ranks, the controller and Ray Train's barrier.
        n_cpus = max(resources.workers + 2, int(resources.workers * resources.cpus_per_worker + 1))
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="orchestrator-ray-", dir=_temp_folder()))
            with signals_kept(), _sessions_of_their_own(self._processes):
                ray.init(
                    address="local",
                    num_cpus=n_cpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(self._folder),
                    _node_ip_address=LOOPBACK,
                    log_to_driver=self._verbose,
                    logging_level=logging.INFO if self._verbose else logging.ERROR,
                )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as err:
            lines = str(err).strip().splitlines() or [type(err).__name__]
            raise RayStartError(f"Ray does not start on this machine: {lines[0]}") from err
        except SystemExit as err:
            # While Ray starts, its own handler of SIGTERM stands; now it is the caller's turn.
            signal.raise_signal(signal.SIGTERM)
            raise KeyboardInterrupt from err

    def keep_logs(self, folder: Path) -> None:
        """Save what Ray wrote, which is about to go."""
        if self._folder is not None:
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(
                    self._folder / "session_latest" / "logs",
                    folder,
                    ignore=shutil.ignore_patterns("events", "export_events", "old"),
                )

    def stop(self) -> None:
        """End all of its processes and remove its folder."""
        if self._folder is not None:
            import ray

            # What is left of Ray is freed here: another thread that came to free it while Ray is
            # being shut down would end this process.
            gc.collect()
            ray.shutdown(wait_for_processes=True)
            # A raylet that was stopped while it started leaves its helpers behind for a minute.
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self._processes.clear()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        # The next one may be for ranks on GPUs, which these hide.
        for name, before in self._replaced.items():
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before
        self._replaced.clear()


def _temp_folder() -> str:
    """A folder with a name short enough for the sockets that Ray makes in it."""
    chosen = tempfile.gettempdir()
    return chosen if len(chosen) <= LONGEST_TEMP_FOLDER else "/tmp"


@contextlib.contextmanager
def _sessions_of_their_own(started: "list[subprocess.Popen[bytes]]") -> Iterator[None]:
    """Start Ray's processes outside the process group of this one, and note them.

    Source:
        ray 2.60.0, _private/services.py: `start_ray_process` calls `ConsolePopen` and has no
        setting for this; on Linux it ties each process to its parent's life.
    """
    from ray._private import services

    popen: Any = services.ConsolePopen

    def in_own_session(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        process: subprocess.Popen[bytes] = popen(*arguments, start_new_session=True, **options)
        started.append(process)
        return process

    services.ConsolePopen = in_own_session
    try:
        yield
    finally:
        services.ConsolePopen = popen
