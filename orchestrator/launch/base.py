"""The seam between a plan and whatever runs its ranks. Touches nothing outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.plan.extent import WHOLE, Extent
from orchestrator.plan.launch_plan import LaunchPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One plan on its way: what to run, and where its records go."""

    plan: LaunchPlan
    spool_path: Path
    """Every record of every rank is appended here (`track.spool`)."""
    log_folder: Path
    """What Ray, DeepSpeed and the ranks say goes here."""
    rank_environment: Mapping[str, str]
    """Environment variables of every rank, beside those it inherits."""
    collective_timeout_s: float = 300.0
    """Longest that a rank waits for the others."""
    extent: Extent = WHOLE
    """How much of the plan."""


LOOPBACK = "127.0.0.1"
LOOPBACK_ONLY = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""For ranks that are all on this machine: nobody else is to reach them."""


class Launcher(Protocol):
    """Runs plans to their end."""

    def run(self, launches: Sequence[Launch]) -> None:
        """Start the ranks, let them run one plan after another, and wait until all are done.

        Args:
            launches: at least one; all of them of one `group_key`.

        Raises:
            RunError: a rank failed, died or diverged, or no rank could start; it speaks of the
                first launch that the ranks did not finish.
            KeyboardInterrupt: the user stopped it; nothing of it is left running.
        """
        ...


def group_key(plan: LaunchPlan) -> tuple[object, ...]:
    """What plans must share for one group of ranks to run them one after another."""
    resources = plan.resources
    return (
        resources.workers,
        resources.device,
        resources.cpus_per_worker,
        resources.gpus_per_worker,
        resources.placement,
        plan.spec.measure.exact_rss,
    )


def rank_environment(plan: LaunchPlan, *, extensions: Path) -> dict[str, str]:
    """The environment variables a rank needs, whoever starts it.

    Args:
        plan: what will run.
        extensions: folder of DeepSpeed's compiled ops.
    """
    variables = {
        "OMP_NUM_THREADS": str(max(1, int(plan.resources.cpus_per_worker))),
        "TORCH_EXTENSIONS_DIR": str(extensions),
        # Models come from their configuration; nothing may wait for a network that is not there.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    if plan.resources.device == "cpu":
        variables["DS_ACCELERATOR"] = "cpu"
        variables["CUDA_VISIBLE_DEVICES"] = ""
    return variables
