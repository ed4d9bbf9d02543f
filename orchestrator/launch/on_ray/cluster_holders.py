"""Who holds what of a Ray cluster: its other jobs, by what their actors and groups take.

Reads the tables of Ray's control store, which need no dashboard; through internals of ray 2.60.0,
since its public way to them (`ray.util.state`) asks the dashboard.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WHAT = ("GPU", "CPU")
_MOST_NAMED = 3


@dataclass(slots=True, kw_only=True)
class Holder:
    """A job that runs on the cluster, and what it was given."""

    name: str
    started_unix_s: float
    held: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __str__(self) -> str:
        """Such as `resnet-zero2-20261125-101500-123 (2 CPUs, since 10:15)`."""
        amounts = [f"{n:g} {what}{'s' if n != 1 else ''}" for what, n in sorted(self.held.items())]
        since = time.strftime("%H:%M", time.localtime(self.started_unix_s))
        return f"{self.name} ({', '.join(amounts)}, since {since})"


def holders() -> list[Holder]:
    """Every job that holds CPUs or GPUs, who holds most first; a cluster is joined already.

    What plain tasks take while they run is nowhere written down, and so not counted.
    """
    from ray._private.state import state

    accessor = state._connect_and_get_accessor()
    # A job that is over may have left detached actors behind.
    found = dict(_jobs(accessor))
    for job_id, amounts in [*_of_actors(accessor), *_of_placement_groups(accessor)]:
        if job_id in found:
            for what in _WHAT:
                if amounts.get(what):
                    found[job_id].held[what] += amounts[what]
    holding = [holder for holder in found.values() if holder.held]
    return sorted(holding, key=lambda one: [-one.held.get(what, 0) for what in _WHAT])


def holders_text() -> str:
    """Name the holders in a few words; empty where none is known."""
    found = holders()
    if not found:
        return ""
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f", held by {', '.join(map(str, found[:_MOST_NAMED]))}{more}"


def _jobs(accessor: Any) -> Iterator[tuple[bytes, Holder]]:
    from ray.core.generated.gcs_pb2 import JobTableData

    rows = accessor.get_job_table(
        skip_submission_job_info_field=True, skip_is_running_tasks_field=True
    )
    for row in rows:
        job = JobTableData.FromString(row)
        submitted = job.config.metadata.get("job_submission_id")
        name = submitted or f"{_short(job.entrypoint)} on {job.driver_address.ip_address}"
        if job.is_dead:
            name = f"what is left of {name}"
        yield job.job_id, Holder(name=name, started_unix_s=job.start_time / 1000)


def _of_actors(accessor: Any) -> Iterator[tuple[bytes, Mapping[str, float]]]:
    """What actors take by themselves; those in a placement group take from what that has."""
    from ray.core.generated.gcs_pb2 import ActorTableData

    for row in accessor.get_actor_table(None, "ALIVE"):
        actor = ActorTableData.FromString(row)
        if not actor.placement_group_id:
            yield actor.job_id, actor.required_resources


def _of_placement_groups(accessor: Any) -> Iterator[tuple[bytes, Mapping[str, float]]]:
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    for row in accessor.get_placement_group_table():
        group = PlacementGroupTableData.FromString(row)
        if group.state == PlacementGroupTableData.CREATED:
            for bundle in group.bundles:
                yield group.creator_job_id, bundle.unit_resources


def _short(command: str) -> str:
    """The script or module of a command line: what comes behind may be nobody's business."""
    words = command.split()
    if words and Path(words[0]).name.startswith("python"):
        words = words[1:]
    named = [Path(word).name for word in words if word not in ("-m", "-u")]
    return named[0] if named and not named[0].startswith("-") else "a driver"
