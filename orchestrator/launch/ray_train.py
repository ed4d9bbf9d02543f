"""The Ray launcher: one Ray Train run on a Ray of its own, or on the cluster an address names."""

import contextlib
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import InfeasibleError, UsageError
from orchestrator.launch.base import Launch
from orchestrator.launch.failure import Failure, RankError, RunError, judge
from orchestrator.measure.sample import RankFacts, RankSample
from orchestrator.plan.resources import Machine, Resources
from orchestrator.track.spool import read_spool

OBJECT_STORE_BYTES = 80 * 2**20
CONNECT_TIMEOUT_S = 10
_FATAL = re.compile(r"\*\*\* (SIG[A-Z]+) received|Fatal Python error: (\w+)")

# Set in this process before Ray starts, and inherited by all that Ray starts.
_LOCAL_RAY = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a local node is not preempted
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else every line of a rank appears twice
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # else relative data paths break
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",
}


class RayLauncher:
    """Runs plans on Ray; a context manager that leaves nothing running that it started.

    Args:
        address: a Ray cluster's address; `None` starts a Ray for this run alone.
        verbose: let Ray and the ranks talk to the terminal.
    """

    def __init__(self, *, address: str | None, verbose: bool = False) -> None:
        self._address = address
        self._verbose = verbose
        self._folder: Path | None = None
        self._started = False

    def __enter__(self) -> "RayLauncher":
        return self

    def __exit__(self, *error: object) -> None:
        if self._started:
            import ray

            ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def cluster(self) -> Machine:
        """Connect to the cluster and say what it has.

        Raises:
            UsageError: nothing answers at the address.
            ValueError: there is no address.
        """
        if self._address is None:
            raise ValueError("a Ray of its own has what this machine has")
        import ray

        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(CONNECT_TIMEOUT_S))
        try:
            ray.init(address=self._address, **self._quiet())
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as err:
            reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
            raise UsageError(
                f"no Ray cluster answers at {self._address}: {reason}; "
                "start one (ray start --head) or leave the address out"
            ) from err
        self._started = True
        total = ray.cluster_resources()
        return Machine(
            n_cpus=total.get("CPU", 0.0),
            n_gpus=total.get("GPU", 0.0),
            name=f"the cluster at {self._address}",
        )

    def run(self, launch: Launch) -> None:
        """Train until all ranks are done.

        Raises:
            RunError: a rank or the controller failed.
            InfeasibleError: the cluster's cores or GPUs are taken.
            KeyboardInterrupt: Ctrl-C.
        """
        if self._address is None:
            _apply_local_environment(launch.rank_environment)
        with _imported_beside():
            if self._address is None:
                self._start_local(launch)
            else:
                self._check_free(launch.plan.resources)
        import ray.train

        trainer = self._trainer(launch)
        try:
            trainer.fit()
        except ray.train.WorkerGroupError as err:
            failures = {rank: _rank_error(rank, e) for rank, e in err.worker_failures.items()}
            raise _verdict(failures, launch) from err
        except ray.train.ControllerError as err:
            message = f"Ray Train's controller failed: {_first_line(err.controller_failure)}"
            raise RunError(_without_rank(message, str(err))) from err
        except ray.exceptions.RayError as err:
            message = f"Ray failed: {_first_line(err)}"
            raise RunError(_without_rank(message, str(err))) from err
        except SystemExit as err:
            # The stock trainer's own way of saying Ctrl-C.
            raise KeyboardInterrupt from err

    def _start_local(self, launch: Launch) -> None:
        import ray

        resources = launch.plan.resources
        self._folder = Path(tempfile.mkdtemp(prefix="orchestrator-ray-"))
        # As many processes are started beforehand as there are CPUs, so they are counted by what
        # this run needs: its ranks, the controller and Ray Train's barrier.
        n_cpus = max(resources.workers + 2, int(resources.workers * resources.cpus_per_worker + 1))
        self._started = True
        ray.init(
            address="local",
            num_cpus=n_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(self._folder),
            **self._quiet(),
        )

    def _quiet(self) -> dict[str, Any]:
        level = logging.INFO if self._verbose else logging.ERROR
        return {"log_to_driver": self._verbose, "logging_level": level}

    def _check_free(self, resources: Resources) -> None:
        import ray

        free = ray.available_resources()
        cpus = resources.workers * resources.cpus_per_worker
        gpus = resources.workers * resources.gpus_per_worker
        if cpus > free.get("CPU", 0.0) or gpus > free.get("GPU", 0.0):
            raise InfeasibleError(
                f"the cluster at {self._address} is busy: {cpus:g} CPUs and {gpus:g} GPUs are "
                f"needed, {free.get('CPU', 0.0):g} and {free.get('GPU', 0.0):g} are free; "
                "wait for its jobs to end, or lower resources.workers"
            )

    def _trainer(self, launch: Launch) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

        from orchestrator.launch.local_trainer import LocalTrainer
        from orchestrator.launch.rank_backend import RankBackendConfig
        from orchestrator.launch.rank_entry import RankTask, train_on_rank
        from orchestrator.launch.spool_callback import SpoolCallback

        resources = launch.plan.resources
        local = self._address is None
        per_worker = {"CPU": resources.cpus_per_worker}
        if resources.gpus_per_worker:
            per_worker["GPU"] = resources.gpus_per_worker
        task = RankTask(
            plan=launch.plan,
            log_folder=None if self._verbose or not local else launch.log_folder,
            collective_timeout_s=launch.collective_timeout_s,
        )
        return (LocalTrainer if local else DataParallelTrainer)(
            train_on_rank,
            train_loop_config={"task": task},
            backend_config=RankBackendConfig(environment=tuple(launch.rank_environment.items())),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=bool(resources.gpus_per_worker),
                resources_per_worker=per_worker,
            ),
            run_config=RunConfig(
                name="ray_train",
                storage_path=str(launch.spool_path.parent),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                callbacks=[SpoolCallback(launch.spool_path)],
            ),
        )


