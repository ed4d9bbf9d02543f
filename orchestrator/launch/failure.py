"""Why a run ended early: the rank to name, its cause, and what to do next.

Pure. When one rank dies the others fail too, since they lose their peer; the first cause is picked
by what it is and not by who came first.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from orchestrator.errors import ExitCode, OrchestratorError, RunFailedError
from orchestrator.measure.run_record import Outcome

_MEMORY_WORDS = re.compile(
    r"CUDA out of memory|out of memory|DefaultCPUAllocator|can't allocate memory|OutOfMemory"
    r"|MemoryError|Cannot allocate memory|bad_alloc",
)
_PEER_KINDS = frozenset(
    {"RuntimeError", "DistBackendError", "DistNetworkError", "DistStoreError", "DistError"}
)
_PEER_WORDS = re.compile(
    r"Connection closed by peer|Connection reset by peer|gloo|NCCL|ProcessGroup|Timed out waiting"
    r"|DistBackendError|Broken pipe",
    re.IGNORECASE,
)
_EXIT_CODES = {
    "failed": ExitCode.FAILED,
    "diverged": ExitCode.FAILED,
    "oom": ExitCode.OUT_OF_MEMORY,
    "interrupted": ExitCode.INTERRUPTED,
    "infeasible": ExitCode.DOES_NOT_FIT,
}


class Cause(IntEnum):
    """Kinds of rank failures, the most telling first."""

    DIVERGED = 0
    OUT_OF_MEMORY = 1
    NODE_NOT_READY = 2
    KILLED = 3
    USER_CODE = 4
    LOST_PEER = 5


class NodeNotReadyError(OrchestratorError):
    """A node lacks what its ranks need; says which, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankError:
    """What one rank ended with, as plain text that survives any process boundary."""

    rank: int
    kind: str
    """The exception's class."""
    message: str
    traceback: str = ""
    step: int | None = None
    """The last step it finished, if it lived to tell."""
    signal_name: str | None = None
    """Set when the process died of a signal, such as SIGKILL."""
    pid: int | None = None


class RankRaisedError(OrchestratorError):
    """What a rank ended with, on its way out of the rank.

    The exception itself stays behind: its class may be the user's, which nobody else can import.
    """

    def __init__(self, error: RankError) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        """Say it as the rank did."""
        return f"{self.error.kind}: {self.error.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The verdict on a run that ended early."""

    outcome: Outcome
    rank: int | None
    step: int | None
    """Last step the rank finished; `None` before its first."""
    message: str
    details: str

    @property
    def exit_code(self) -> ExitCode:
        """What the program ends with after such a run."""
        return _EXIT_CODES[self.outcome]


class RunError(RunFailedError):
    """A run that started and did not finish; carries the verdict."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure
        self.exit_code = failure.exit_code

    def __str__(self) -> str:
        """Say who, why and what next."""
        return self.failure.message


def cause_of(error: RankError) -> Cause:
    """Tell what kind of failure a rank's error is."""
    if error.kind == "DivergedError":
        return Cause.DIVERGED
    if error.kind == NodeNotReadyError.__name__:
        return Cause.NODE_NOT_READY
    if error.kind in ("MemoryError", "OutOfMemoryError") or _MEMORY_WORDS.search(error.message):
        return Cause.OUT_OF_MEMORY
    if error.signal_name is not None or error.kind in ("ActorDiedError", "WorkerDiedError"):
        return Cause.KILLED
    if error.kind in _PEER_KINDS and _PEER_WORDS.search(error.message):
        return Cause.LOST_PEER
    return Cause.USER_CODE


def judge(errors: Mapping[int, RankError], *, last_steps: Mapping[int, int]) -> Failure:
    """Pick the rank whose error came first in cause, and say it in one line.

    Args:
        errors: rank -> what it ended with; at least one.
        last_steps: rank -> the last step it reported, for those that do not say it themselves.

    Raises:
        ValueError: there are no errors.
    """
    if not errors:
        raise ValueError("no error to judge")
    first = min(errors.values(), key=lambda error: (cause_of(error), error.rank))
    cause = cause_of(first)
    step = last_steps.get(first.rank) if first.step is None else first.step
    during = "before its first step was reported" if step is None else f"after step {step}"
    messages = {
        Cause.DIVERGED: f"{first.message}; lower training.optimizer.lr or set "
        "training.gradient_clipping, and look at the data of that step",
        Cause.OUT_OF_MEMORY: f"rank {first.rank} ran out of memory {during}: "
        f"{_one_line(first.message)}; raise zero.stage, offload, or lower micro_batch_size",
        Cause.NODE_NOT_READY: _one_line(first.message),
        Cause.KILLED: f"rank {first.rank} was killed {_by(first)}{during}; {_way_out(first)}",
        Cause.USER_CODE: f"rank {first.rank} failed {during}: "
        f"{first.kind}: {_one_line(first.message)}; see logs/failure.txt",
        Cause.LOST_PEER: f"rank {first.rank} lost another rank {during}: "
        f"{_one_line(first.message)}; look at the end of the other ranks' logs",
    }
    outcomes: dict[Cause, Outcome] = {Cause.DIVERGED: "diverged", Cause.OUT_OF_MEMORY: "oom"}
    return Failure(
        outcome=outcomes.get(cause, "failed"),
        rank=first.rank,
        step=step,
        message=messages[cause],
        details="\n\n".join(
            f"rank {error.rank}: {error.kind}: {error.message}\n{error.traceback}".rstrip()
            for _, error in sorted(errors.items())
        ),
    )


def _by(error: RankError) -> str:
    by = f"by {error.signal_name} " if error.signal_name else ""
    return by + (f"(pid {error.pid}) " if error.pid is not None else "")


def _way_out(error: RankError) -> str:
    if error.signal_name not in (None, "SIGKILL"):
        return f"see where in the log of rank {error.rank}"
    return "if it was the kernel's out-of-memory killer, raise zero.stage or lower micro_batch_size"


def _one_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0][:300] if lines else "no message"
