"""Ray Train on a Ray that lives and dies with one run: the stock trainer, slimmed for that.

A stock start is a chain of fresh processes, each importing Ray, pandas and torch again. Here every
actor has an empty runtime environment, so that it takes one of the workers Ray started beforehand;
and the actors that watch for a dead driver, autoscale, or feed datasets are left out, since the
cluster is fixed and ends with its driver.

Subclasses internals of ray 2.60.0 (`ray.train.v2`), which the lock file pins; on a cluster that
somebody else runs, the stock trainer is used.
"""

from typing import Any

import ray
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

_NOT_NEEDED = {"PlacementGroupCleanerCallback", "DatasetsCallback"}


class LocalWorkerGroup(WorkerGroup):  # type: ignore[misc]
    """Ranks that inherit the driver's environment instead of getting one of their own."""

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: dict[str, Any]) -> dict[str, Any]:
        return dict(custom_runtime_env)


class LocalController(TrainController):  # type: ignore[misc]
    """The controller of a local run."""

    worker_group_cls = LocalWorkerGroup


class LocalScaling(FixedScalingPolicy):  # type: ignore[misc]
    """A fixed group on a fixed cluster: no autoscaler is asked."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Start no autoscaling coordinator."""

    def _maybe_send_resource_request(self) -> None:
        return


class ClusterTrainer(DataParallelTrainer):  # type: ignore[misc]
    """The stock trainer, whose controller can be reached while `fit` waits for it."""

    controller: Any = None

    def _register_sigint_handler(self, controller: Any) -> None:
        self.controller = controller
        super()._register_sigint_handler(controller)


class LocalTrainer(DataParallelTrainer):  # type: ignore[misc]
    """`DataParallelTrainer` for a local run; Ctrl-C raises KeyboardInterrupt from `fit`."""

    controller: Any = None

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [c for c in callbacks if type(c).__name__ not in _NOT_NEEDED]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        arguments["scaling_policy"] = LocalScaling(self.scaling_config)
        self.controller = ray.remote(num_cpus=0)(LocalController).remote(**arguments)
        ray.get(self.controller.run.remote())
        return ray.get(self.controller.get_result.remote())
