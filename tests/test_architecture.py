"""The house rules a reviewer would otherwise have to remember."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "orchestrator"

# Ground floor first. A module imports from floors below, or from its own folder.
FLOORS = [
    {"errors", "units"},
    {"spec", "measure"},
    {"forecast"},
    {"plan"},
    {"compare"},
    {"draw"},
    {"models", "data"},
    {"worker", "track"},
    {"launch"},
    {"render", "terminal"},
    {"verbs"},
    {"cli"},
    {"__main__"},
]
# Slow to import and absent on laptops: each library lives in few rooms.
HEAVY = {
    "torch": {"models", "data", "worker"},
    "transformers": {"models"},
    "deepspeed": {"worker"},
    "ray": {"launch"},
    "mlflow": {"track"},
    "matplotlib": {"draw"},
    "scipy": {"compare"},
    "pynvml": {"worker"},
    "psutil": {"worker", "launch"},
}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def floor_of(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def name_of(path: Path) -> str:
    dotted = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Every dotted name the file imports, also inside functions, where cycles hide."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_imports_only_from_floors_below(path):
    home = room_of(path)
    rooms = {m.split(".")[1] for m in imports_of(path) if m.startswith("orchestrator.")}
    upward = {r for r in rooms - {home} if floor_of(r) >= floor_of(home)}
    assert not upward, f"{home} may not import {sorted(upward)}"


def test_no_module_imports_itself_in_a_circle():
    known = {name_of(p) for p in MODULES}
    graph = {
        name_of(p): {n if n in known else n.rpartition(".")[0] for n in imports_of(p)} & known
        for p in MODULES
    }
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_library_stays_in_its_room(path):
    used = {m.split(".")[0] for m in imports_of(path)} & HEAVY.keys()
    strays = {lib for lib in used if room_of(path) not in HEAVY[lib]}
    assert not strays, f"{room_of(path)} may not import {sorted(strays)}"


def test_the_command_line_starts_without_heavy_libraries():
    code = f"import sys, orchestrator.cli; print(*({set(HEAVY)!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_is_at_most_300_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
