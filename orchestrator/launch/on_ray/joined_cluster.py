"""A Ray cluster that somebody else runs: joined, waited for while it is full, and left."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping

from orchestrator.errors import InfeasibleError, UsageError
from orchestrator.launch.on_ray.cluster_address import AUTO, check_answers
from orchestrator.launch.stop_signals import signals_kept
from orchestrator.plan.resources import Machine, Node, Resources, n_places
from orchestrator.units import as_duration

LOOK_EVERY_S = 1.0
SAY_EVERY_S = 30.0
_ENVIRONMENT = {
    # Once a second; what answers at the address is looked at before.
    "RAY_NUM_REDIS_GET_RETRIES": "5",
    # A report waits for the next look of the controller; Ray's own are 2 s apart.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A run that loses a node ends, announced or not; watching costs a process.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


class JoinedCluster:
    """The cluster at an address.

    Args:
        address: its head as `host:port`, or `auto`.
        verbose: let Ray and the ranks talk to the terminal.
        wait_s: how long it is waited for when it is full.
        show: told what is waited for.
    """

    def __init__(
        self, address: str, *, verbose: bool, wait_s: float, show: Callable[[str], None]
    ) -> None:
        self._address = address
        self._verbose = verbose
        self._wait_s = wait_s
        self._show = show
        self.is_joined = False

    def join(self) -> Machine:
        """Connect to it and say what it has.

        Raises:
            UsageError: nothing answers at the address, or refuses.
        """
        if self._address != AUTO:
            check_answers(self._address, environment=os.environ)
        for name, value in _ENVIRONMENT.items():
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
            reason = (str(err).strip().splitlines() or [type(err).__name__])[0]
            raise UsageError(
                f"the Ray cluster at {self._address} cannot be joined: {reason}; "
                "is its token in RAY_AUTH_TOKEN, and is this one of its machines?"
            ) from err
        self.is_joined = True
        nodes = _nodes(node["Resources"] for node in ray.nodes() if node["Alive"])
        return Machine(
            n_cpus=sum(node.n_cpus for node in nodes),
            n_gpus=sum(node.n_gpus for node in nodes),
            name=f"the cluster at {self._address}",
            nodes=nodes,
        )

    def leave(self) -> None:
        """Disconnect; what ran there for this process ends."""
        if self.is_joined:
            import ray

            ray.shutdown()
            self.is_joined = False

    def wait_for_room(self, resources: Resources) -> None:
        """Wait until there is room for every rank, as long as was asked for.

        Raises:
            InfeasibleError: there is none; it names who holds the cluster.
        """
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
        from ray._private.state import available_resources_per_node

        from orchestrator.launch.on_ray.cluster_holders import holders_text

        free = _nodes(available_resources_per_node().values())
        n_workers, n_whole = resources.workers, n_places(free, resources)
        if n_whole == n_workers:
            return
        cpus, gpus = n_workers * resources.cpus_per_worker, n_workers * resources.gpus_per_worker
        free_cpus = sum(node.n_cpus for node in free)
        free_gpus = sum(node.n_gpus for node in free)
        whole = f", with whole places for {n_whole} of {n_workers} workers"
        scattered = cpus <= free_cpus and gpus <= free_gpus
        raise InfeasibleError(
            f"the cluster at {self._address} is busy: {cpus:g} CPUs and {gpus:g} GPUs are needed, "
            f"{free_cpus:g} and {free_gpus:g} are free{whole if scattered else ''}"
            f"{holders_text()}; "
            "wait for its jobs to end (--wait 10m), or lower resources.workers"
        )


def _nodes(resources: Iterable[Mapping[str, float]]) -> tuple[Node, ...]:
    return tuple(Node(n_cpus=one.get("CPU", 0.0), n_gpus=one.get("GPU", 0.0)) for one in resources)


def _cluster_of_this_machine() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return str(canonicalize_bootstrap_address(AUTO))
    except ConnectionError as err:
        raise UsageError(
            "no Ray cluster runs on this machine; start one (ray start --head), give its "
            "host:port, or leave the address out"
        ) from err
