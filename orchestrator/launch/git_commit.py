"""Which commit a command was given in, so that a number can be traced to its code. Asks git."""

import subprocess

TIMEOUT_S = 5.0


def commit_here() -> str | None:
    """The commit of the current folder's repository; `None` where there is none, or no git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
