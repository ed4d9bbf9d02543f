"""The Ray launcher: one Ray Train run on a Ray of its own, or on the cluster an address names."""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.launch.base import Launch
from orchestrator.launch.failure import Failure, RunError
from orchestrator.launch.home import package_files
from orchestrator.launch.luggage import pack_luggage
from orchestrator.launch.on_ray.joined_cluster import JoinedCluster
from orchestrator.launch.on_ray.local_ray import LocalRay, RayStartError
from orchestrator.launch.stop_signals import signals_kept
from orchestrator.launch.verdict import rank_error, unfinished, verdict
from orchestrator.plan.resources import Machine

if TYPE_CHECKING:
    from orchestrator.launch.on_ray.node import NodeNeeds

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
        self._cluster = (
            None
            if address is None
            else JoinedCluster(address, verbose=verbose, wait_s=wait_s, show=show)
        )
        self._verbose = verbose
        self._local_ray = LocalRay(verbose=verbose)
        self._trainer: Any = None

    def __enter__(self) -> "RayLauncher":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, or stop the Ray of this run."""
        self._local_ray.stop()
        if self._cluster is not None:
            self._cluster.leave()

    def renew(self) -> None:
        """Stop the Ray of this run, or join the cluster anew, which frees what ranks still held."""
        joined = self._cluster is not None and self._cluster.is_joined
        self.close()
        if joined:
            self.cluster()

    def cluster(self) -> Machine:
        """Connect to the cluster and say what it has.

        Raises:
            UsageError: nothing answers at the address.
            ValueError: there is no address.
        """
        if self._cluster is None:
            raise ValueError("a Ray of its own has what this machine has")
        return self._cluster.join()

    def run(self, launches: Sequence[Launch]) -> None:
        """Train plan after plan until all ranks are done.

        Raises:
            RunError: a rank or the controller failed.
            RayStartError: Ray did not start on this machine.
            InfeasibleError: the cluster's cores or GPUs are taken.
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
        if self._cluster is None:
            self._local_ray.apply_environment(launch.rank_environment)
        with _imported_beside():
            if self._cluster is not None:
                self._cluster.wait_for_room(launch.plan.resources)
            elif not self._local_ray.is_running:
                self._local_ray.start(launch.plan.resources)

    @property
    def compiles(self) -> bool:
        """Whether ranks may have to compile DeepSpeed's ops before they train."""
        return self._cluster is not None

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
            message = f"Ray Train's controller failed: {_first_line(err.controller_failure)}"
            if f"No module named '{__name__.partition('.')[0]}" in str(err):
                message = (
                    "a node has another version of this package, or none; bring it up to date "
                    "there, or take make submit, which sends it along"
                )
            raise RunError(_without_rank(message, str(err))) from err
        except ray.exceptions.RayError as err:
            message = f"Ray failed: {_first_line(err)}"
            raise RunError(_without_rank(message, str(err))) from err
        except SystemExit as err:
            # The stock trainer's own way of saying Ctrl-C.
            raise KeyboardInterrupt from err
        finally:
            self._trainer = None

    def _make_trainer(self, launches: Sequence[Launch]) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig

        from orchestrator.launch.on_ray.local_trainer import ClusterTrainer, LocalTrainer
        from orchestrator.launch.on_ray.rank_backend import RankBackendConfig
        from orchestrator.launch.on_ray.rank_entry import GroupTask, RankTask, train_on_rank
        from orchestrator.launch.on_ray.spool_callback import SpoolCallback

        first = launches[0]
        resources = first.plan.resources
        local = self._cluster is None
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
        needs = None if local else _needs(first)
        task = GroupTask(
            tasks=tasks,
            needs=needs,
            luggage=None if local else pack_luggage([one.plan for one in launches]),
            collective_timeout_s=first.collective_timeout_s,
        )
        return (LocalTrainer if local else ClusterTrainer)(
            train_on_rank,
            train_loop_config={"task": task},
            backend_config=RankBackendConfig(
                environment=tuple(first.rank_environment.items()),
                needs=needs,
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


def _needs(launch: Launch) -> "NodeNeeds":
    from orchestrator.launch.on_ray.node import NodeNeeds

    return NodeNeeds(
        package=package_files(),
        ops_folder=Path(launch.rank_environment["TORCH_EXTENSIONS_DIR"]),
        ops_folder_chosen=bool(os.environ.get("TORCH_EXTENSIONS_DIR")),
    )


@contextlib.contextmanager
def _imported_beside() -> Iterator[None]:
    """Import Ray Train in a thread while Ray starts its processes, which takes as long."""

    def work() -> None:
        import orchestrator.launch.on_ray.rank_backend  # noqa: F401

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
