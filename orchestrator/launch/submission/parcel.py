"""What travels with a job: this package, the job file, and what the job file names beside it.

Never the state folder, an environment, git's history, or data over a stated size.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import SpecError, UsageError
from orchestrator.launch.home import versions
from orchestrator.launch.luggage import MOST_DATA_BYTES, PACKAGE, own_modules
from orchestrator.launch.preflight import Examined, lies_elsewhere
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.spec.data import TextData
from orchestrator.spec.load import JobFile
from orchestrator.units import as_bytes

JOB_FOLDER = "job"
"""Of the job file and what lies beside it."""
SUBMITTED = "submitted_with.json"
"""What was given and found where the job was submitted, as `Submitted` reads it."""
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A folder that is ready to be sent."""

    folder: Path
    job: str
    """The job file in it."""
    n_bytes: int
    """Of all files, before they are compressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What travelled with a job beside its files."""

    examined: Examined | None
    """What a look at its model and data told; `None` if there could be none."""
    overrides: tuple[str, ...]


def read_submitted(path: Path) -> Submitted:
    """Read what travelled with a job, where it runs.

    Raises:
        UsageError: the libraries here are others than where it was submitted.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if lines := differences(found["versions"], versions_here()):
        raise UsageError("\n".join(lines))
    n_params = found["n_params"]
    return Submitted(
        examined=None if n_params is None else Examined(n_params=n_params),
        overrides=tuple(found["overrides"]),
    )


def pack(job: JobFile, plan: LaunchPlan, *, folder: Path, overrides: Sequence[str] = ()) -> Parcel:
    """Copy into a folder what a job needs on another machine.

    Args:
        job: the checked job file.
        plan: its plan, as made here.
        folder: empty.
        overrides: `KEY=VALUE`, as given beside the job file; a command line could be read by all
            who look at the cluster.

    Raises:
        SpecError: the job names a file that cannot travel.
        UsageError: something cannot be read or written.
    """
    beside = folder / JOB_FOLDER
    try:
        shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=_LEFT_OUT)
        beside.mkdir()
        (beside / job.path.name).write_text(job.text, encoding="utf-8")
        n_params = None if lies_elsewhere(job) else plan.n_params
        found = {"versions": versions_here(), "n_params": n_params, "overrides": list(overrides)}
        (folder / SUBMITTED).write_text(json.dumps(found), encoding="utf-8")
        for source, target in [*_modules(plan, folder), *_named_files(job, beside)]:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    except OSError as err:
        raise UsageError(f"the job cannot be packed: {err.filename}: {err.strerror}") from err
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Parcel(folder=folder, job=f"{JOB_FOLDER}/{job.path.name}", n_bytes=n_bytes)


def versions_here() -> dict[str, str]:
    """Library -> version, of those that must be the same on both sides; Python among them."""
    import platform

    found = versions()
    return {
        "python": platform.python_version(),
        **{name: found[name] for name in ("ray", "torch", "deepspeed", "mlflow")},
    }


def differences(theirs: dict[str, str], ours: dict[str, str]) -> list[str]:
    """A line for each library whose minor version is another one there than here."""
    return [
        f"{name} {ours.get(name, 'none')} on the cluster and {version} where the job was "
        "submitted; install the same on both"
        for name, version in theirs.items()
        if _minor(ours.get(name, "")) != _minor(version)
    ]


def _minor(version: str) -> list[str]:
    return version.partition("+")[0].split(".")[:2]


def _modules(plan: LaunchPlan, folder: Path) -> Iterator[tuple[Path, Path]]:
    """The user's own modules, from beside the job file and from the current folder."""
    for root, target in ((plan.folder, folder / JOB_FOLDER), (Path.cwd(), folder)):
        for path, inside in own_modules(plan, root):
            yield path, target / inside


def _named_files(job: JobFile, beside: Path) -> Iterator[tuple[Path, Path]]:
    """Files that the job names relative to itself: DeepSpeed's settings, texts."""
    here = job.path.absolute().parent
    if isinstance(job.spec.deepspeed, str):
        yield from _inside(job, "deepspeed", job.spec.deepspeed, here, beside)
    data = job.spec.data
    if isinstance(data, TextData) and data.path is not None:
        files = list(_inside(job, "data.path", data.path, here, beside))
        n_bytes = sum(path.stat().st_size for path, _ in files)
        if n_bytes > MOST_DATA_BYTES:
            message = (
                f"{as_bytes(n_bytes)} of data, and at most {as_bytes(MOST_DATA_BYTES)} travel with "
                "a job; put it on a disk that every node sees, and give its absolute path there"
            )
            raise SpecError([job.problem("data.path", message)])
        yield from files


def _inside(
    job: JobFile, key: str, named: str, here: Path, beside: Path
) -> Iterator[tuple[Path, Path]]:
    if Path(named).is_absolute():
        # It is to lie there on every node.
        return
    place = (here / named).resolve()
    if not place.is_relative_to(here.resolve()):
        message = (
            f"{named} does not lie below the job file and cannot travel with it; move it there, "
            "or give an absolute path that every node has"
        )
        raise SpecError([job.problem(key, message)])
    for path in [place] if place.is_file() else sorted(place.rglob("*")):
        if path.is_file():
            yield path, beside / path.relative_to(here.resolve())
