"""The user's own files on their way to ranks on other machines of a cluster.

A rank builds the model and reads the data from the job file's folder. Where that folder is not, or
holds something else, its files are unpacked into a new one. Imports no Ray.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.launch.shadows import user_modules
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.spec.data import TextData

PACKAGE = Path(__file__).resolve().parents[1]
MOST_DATA_BYTES = 10 * 2**20
"""Of data files; more is to lie on a disk that every node sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Luggage:
    """Files that plans name or import."""

    files: Mapping[str, bytes]
    """Path below the job file's folder -> content."""


def own_modules(plan: LaunchPlan, root: Path) -> Iterator[tuple[Path, Path]]:
    """The user's own modules below a folder, each with its path there; none without a factory."""
    for path in user_modules(plan, root):
        inside = path.relative_to(root)
        # The package is everywhere; its tests are nobody's model.
        if inside.parts[0] not in (PACKAGE.name, "tests"):
            yield path, inside


def pack_luggage(plans: Sequence[LaunchPlan]) -> Luggage:
    """Read what ranks need beside the package: modules, and texts below the job file's folder.

    Modules of the current folder come along with those beside the job file, which go first.

    Args:
        plans: of one job file.
    """
    found: dict[str, Path] = {}
    for plan in plans:
        for root in (plan.folder, Path.cwd()):
            for path, inside in own_modules(plan, root):
                found.setdefault(str(inside), path)
        for path in _texts(plan):
            found[str(path.relative_to(plan.folder))] = path
    files = {}
    for name, path in found.items():
        # An editor's lock, such as a link that leads nowhere, is no module.
        with contextlib.suppress(OSError):
            files[name] = path.read_bytes()
    return Luggage(files=files)


@contextlib.contextmanager
def at_hand(plan: LaunchPlan, luggage: Luggage) -> Iterator[Path]:
    """Give a folder that has the job's files: its own, or for as long as it is needed a new one."""
    if all(_is_there(plan.folder / name, content) for name, content in luggage.files.items()):
        yield plan.folder
        return
    with tempfile.TemporaryDirectory(prefix="orchestrator-job-") as name:
        folder = Path(name)
        for inside, content in luggage.files.items():
            path = folder / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield folder


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
