"""A job file as a checked `JobSpec`, with the place of every key for those who find faults later.

Reads one file; everything that is wrong with it is reported at once, in the order it stands there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import Problem, SpecError
from orchestrator.spec.check import check_values
from orchestrator.spec.compare_rules import compare_findings, idle_in_all
from orchestrator.spec.finding import Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.origin import Place, place_of, where
from orchestrator.spec.override import apply_overrides
from orchestrator.spec.rules import contradictions
from orchestrator.spec.source import read_source
from orchestrator.spec.yaml_tree import Tree, read_yaml, require_mapping

_MOST_REPORTED = 100

Located = tuple[Place, Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A job, and where it came from."""

    spec: JobSpec
    path: Path
    """As the user gave it."""
    text: str
    """As written, before overrides."""
    overrides: tuple[str, ...] = ()
    """Each `key=value`, in order."""
    places: dict[str, Place] = field(default_factory=dict, repr=False)
    """Dotted key -> where it was given."""

    def problem(self, key: str, message: str) -> Problem:
        """Say what is wrong with a key, at the place where it (or its nearest parent) was given.

        Args:
            key: dotted, such as `training.micro_batch_size`.
            message: what is wrong; what to do.
        """
        spot = where(place_of(key, self.places), path=self.path, overrides=self.overrides)
        return Problem(where=spot, key=key, message=message)


def load_job(path: Path, *, overrides: Sequence[str] = ()) -> JobFile:
    """Read and check a job file.

    Args:
        path: the file, shown in messages as given.
        overrides: `key=value` each, applied in order before checking.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        SpecError: it is not a job; carries every problem.
    """
    text = read_source(path)
    tree = require_mapping(read_yaml(text))
    if not tree.complete:
        raise _error(tree.faults, path, overrides)
    tree = apply_overrides(tree, overrides)
    checked = check_values(tree.value)
    found = checked if not isinstance(checked, JobSpec) else ()
    if isinstance(checked, JobSpec) and not tree.unread:
        found = _broken_rules(checked)
    faults = (*tree.faults, *_located(found, tree))
    if faults or not isinstance(checked, JobSpec):
        raise _error(faults, path, overrides)
    return JobFile(
        spec=checked, path=path, text=text, overrides=tuple(overrides), places=tree.places
    )


def _broken_rules(spec: JobSpec) -> tuple[Finding, ...]:
    """Find what breaks a rule across keys; variants only of a job that can run itself."""
    return contradictions(spec) or compare_findings(spec) or idle_in_all(spec)


def _located(findings: Iterable[Finding], tree: Tree) -> list[Located]:
    """Place findings, but for those that follow from a value that could not be read."""
    return [
        (place_of(finding.key, tree.places), finding)
        for finding in dict.fromkeys(findings)
        if finding.key not in tree.unread
    ]


def _error(faults: Sequence[Located], path: Path, overrides: Sequence[str]) -> SpecError:
    in_order = sorted(faults, key=lambda fault: fault[0])
    problems = [
        Problem(
            where=where(place, path=path, overrides=overrides),
            key=finding.key,
            message=finding.message,
        )
        for place, finding in in_order[:_MOST_REPORTED]
    ]
    n_more = len(in_order) - len(problems)
    if n_more:
        message = f"{n_more:,} more problems; mend these first"
        problems.append(Problem(where=f"{path}", key="", message=message))
    return SpecError(problems)
