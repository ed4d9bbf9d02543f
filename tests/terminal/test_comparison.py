"""What a person sees while a comparison runs."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import termios

import pytest

from orchestrator.launch.comparison.contestant import Contest, Contestant
from orchestrator.launch.comparison.folder import new_folder
from orchestrator.launch.comparison.planned import plan_strategies
from orchestrator.launch.comparison.stint import Stint, controls_of, stints_of
from orchestrator.launch.failure import Failure
from orchestrator.launch.home import open_home
from orchestrator.launch.open_run import Setting
from orchestrator.measure.summary import RunTally
from orchestrator.terminal.comparison import ComparisonDisplay
from orchestrator.track.memory import InMemoryTracker
from tests import small_jobs
from tests.launch import records
from tests.launch.comparison.scripted import Ranks, Workshop, failing
from tests.terminal.test_progress import Closed, Terminal

STARTS = "Starting 2 ranks for "
SOON = "; this takes about ten seconds"


class Show:
    """A comparison on a terminal, at a clock of the test's own: a step takes a second.

    Args:
        out: the terminal.
        folder: for its job.
        compare: the job's `compare:`; the job takes 4 steps and later rounds 3.
    """

    def __init__(self, out, folder, compare, **job):
        compare = {"rounds": 2, "round_steps": 3, **compare}
        made = small_jobs.write_job(folder, compare=compare, **job)
        assert made.spec.compare is not None
        self.out = out
        self.now_s = 100.0
        self.display = ComparisonDisplay(
            out, n_rounds=made.spec.compare.rounds, clock=lambda: self.now_s
        )
        planned = plan_strategies(made, machine=small_jobs.MACHINE, environment={})
        home = open_home(folder / "home")
        comparison = new_folder(home, name="small", at_unix_s=0, fingerprint="any")
        comparison.release()
        setting = Setting(
            home=home,
            open_tracker=InMemoryTracker,
            started_unix_s=0,
            user=None,
            commit=None,
            extensions=folder,
        )
        contest = Contest(folder=comparison, setting=setting, n_rounds=2, n_strategies=len(planned))
        self.contestants = [
            Contestant(one, index=index, contest=contest) for index, one in enumerate(planned)
        ]
        groups = stints_of(self.contestants, made.spec.compare)
        controls = controls_of(self.contestants[0], self.contestants, folder=comparison)
        self.groups: list[list[Stint]] = [[*groups[0], *controls], *groups[1:]]

    def begins(self, number=0, *, isolated=False):
        """Begin a group; its ranks need 20 s to start."""
        stints, *later = self.groups[number:]
        if isolated:
            stints, *later = [[one] for group in self.groups[number:] for one in group]
        self.display.begins(stints, later=later)
        self.now_s += 20
        return stints

    def turn(self, stint, *, up_to=None):
        """Let its ranks take their steps; to their end unless told otherwise."""
        n_ranks = stint.plan.resources.workers
        tally = RunTally()
        total = stint.n_steps
        for rank in range(n_ranks):
            fact = records.facts(rank, world_size=n_ranks, total_steps=total)
            tally.take(fact)
            self.display.record(stint, fact)
        for step in range(1, (up_to or total) + 1):
            self.now_s += 1
            for rank in range(n_ranks):
                record = records.sample(rank, step=step, loss=4.0 / step)
                tally.take(record)
                self.display.record(stint, record)
        if up_to is None:
            made = tally.record(name="any", outcome="ok", started_unix_s=None)
            self.display.done(stint, made if stint.round == 1 else None)

    @property
    def last(self):
        """The line that changes, as it stands."""
        return self.out.getvalue().rpartition("\r\x1b[2K")[2]


@pytest.fixture
def show(tmp_path):
    return Show(Terminal(), tmp_path, {"axes": {"zero.stage": [0, 1]}})


def seconds_left(line):
    found = re.search(r"about (?:(\d+) min )?(\d+) s left", line)
    assert found, line
    return 60 * int(found[1] or 0) + int(found[2])


def test_a_turn_says_which_of_all_it_is_whose_and_how_far(show):
    first, *_ = show.begins()
    show.turn(first, up_to=2)
    assert show.out.getvalue().startswith(f"{STARTS}2 strategies in 7 turns{SOON}\n")
    # Of 2 x 4, 2 x 3 and 3 x 4 steps two are over.
    assert show.last == (
        "[1/7] about 24 s left  zero0 (round 1 of 2)  step 2/4  loss 2.0000  32.0 samples/s"
    )


def test_the_time_left_is_that_of_the_whole_comparison(show):
    stints = show.begins()
    left = []
    for stint in stints:
        show.turn(stint)
        step_line = show.out.getvalue().split("\r\x1b[2K")
        left.append(seconds_left([line for line in step_line if "left" in line][-1]))
    assert left == [22, 18, 15, 12, 8, 4, 0]


def test_starting_the_ranks_counts_for_groups_that_come_later(tmp_path):
    variants = [{"name": "pair"}, {"name": "alone", "resources.workers": 1}]
    show = Show(Terminal(), tmp_path, {"variants": variants})
    first, *_ = show.begins()
    show.turn(first, up_to=4)
    # 3 + 12 steps of these ranks; 20 s for the others to start and 4 + 3 steps of theirs.
    assert seconds_left(show.last) == 15 + 20 + 7


def test_a_group_that_is_started_again_goes_on_counting(show):
    one, two, *_ = show.begins()
    show.turn(one)
    show.turn(two, up_to=2)
    failure = Failure(outcome="oom", rank=1, step=2, message="no room; offload", details="")
    show.display.failed(show.contestants[1], failure)
    show.groups = [[stint for stint in show.groups[0][2:] if stint.contestant is one.contestant]]
    third, *_ = show.begins()
    show.turn(third, up_to=1)
    lines = show.out.getvalue().split("\n")
    assert lines[-3].endswith("\r\x1b[2K  zero1  oom: no room; offload")
    assert lines[-2] == f"{STARTS}1 strategy in 4 turns"
    assert show.last.startswith("[3/6] about ")


def test_a_first_round_leaves_a_line_and_later_ones_do_not(show):
    stints = show.begins()
    for stint in stints:
        show.turn(stint)
    show.display.ends()
    show.display.close()
    stay = [line.rpartition("\x1b[2K")[2] for line in show.out.getvalue().split("\n")]
    assert stay == [
        f"{STARTS}2 strategies in 7 turns{SOON}",
        "  zero0       4.0 MiB      32.0 samples/s  loss 1.0000",
        "  zero1       4.0 MiB      32.0 samples/s  loss 1.0000",
        "All turns are over; drawing and writing the report",
        "",
    ]


def test_controls_are_called_what_they_are(show):
    stints = show.begins()
    for stint in stints[:4]:
        show.turn(stint)
    show.turn(stints[4], up_to=1)
    assert "[5/7]" in show.last
    assert "  zero0 from weights moved by a bit  step 1/4" in show.last


def test_what_never_runs_is_no_turn(show):
    one = show.contestants[1]
    object.__setattr__(one.planned, "infeasible", "too big")
    failure = Failure(outcome="infeasible", rank=None, step=None, message="too big", details="")
    show.display.failed(one, failure)
    first, *_ = show.begins()
    show.turn(first, up_to=1)
    assert show.last.startswith("[1/7]")


def test_isolated_every_start_is_told_by_its_turn_and_counts(show):
    first, *_ = show.begins(isolated=True)
    show.turn(first, up_to=4)
    assert show.out.getvalue().startswith(f"{STARTS}zero0 (round 1 of 2){SOON}\n")
    # Six more starts of 20 s, and 22 steps.
    assert seconds_left(show.last) == 6 * 20 + 22


def test_the_time_left_of_epochs_is_known_once_ranks_say_how_many_steps_they_are(tmp_path):
    job = {"training": {"steps": None, "epochs": 3, "global_batch_size": 16}}
    show = Show(Terminal(), tmp_path, {"axes": {"zero.stage": [0]}}, **job)
    (stint, *_) = show.begins()
    for rank in (0, 1):
        show.display.record(stint, records.facts(rank, total_steps=8))
    for step in (1, 2):
        show.now_s += 1
        for rank in (0, 1):
            show.display.record(stint, records.sample(rank, step=step))
    # Six steps of eight are left of the first round; the second takes less than a second.
    assert 6 <= seconds_left(show.last) < 7


def test_where_nobody_watches_lines_are_seconds_apart(tmp_path):
    show = Show(io.StringIO(), tmp_path, {"axes": {"zero.stage": [0, 1]}})
    stints = show.begins()
    for stint in stints:
        show.turn(stint)
    lines = show.out.getvalue().splitlines()
    assert [line.startswith("[") for line in lines].count(True) == 1
    assert len(lines) == 4
    assert "\x1b" not in show.out.getvalue()


def test_fifty_strategies_are_counted_in_one_width(tmp_path):
    show = Show(
        Terminal(),
        tmp_path,
        {"axes": {"training.seed": list(range(50))}},
    )
    stints = show.begins()
    assert show.out.getvalue().startswith(f"{STARTS}50 strategies in 103 turns{SOON}")
    for stint in stints:
        show.turn(stint)
    lines = show.out.getvalue().split("\r\x1b[2K")
    numbers = [found[1] for line in lines if (found := re.match(r"\[ *(\d+)/103\]", line))]
    assert [int(number) for number in dict.fromkeys(numbers)] == list(range(1, 104))
    assert "[  1/103] " in show.out.getvalue()
    left = [seconds_left(line) for line in lines if " left" in line]
    assert (left[0], left[-1]) == (50 * 4 + 50 * 3 + 3 * 4 - 1, 0)
    rows = [line for line in show.out.getvalue().split("\n") if "samples/s  loss" in line[-30:]]
    assert len(rows) >= 50


@pytest.mark.parametrize("terminal", [True, False])
def test_a_reader_that_went_away_ends_nothing(terminal, tmp_path):
    show = Show(Closed(terminal=terminal), tmp_path, {"axes": {"zero.stage": [0, 1]}})
    for stint in show.begins():
        show.turn(stint)
    show.display.close()
    assert show.out.getvalue() == ""


def test_on_a_narrow_terminal_the_line_that_changes_does_not_wrap(tmp_path):
    controller, terminal = pty.openpty()
    os.set_blocking(controller, False)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with os.fdopen(terminal, "w") as out:
        show = Show(out, tmp_path, {"axes": {"zero.stage": [0, 1]}})
        first, *_ = show.begins()
        show.turn(first, up_to=1)
        termios.tcdrain(out.fileno())
        told = ""
        # A terminal gives what was written piece by piece.
        while "zero0" not in told.rpartition("\r\x1b[2K")[2]:
            with contextlib.suppress(BlockingIOError):
                told += os.read(controller, 100_000).decode()
    os.close(controller)
    last = told.rpartition("\r\x1b[2K")[2]
    assert len(last) == 39
    assert last == "[1/7] about 25 s left  zero0 (round 1 o"


def test_it_watches_a_comparison_from_its_beginning_to_its_end(tmp_path):
    out = io.StringIO()
    workshop = Workshop(tmp_path, {"axes": {"zero.stage": [0, 1, 2]}})
    workshop.compare(
        Ranks({"zero1": failing()}), draws=True, watcher=ComparisonDisplay(out, n_rounds=2)
    )
    lines = [line for line in out.getvalue().splitlines() if not line.startswith("[")]
    assert lines == [
        f"{STARTS}3 strategies in 9 turns{SOON}",
        "  zero0       4.0 MiB      32.0 samples/s  loss 1.0000",
        "  zero1  failed: rank 1 failed after step 2: ValueError: mine; see logs/failure.txt",
        f"{STARTS}2 strategies in 6 turns",
        "  zero2       4.0 MiB      32.0 samples/s  loss 1.0000",
        "All turns are over; drawing and writing the report",
    ]
