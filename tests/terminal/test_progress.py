import io
import subprocess
import sys

import pytest

from orchestrator.measure.sample import Record
from orchestrator.terminal.progress import Display
from tests.launch import records

CHATTER = """
import logging, os, subprocess, sys
from pathlib import Path
from orchestrator.terminal.voice import Voice, said_aloud

voice = Voice()
with said_aloud(voice, verbose=False):
    with voice.libraries_write_to(Path(sys.argv[1]) if len(sys.argv) > 1 else None):
        print("a library prints")
        os.write(1, b"C++ prints\\n")
        subprocess.run(["sh", "-c", "echo a child prints; echo a child warns >&2"])
        logging.getLogger("library").warning("a library warns")
        print("progress", file=voice.out)
        voice.note("stopping")
        logging.getLogger("orchestrator.track").warning("tracking fails")
        logging.getLogger("orchestrator.track").info("a detail")
    print("result", file=voice.out)
"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Closed(io.StringIO):
    def __init__(self, *, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def write(self, _text):
        raise BrokenPipeError(32, "Broken pipe")


def shown(out, told):
    display = Display(out)
    for record in told:
        display.show(record)
    display.close()
    return out.getvalue()


def run_of(n_steps, *, world_size=2):
    yield from (records.facts(rank, world_size=world_size, total_steps=n_steps) for rank in (0, 1))
    for step in range(1, n_steps + 1):
        for rank in range(world_size):
            yield records.sample(rank, step=step, loss=float(rank))


def test_where_nobody_watches_lines_are_seconds_apart():
    lines = shown(io.StringIO(), run_of(1000)).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Rank 0 of 2 is ready on node-a (cpu): 1,442 samples to train on")
    # Losses 0 and 1, and 2 x 8 samples in half a second; 999 steps of it are left.
    assert lines[1] == "step    1/1000  loss 0.5000  32.0 samples/s  8 min 19 s left"


def test_on_a_terminal_one_line_changes_and_the_last_stays():
    text = shown(Terminal(), run_of(3))
    assert text.count("\r\x1b[2Kstep") == 3
    assert text.endswith("step 3/3  loss 0.5000  32.0 samples/s  0 ms left\n")


def test_an_evaluation_does_not_overwrite_the_line_that_changes():
    told = [*run_of(2), records.evaluation(2)]
    lines = shown(Terminal(), told).split("\n")
    assert lines[-2] == "Evaluation after step 2: loss 0.2500, accuracy 97.75%"
    assert lines[-3].endswith("step 2/2  loss 0.5000  32.0 samples/s  0 ms left")


def test_a_step_is_shown_when_its_last_rank_has_told():
    told = [records.facts(0), records.facts(1), records.sample(1, step=1)]
    assert "step 1/4" not in shown(Terminal(), told)
    assert "step 1/4" in shown(Terminal(), [*told, records.sample(0, step=1)])


def test_a_step_that_was_traced_does_not_slow_the_rate_shown():
    traced = [records.sample(rank, step=2, step_s=100.0, probe=True) for rank in (0, 1)]
    told: list[Record] = [records.facts(rank, total_steps=3) for rank in (0, 1)]
    told += [records.sample(rank, step=1) for rank in (0, 1)]
    last = shown(Terminal(), [*told, *traced]).split("\r\x1b[2K")[-1]
    assert last == "step 2/3  loss 2.0000  32.0 samples/s  500 ms left\n"


def test_a_loss_without_accuracy_is_shown_alone():
    text = shown(io.StringIO(), [records.evaluation(7, accuracy=None)])
    assert text == "Evaluation after step 7: loss 0.2500\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_reader_that_went_away_does_not_end_the_run(terminal):
    out = Closed(terminal=terminal)
    assert shown(out, [*run_of(3), records.evaluation(3)]) == ""


def test_libraries_talk_into_a_file_and_the_voice_to_the_terminal(tmp_path):
    command = [sys.executable, "-c", CHATTER, str(tmp_path / "logs" / "driver.log")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "progress\nresult\n"
    assert done.stderr == "stopping\nWARNING: tracking fails\n"
    kept = (tmp_path / "logs" / "driver.log").read_text().splitlines()
    assert sorted(kept) == [
        "C++ prints",
        "a child prints",
        "a child warns",
        "a library prints",
        "a library warns",
    ]


def test_without_a_file_libraries_talk_to_the_terminal():
    done = subprocess.run(
        [sys.executable, "-c", CHATTER], capture_output=True, text=True, check=True
    )
    assert "C++ prints" in done.stdout
    assert "a child warns" in done.stderr
