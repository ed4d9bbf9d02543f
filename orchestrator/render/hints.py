"""What a person may type next: paths and commands, as the shell takes them. Pure text."""

import shlex
from pathlib import Path


def as_typed(path: Path) -> str:
    """A path as one would type it here: from the current folder, where it lies in it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def ui_command(home: Path | None) -> str:
    """The command that opens MLflow's page.

    Args:
        home: the state folder, when it was given with the command.
    """
    if home is None:
        return "make ui"
    # Once for the shell that runs make, and once for that which make runs.
    return f"make ui ARGS={shlex.quote(f'--home {shlex.quote(str(home))}')}"
