import os
import signal

import pytest

from orchestrator.launch.stop_signals import (
    SIGNALS,
    StopSignals,
    signals_held_back,
    signals_kept,
)
from tests.launch.command import Command, write_users_job


@pytest.fixture(autouse=True)
def before():
    """The handlers are as they were, whatever a test does."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield handlers
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers


@pytest.fixture
def said():
    return []


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_the_exit_code_is_that_which_a_shell_expects(number, exit_code, said):
    with StopSignals(show=said.append) as stopped:
        assert stopped.exit_code is None
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            os.kill(os.getpid(), number)
        assert stopped.exit_code == exit_code


def test_a_second_signal_does_not_tear_the_cleaning_up_apart(said):
    with StopSignals(show=said.append) as stopped:
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.exit_code == 130
    assert said == ["stopping; this takes some seconds", *["still stopping; a moment"] * 2]


def test_a_signal_that_nohup_ignores_stays_ignored(said, before):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals(show=said.append):
        os.kill(os.getpid(), signal.SIGHUP)
        with signals_held_back(show=said.append):
            os.kill(os.getpid(), signal.SIGHUP)
    signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert said == []


def test_handlers_that_a_library_took_are_given_back(said):
    with StopSignals(show=said.append) as stopped:
        with signals_kept():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.exit_code == 143


def test_what_must_be_finished_is_not_interrupted(said):
    with StopSignals(show=said.append) as stopped:
        with signals_held_back(show=said.append):
            for number in SIGNALS:
                os.kill(os.getpid(), number)
        assert stopped.exit_code is None
    assert said == ["finishing what is recorded; a moment"] * 3


def test_a_launch_stopped_before_it_ran_says_that_it_was_interrupted(tmp_path):
    job = write_users_job(tmp_path)
    # The user's module is looked into by a process of the command's.
    (tmp_path / "users.py").write_text(
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    command = Command("launch", job, "--json", home=tmp_path / "home").wait(timeout_s=30)
    answer = {"error": "interrupted", "exit_code": 130, "outcome": "interrupted"}
    assert (command.exit_code, command.answer) == (130, answer)
    assert command.left_running() == []
    assert not command.home.exists()
    command.close()
