"""The Ray launcher: one Ray Train run on a Ray of its own, or on the cluster an address names."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import InfeasibleError, UsageError
from orchestrator.launch.base import Launch
from orchestrator.launch.cluster_address import AUTO, check_answers
from orchestrator.launch.failure import Failure, RunError
from orchestrator.launch.local_ray import LocalRay, RayStartError
from orchestrator.launch.stop_signals import signals_kept
from orchestrator.launch.verdict import rank_error, unfinished, verdict
from orchestrator.plan.resources import Machine, Resources
from orchestrator.units import as_duration

JOIN_ENVIRONMENT = {
    # Once a second; what answers at the address is looked at before.
    "RAY_NUM_REDIS_GET_RETRIES": "8",
    # A report waits for the next look of the controller; Ray's own are 2 s apart.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A run that loses a node ends, announced or not; watching costs a process.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
LOOK_EVERY_S = 1.0
SAY_EVERY_S = 30.0

log = logging.getLogger(__name__)


class RayLauncher:
    """Runs plans on Ray; a context manager that leaves nothing running that it started.

    Args:
        address: a Ray cluster's head as `host:port`, or `auto`; `None` starts a Ray for this run
            alone.
        verbose: let Ray and the ranks talk to the terminal.
        wait_s: how long a cluster that is full is waited for.
        show: told what is waited for.
    """

    def __init__(
        self,
        *,
        address: str | None,
        verbose: bool = False,
        wait_s: float = 0.0,
        show: Callable[[str], None] = log.info,
    ) -> None:
        self._wait_s = wait_s
        self._show = show
        self._address = address
        self._verbose = verbose
        self._joined = False
        self._local_ray = LocalRay(verbose=verbose)
        self._trainer: Any = None

    def __enter__(self) -> "RayLauncher":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, or stop the Ray of this run."""
        self._local_ray.stop()
        if self._joined:
            import ray

            ray.shutdown()
            self._joined = False

    def renew(self) -> None:
        """Stop the Ray of this run, or join the cluster anew, which frees what ranks still held."""
        joined = self._joined
        self.close()
        if joined:
            self.cluster()

    def cluster(self) -> Machine:
        """Connect to the cluster and say what it has.

        Raises:
            UsageError: nothing answers at the address.
            ValueError: there is no address.
        """
        if self._address is None:
            raise ValueError("a Ray of its own has what this machine has")
        if self._address != AUTO:
            check_answers(self._address, environment=os.environ)
        for name, value in JOIN_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import ray

        try:
            if self._address == AUTO:
                self._address = _cluster_of_this_machine()
                check_answers(self._address, environment=os.environ)
            with signals_kept():
                ray.init(
                    address=self._address,
                    log_to_driver=self._verbose,
                    logging_level=logging.INFO if self._verbose else logging.ERROR,
                )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as err:
            raise UsageError(
                f"the Ray cluster at {self._address} cannot be joined: {_first_line(err)}; "
                "is its token in RAY_AUTH_TOKEN, and is this one of its machines?"
            ) from err
        self._joined = True
        total = ray.cluster_resources()
        return Machine(
            n_cpus=total.get("CPU", 0.0),
            n_gpus=total.get("GPU", 0.0),
            name=f"the cluster at {self._address}",
        )

    def run(self, launches: Sequence[Launch]) -> None:
        """Train plan after plan until all ranks are done.

        Raises:
            RunError: a rank or the controller failed.
            RayStartError: Ray did not start on this machine.
            InfeasibleError: the cluster's cores or GPUs are taken.
            UsageError: DeepSpeed's ops cannot be compiled on a node.
            KeyboardInterrupt: Ctrl-C; Ray is stopped already.
        """
        try:
            self._prepare(launches[0])
            with signals_kept():
                self._fit(launches)
        except KeyboardInterrupt:
            # At once: the ranks would take the cores that finishing the record needs.
            self.close()
            raise
        except (RunError, RayStartError):
            self._local_ray.keep_logs(unfinished(launches).log_folder / "ray")
            raise

    def _prepare(self, launch: Launch) -> None:
        if self._address is None:
            self._local_ray.apply_environment(launch.rank_environment)
        with _imported_beside():
            if self._address is None:
                if not self._local_ray.is_running:
                    self._local_ray.start(launch.plan.resources)
            else:
                self._wait_for_room(launch.plan.resources)

    def abort(self) -> None:
        """End a `run` that another thread waits for; it then raises `RunError`."""
        controller = None if self._trainer is None else self._trainer.controller
        if controller is not None:
            import ray

            # Its ranks end with it.
            ray.kill(controller)

    def _fit(self, launches: Sequence[Launch]) -> None:
        import ray.train

        self._trainer = self._make_trainer(launches)
        try:
            self._trainer.fit()
        except ray.train.WorkerGroupError as err:
            errors = {rank: rank_error(rank, e) for rank, e in err.worker_failures.items()}
            raise verdict(errors, unfinished(launches)) from err
        except ray.train.ControllerError as err:
            if isinstance(err.controller_failure, UsageError):
                raise err.controller_failure from err
            message = f"Ray Train's controller failed: {_first_line(err.controller_failure)}"
            raise RunError(_without_rank(message, str(err))) from err
        except ray.exceptions.RayError as err:
            message = f"Ray failed: {_first_line(err)}"
            raise RunError(_without_rank(message, str(err))) from err
        except SystemExit as err:
            # The stock trainer's own way of saying Ctrl-C.
            raise KeyboardInterrupt from err
        finally:
            self._trainer = None

    def _wait_for_room(self, resources: Resources) -> None:
        """Wait until the cluster has room for every rank, as long as was asked for."""
        deadline_s = time.monotonic() + self._wait_s
        said_s = -SAY_EVERY_S
        while True:
            try:
                return self._check_free(resources)
            except InfeasibleError as err:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise
                if time.monotonic() - said_s >= SAY_EVERY_S:
                    said_s = time.monotonic()
                    what, _, _ = str(err).partition("; ")
                    self._show(f"{what}; waiting for them, {as_duration(left_s)} at most")
            time.sleep(min(LOOK_EVERY_S, left_s))

    def _check_free(self, resources: Resources) -> None:
        import ray

        from orchestrator.launch.cluster_holders import holders_text

        free = ray.available_resources()
        cpus = resources.workers * resources.cpus_per_worker
        gpus = resources.workers * resources.gpus_per_worker
        if cpus > free.get("CPU", 0.0) or gpus > free.get("GPU", 0.0):
            raise InfeasibleError(
                f"the cluster at {self._address} is busy: {cpus:g} CPUs and {gpus:g} GPUs are "
                f"needed, {free.get('CPU', 0.0):g} and {free.get('GPU', 0.0):g} are free"
                f"{holders_text()}; "
                "wait for its jobs to end (--wait 10m), or lower resources.workers"
            )

    def _make_trainer(self, launches: Sequence[Launch]) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig

        from orchestrator.launch.local_trainer import ClusterTrainer, LocalTrainer
        from orchestrator.launch.rank_backend import RankBackendConfig
        from orchestrator.launch.rank_entry import GroupTask, RankTask, train_on_rank
        from orchestrator.launch.spool_callback import SpoolCallback

        first = launches[0]
        resources = first.plan.resources
        local = self._address is None
        per_worker = {"CPU": resources.cpus_per_worker}
        if resources.gpus_per_worker:
            per_worker["GPU"] = resources.gpus_per_worker
        tasks = tuple(
            RankTask(
                plan=launch.plan,
                extent=launch.extent,
                log_folder=None if self._verbose or not local else launch.log_folder,
                unsent_folder=launch.log_folder if local else None,
            )
            for launch in launches
        )
        task = GroupTask(tasks=tasks, collective_timeout_s=first.collective_timeout_s)
        return (LocalTrainer if local else ClusterTrainer)(
            train_on_rank,
            train_loop_config={"task": task},
            backend_config=RankBackendConfig(
                environment=tuple(first.rank_environment.items()),
                ops=tuple(dict.fromkeys(op for one in launches for op in one.plan.compiled_ops)),
                ops_folder=None if local else Path(first.rank_environment["TORCH_EXTENSIONS_DIR"]),
            ),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=bool(resources.gpus_per_worker),
                resources_per_worker=per_worker,
                # Ray's own words for it.
                placement_strategy=resources.placement.upper(),
            ),
            run_config=RunConfig(
                name="ray_train",
                storage_path=str(first.spool_path.parent),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                callbacks=[SpoolCallback([launch.spool_path for launch in launches])],
            ),
        )


def _cluster_of_this_machine() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return str(canonicalize_bootstrap_address(AUTO))
    except ConnectionError as err:
        raise UsageError(
            "no Ray cluster runs on this machine; start one (ray start --head), give its "
            "host:port, or leave the address out"
        ) from err


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


def _without_rank(message: str, details: str) -> Failure:
    return Failure(outcome="failed", rank=None, step=None, message=message, details=details)


def _first_line(error: object) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
