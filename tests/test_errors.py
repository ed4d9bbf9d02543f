"""Errors explain themselves, end the program with their code, and survive pickling."""

import pickle

import pytest

from orchestrator import errors
from orchestrator.errors import DoesNotFitError, OrchestratorError, Problem, SpecError

PROBLEMS = (
    Problem(where="job.yaml:1:1", key="zero.stage", message="got 4; choose one of 0, 1, 2, 3"),
    Problem(where="--set a=1", key="a", message="unknown key; known here: name"),
)
ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, OrchestratorError)
]


def one_of(kind: type[OrchestratorError]) -> OrchestratorError:
    if issubclass(kind, DoesNotFitError):
        return kind("rank 3, step 7: out of paper", {"verdict": "TOO_BIG"})
    return kind(PROBLEMS) if issubclass(kind, SpecError) else kind("rank 3, step 7: out of paper")


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_is_the_same_after_pickling(kind, protocol):
    error = one_of(kind)
    copy = pickle.loads(pickle.dumps(error, protocol=protocol))
    assert type(copy) is kind
    assert str(copy) == str(error) != ""
    assert copy.args == error.args
    assert copy.exit_code == error.exit_code


def test_a_spec_error_keeps_its_problems_after_pickling():
    copy = pickle.loads(pickle.dumps(SpecError(PROBLEMS)))
    assert copy.problems == PROBLEMS


def test_there_is_an_error_for_every_exit_code_but_success_and_out_of_memory():
    # 4 follows from the verdict on a run: tests/launch/test_failure.py.
    assert {int(kind.exit_code) for kind in ERRORS} == {1, 2, 3, 130}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("OrchestratorError", 1),
        ("SpecError", 2),
        ("UsageError", 2),
        ("InfeasibleError", 3),
        ("RunFailedError", 1),
        ("InterruptedRunError", 130),
    ],
)
def test_exit_codes_are_those_scripts_lean_on(name, code):
    assert getattr(errors, name).exit_code == code


def test_a_problem_says_where_which_key_and_what():
    assert str(PROBLEMS[0]) == "job.yaml:1:1: zero.stage: got 4; choose one of 0, 1, 2, 3"


def test_a_problem_without_a_key_leaves_no_gap():
    assert str(Problem(where="job.yaml:1:1", key="", message="empty")) == "job.yaml:1:1: empty"


def test_a_spec_error_has_one_line_a_problem():
    assert str(SpecError(PROBLEMS)).split("\n") == [str(problem) for problem in PROBLEMS]