def _apply_local_environment(rank_environment: Mapping[str, str]) -> None:
    """Set what a Ray of our own and its ranks inherit; Ray reads some of it when it is imported."""
    os.environ.update(rank_environment)
    for name, value in _LOCAL_RAY.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextlib.contextmanager
def _imported_beside() -> Iterator[None]:
    """Import Ray Train in a thread while Ray starts its processes, which takes as long."""

    def work() -> None:

        import orchestrator.launch.rank_backend  # noqa: F401

    thread = threading.Thread(target=work, name="import-ray-train")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _rank_error(rank: int, error: BaseException) -> RankError:
    death = getattr(error, "health_check_failure", None)
    if death is None:
        text = getattr(error, "_traceback_str", "")
        error = getattr(error, "_base_exc", error)
        return RankError(rank=rank, kind=type(error).__name__, message=str(error), traceback=text)
    kind = type(death).__name__
    return RankError(
        rank=rank,
        kind="OutOfMemoryError" if "OutOfMemory" in kind else "WorkerDiedError",
        message=str(death),
    )


def _verdict(errors: Mapping[int, RankError], launch: Launch) -> RunError:
    """Join what Ray says of the ranks with what their records and logs say."""
    last_steps: dict[int, int] = {}
    pids: dict[int, int] = {}
    offset = -1
    part = read_spool(launch.spool_path, 0)
    while part.offset != offset:
        for record in part.records:
            if isinstance(record, RankSample):
                last_steps[record.rank] = record.step
            elif isinstance(record, RankFacts):
                pids[record.rank] = record.pid
        offset = part.offset
        part = read_spool(launch.spool_path, offset)
    told = {
        rank: RankError(
            rank=rank,
            kind=error.kind,
            message=error.message,
            traceback=error.traceback,
            signal_name=_signal_name(launch.log_folder / f"rank_{rank:02d}.log")
            if error.kind == "WorkerDiedError"
            else None,
            pid=pids.get(rank),
        )
        for rank, error in errors.items()
    }
    return RunError(judge(told, last_steps=last_steps))


def _signal_name(log_path: Path) -> str | None:
    """The signal a dead rank's own log names; SIGKILL leaves no word, so silence means that."""
    try:
        text = log_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _FATAL.findall(text)
    return next((first or second for first, second in reversed(found)), "SIGKILL")


def _without_rank(message: str, details: str) -> Failure:
    return Failure(outcome="failed", rank=None, step=None, message=message, details=details)


def _first_line(error: object) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
