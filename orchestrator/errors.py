"""Every error a user can meet, and the exit code each one ends the program with.

OrchestratorError                1   the run failed
├── SpecError                    2   the job file is wrong
├── UsageError                   2   the command, a path or a port is wrong
├── InfeasibleError              3   it does not fit: no such resources
│   └── DoesNotFitError          3   its forecast is over the memory budget
├── RunFailedError            1, 4   a rank failed, died, diverged (1) or ran out of memory (4)
└── InterruptedRunError        130   Ctrl-C

Touches nothing outside. Every constructor argument goes to `super().__init__`, so that errors
survive pickling between processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What the process ends with; scripts lean on these numbers."""

    DONE = 0
    FAILED = 1
    WRONG_INPUT = 2
    DOES_NOT_FIT = 3
    OUT_OF_MEMORY = 4
    INTERRUPTED = 130


class OrchestratorError(Exception):
    """The root: anything we can explain to a user in one line."""

    exit_code = ExitCode.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in a job file, and what to do about it."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        """Say `file:line:col: key: what is wrong; what to do`."""
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


class SpecError(OrchestratorError):
    """The job file is wrong; carries every problem at once, in file order."""

    exit_code = ExitCode.WRONG_INPUT

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """One line a problem."""
        return "\n".join(map(str, self.problems))


class UsageError(OrchestratorError):
    """The command line, a path, a port or the environment is wrong."""

    exit_code = ExitCode.WRONG_INPUT


class InfeasibleError(OrchestratorError):
    """What is asked for is more than there is: workers, GPUs, memory."""

    exit_code = ExitCode.DOES_NOT_FIT


class DoesNotFitError(InfeasibleError):
    """A forecast says that it takes more memory than there is; carries the forecast."""

    def __init__(self, message: str, forecast: dict[str, Any]) -> None:
        super().__init__(message, forecast)
        self.message = message
        self.forecast = forecast

    def __str__(self) -> str:
        """What is over which budget, and what would fit."""
        return self.message


class RunFailedError(OrchestratorError):
    """The run started and did not finish; `launch.failure.RunError` names rank, step and cause."""


class InterruptedRunError(OrchestratorError):
    """The user stopped the run."""

    exit_code = ExitCode.INTERRUPTED
