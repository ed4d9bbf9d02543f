"""The user's own files on their way to ranks on other machines of a cluster.

A rank builds the model and reads the data from the job file's folder, and imports from there and
from the folder the run was started in. Where one of them is not, or holds something else, its files
are unpacked into a new one. Imports no Ray.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.launch.shadows import user_modules
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.spec.data import TextData

PACKAGE = Path(__file__).resolve().parents[1]
MOST_DATA_BYTES = 10 * 2**20
"""Of data files; more is to lie on a disk that every node sees."""
_PREFIX = "orchestrator-job-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bag:
    """Files of one folder of the driver's machine."""

    root: Path
    files: Mapping[str, bytes]
    """Path below the folder -> content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Luggage:
    """Files that plans name or import."""

    beside: Bag
    """From the job file's folder: modules, and texts."""
    current: Bag
    """Modules from the folder that the run was started in."""


def own_modules(plan: LaunchPlan, root: Path) -> Iterator[tuple[Path, Path]]:
    """The user's own modules below a folder, each with its path there; none without a factory."""
    for path in user_modules(plan, root):
        inside = path.relative_to(root)
        # The package is everywhere; its tests are nobody's model.
        if inside.parts[0] not in (PACKAGE.name, "tests"):
            yield path, inside


def pack_luggage(plans: Sequence[LaunchPlan]) -> Luggage:
    """Read what ranks need beside the package.

    Args:
        plans: of one job file; at least one.
    """
    folder, here = plans[0].folder, Path.cwd()
    beside = {path for plan in plans for path, _ in own_modules(plan, folder)}
    texts = {path for plan in plans for path in _texts(plan)}
    current = {path for plan in plans for path, _ in own_modules(plan, here)}
    return Luggage(
        beside=_bag(folder, beside | texts),
        current=_bag(here, {path for path in current if not path.is_relative_to(folder)}),
    )


@contextlib.contextmanager
def at_hand(luggage: Luggage) -> Iterator[Path]:
    """Give a folder that has the job's files, and let the others be imported.

    Either is the driver's own where it can be seen, or for as long as it is needed a new one.
    """
    _remove_abandoned()
    with _opened(luggage.beside) as folder, _opened(luggage.current) as current:
        if str(current) not in sys.path:
            sys.path.append(str(current))
        yield folder


@contextlib.contextmanager
def _opened(bag: Bag) -> Iterator[Path]:
    if all(_is_there(bag.root / name, content) for name, content in bag.files.items()):
        yield bag.root
        return
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as name:
        for inside, content in bag.files.items():
            path = Path(name) / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(name)


def _remove_abandoned() -> None:
    """Remove what ranks left that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(path, ignore_errors=True)


def _bag(root: Path, paths: Iterable[Path]) -> Bag:
    files = {}
    for path in sorted(paths):
        # An editor's lock, such as a link that leads nowhere, is no module.
        with contextlib.suppress(OSError):
            files[str(path.relative_to(root))] = path.read_bytes()
    return Bag(root=root, files=files)


def _is_there(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _texts(plan: LaunchPlan) -> list[Path]:
    """Texts that travel; others are to be where the job says, on every node."""
    data = plan.spec.data
    if not isinstance(data, TextData) or data.path is None or Path(data.path).is_absolute():
        return []
    place = plan.folder / data.path
    found = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    inside = [path for path in found if path.resolve().is_relative_to(plan.folder.resolve())]
    small = sum(path.stat().st_size for path in inside) <= MOST_DATA_BYTES
    return inside if small else []
