import pickle

import pytest

from orchestrator.errors import ExitCode
from orchestrator.launch.failure import Failure, RankError, RunError, judge

LOST = "[pair.cc:537] Read error [127.0.0.1]:59009: Connection reset by peer. This is typical"
NCCL = "NCCL error: unhandled system error, remote process exited"
CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has 139 GiB"


def error(rank, kind, message, **more):
    return RankError(rank=rank, kind=kind, message=message, **more)


# What the ranks ended with; then outcome, exit code, the rank to name, and the words.
TABLE = {
    "a loss that is not a number beats the peers it loses": (
        [error(0, "RuntimeError", LOST), error(1, "DivergedError", "the loss is nan in step 8")],
        ("diverged", 1, 1, "the loss is nan in step 8; lower training.optimizer.lr or"),
    ),
    "a dead rank beats the peers it leaves": (
        [
            error(0, "RuntimeError", LOST),
            error(1, "WorkerDiedError", "The actor died", signal_name="SIGKILL", pid=42),
        ],
        ("failed", 1, 1, "rank 1 was killed by SIGKILL (pid 42) after step 7; if it was"),
    ),
    "a crash is no work of the out-of-memory killer": (
        [error(0, "WorkerDiedError", "The actor died", signal_name="SIGSEGV", pid=42)],
        ("failed", 1, 0, "rank 0 was killed by SIGSEGV (pid 42) after step 7; see where"),
    ),
    "a dead rank without a log has no signal": (
        [error(0, "WorkerDiedError", "The actor died")],
        ("failed", 1, 0, "rank 0 was killed after step 7; if it was"),
    ),
    "a node that is not ready is told in its own words, whatever else died": (
        [
            error(0, "WorkerDiedError", "The actor died"),
            error(1, "NodeNotReadyError", "node b: cpu_adam cannot be compiled: out of memory"),
        ],
        ("failed", 1, 1, "node b: cpu_adam cannot be compiled"),
    ),
    "a user's mistake beats the peers it loses": (
        [error(0, "DistBackendError", NCCL), error(1, "ValueError", "mine\nmore")],
        ("failed", 1, 1, "rank 1 failed after step 7: ValueError: mine; see logs/failure.txt"),
    ),
    "of two user's mistakes the lower rank's is named": (
        [error(1, "ValueError", "second"), error(0, "ValueError", "first")],
        ("failed", 1, 0, "rank 0 failed after step 7: ValueError: first"),
    ),
    "memory of the GPU": (
        [error(0, "RuntimeError", LOST), error(1, "OutOfMemoryError", CUDA)],
        ("oom", 4, 1, "rank 1 ran out of memory after step 7: CUDA out of memory. Tried"),
    ),
    "memory of the host": (
        [error(0, "RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory: 1")],
        ("oom", 4, 0, "rank 0 ran out of memory after step 7: [enforce fail] DefaultCPUAllocator"),
    ),
    "memory of Python": (
        [error(0, "MemoryError", "")],
        ("oom", 4, 0, "rank 0 ran out of memory after step 7: no message; raise zero.stage, offl"),
    ),
    "memory of a process that cannot fork": (
        [error(0, "OSError", "[Errno 12] Cannot allocate memory")],
        ("oom", 4, 0, "rank 0 ran out of memory after step 7: [Errno 12]"),
    ),
    "memory beats death, which it may be the cause of": (
        [
            error(0, "WorkerDiedError", "The actor died", signal_name="SIGKILL"),
            error(1, "OutOfMemoryError", CUDA),
        ],
        ("oom", 4, 1, "rank 1 ran out of memory"),
    ),
    "only lost peers": (
        [error(2, "RuntimeError", LOST), error(5, "DistNetworkError", "Broken pipe")],
        ("failed", 1, 2, "rank 2 lost another rank after step 7: [pair.cc:537] Read error"),
    ),
    "a lost peer and what to do": (
        [error(2, "DistNetworkError", "Broken pipe")],
        ("failed", 1, 2, "rank 2 lost another rank after step 7: Broken pipe; look at the end of"),
    ),
    "a user's words that sound like a lost peer": (
        [error(0, "ValueError", "igloo has no door")],
        ("failed", 1, 0, "rank 0 failed after step 7: ValueError: igloo has no door"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_the_cause_is_named_and_not_what_follows_from_it(case):
    errors, (outcome, exit_code, rank, words) = TABLE[case]
    failure = judge({e.rank: e for e in errors}, last_steps=dict.fromkeys(range(8), 7))
    assert (failure.outcome, failure.exit_code, failure.rank) == (outcome, exit_code, rank)
    assert failure.step == 7
    assert failure.message.startswith(words)
    assert "\n" not in failure.message


def test_what_a_rank_says_of_its_last_step_beats_what_was_reported():
    failure = judge({0: error(0, "ValueError", "mine", step=9)}, last_steps={0: 4})
    assert failure.message.startswith("rank 0 failed after step 9: ValueError: mine; see logs/")
    assert failure.step == 9


def test_a_rank_that_reported_no_step_is_not_said_to_have_made_none():
    failure = judge({3: error(3, "ValueError", "mine")}, last_steps={0: 9})
    assert failure.message.startswith(
        "rank 3 failed before its first step was reported: ValueError:"
    )
    assert failure.step is None


def test_the_details_have_every_rank_in_order_with_its_traceback():
    errors = {
        1: error(1, "ValueError", "second", traceback="Traceback of 1"),
        0: error(0, "RuntimeError", LOST, traceback="Traceback of 0"),
    }
    details = judge(errors, last_steps={}).details
    order = [
        details.index(word) for word in ("rank 0:", "Traceback of 0", "rank 1:", "Traceback of 1")
    ]
    assert order == sorted(order)


def test_a_message_without_end_is_cut():
    failure = judge({0: error(0, "ValueError", "x" * 10_000)}, last_steps={})
    assert len(failure.message) < 500


def test_without_an_error_there_is_nothing_to_judge():
    with pytest.raises(ValueError, match="no error to judge"):
        judge({}, last_steps={})


def test_a_failure_survives_the_way_between_processes():
    failure = Failure(outcome="oom", rank=1, step=2, message="full", details="")
    back = pickle.loads(pickle.dumps(RunError(failure)))
    assert back.failure == failure
    assert str(back) == "full"
    assert back.exit_code is ExitCode.OUT_OF_MEMORY
