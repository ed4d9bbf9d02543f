"""An entry: what one strategy of a comparison came to, read from the documents that a run keeps.

A comparison that has just run and runs found in a tracking store give the same entries, so that
both are ranked in the same way. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.measure.run_record import RunRecord
from orchestrator.measure.run_record_json import run_record_from_json
from orchestrator.spec.finding import dotted_key

PLAN, SUMMARY, THROUGHPUT, ENVIRONMENT = (
    "plan.json",
    "summary.json",
    "throughput.json",
    "environment.json",
)
"""The documents of a run, as artifacts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One strategy, whatever became of it."""

    name: str
    """What tables call it; no other entry of a comparison has it."""
    strategy: str
    """How it is sharded: `zero3-optim-cpu-bf16`."""
    job: Mapping[str, Any]
    """The job as it was planned, every size filled in: the sections of a job file."""
    device: str
    """`cpu` or `cuda`."""
    global_batch_size: int
    micro_batch_size: int
    accumulation_steps: int
    workers: int
    n_params: int
    record: RunRecord
    """What it did cost; without ranks where it never ran."""
    rounds: tuple[tuple[float, ...], ...]
    """Round -> samples/s of the whole job, in each of its measured steps; in the order in which
    they were run."""
    commit: str | None = None
    """Git commit of the folder the command was given in."""
    user: str | None = None

    @property
    def peak_bytes(self) -> int | None:
        """Tensors on the device of the fullest rank."""
        return self.record.peak_bytes

    @property
    def is_ok(self) -> bool:
        """Whether it ran to its end."""
        return self.record.outcome == "ok"

    def setting(self, key: str) -> Any:
        """A value of the job by its dotted key; `None` where a part of the key is missing."""
        value: Any = self.job
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def entry_of(
    name: str,
    *,
    plan: Mapping[str, Any],
    summary: Mapping[str, Any],
    throughput: Mapping[str, Any] | None,
    environment: Mapping[str, Any] | None,
    user: str | None = None,
) -> Entry:
    """Read the documents of a run.

    Args:
        name: what to call it.
        plan: `plan.json`.
        summary: `summary.json`.
        throughput: `throughput.json`; `None` for a run that kept none.
        environment: `environment.json`; `None` for a run that kept none.
        user: who ran it.

    Raises:
        ValueError: a document lacks something, or is of another shape.
    """
    try:
        batch = plan["batch"]
        return Entry(
            name=name,
            strategy=plan["strategy"],
            job=plan["job"],
            device=plan["resources"]["device"],
            global_batch_size=batch["global_batch_size"],
            micro_batch_size=batch["micro_batch_size"],
            accumulation_steps=batch["accumulation_steps"],
            workers=batch["workers"],
            n_params=plan["n_params"],
            record=run_record_from_json(summary),
            rounds=tuple(
                tuple(part["samples_per_s"]) for part in (throughput or {"rounds": ()})["rounds"]
            ),
            commit=None if environment is None else environment.get("commit"),
            user=user,
        )
    except (KeyError, TypeError) as err:
        raise ValueError(f"the documents of {name} are not those of a run: {err!r}") from err


def flat_settings(job: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a job: dotted key -> value."""
    flat: dict[str, Any] = {}

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, Mapping) and value:
            for name, inner in value.items():
                walk(inner, (*path, str(name)))
        else:
            flat[dotted_key(path)] = value

    walk(job, ())
    return flat
