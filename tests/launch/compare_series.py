"""`compare` given as a person gives it, command after command: well, broken, stopped, isolated."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.launch.command import JOB, Command, write_users_job

WELL = """
name: well
model: {family: mlp}
data: {source: digits, image_size: 8}
training: {steps: 8, global_batch_size: 32, micro_batch_size: 8}
zero: {stage: 1}
resources: {workers: 2, device: cpu, cpus_per_worker: 0.5}
tracking: {experiment: tests}
compare:
  rounds: 2
  round_steps: 3
  variants:
    - {name: zero0, zero.stage: 0}
    - {name: zero2, zero.stage: 2}
    - {name: fast, training.optimizer.lr: 0.01}
    - {name: too-big, resources.memory_budget_gib: 0.00001}
"""
BROKEN = (
    JOB.replace("steps: 20", "steps: 12")
    + """
compare:
  rounds: 2
  round_steps: 4
  hang_timeout_s: 6
  variants:
    - {name: well}
    - {name: mistake, model.config: {mode: mistake, at: 5}}
    - {name: memory, model.config: {mode: memory, at: 5}}
    - {name: killed, model.config: {mode: killed, at: 5}}
    - {name: hangs, model.config: {mode: hang, at: 5}}
    - {name: diverges, data.config: {poisoned: 40}}
    - {name: too-many, resources.workers: 50, training.global_batch_size: 200}
    - {name: alone, resources.workers: 1}
"""
)
STOPPED = (
    JOB.replace("steps: 20", "steps: 30")
    + """
compare:
  rounds: 2
  round_steps: 10
  variants:
    - {name: a}
    # Slow enough to be met in the middle.
    - {name: b, model.config: {step_s: 0.2}}
    - {name: c, training.seed: 1}
"""
)
NOTHING_FITS = JOB.replace("batch_size: 8", "batch_size: 200").replace("workers: 2", "workers: 50")
NOTHING_FITS += """
compare: {variants: [{name: a}, {name: b, training.seed: 1}]}
"""


@dataclass(kw_only=True)
class Series:
    """Commands given one after another in one state folder."""

    folder: Path
    commands: list[Command] = field(default_factory=list)
    left: list[object] = field(default_factory=list)
    """Processes and files that were there the moment a command had ended."""
    spools: dict[str, float] = field(default_factory=dict)
    """Spool -> when it was last written, as the last command began."""

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def command(self) -> Command:
        """The last one."""
        return self.commands[-1]

    @property
    def comparison(self) -> Path:
        """The folder of the newest comparison."""
        return sorted((self.home / "comparisons").iterdir())[-1]

    def told(self) -> dict[str, float]:
        """Spool -> when it was last written."""
        found = self.comparison.glob("*/**/records.jsonl")
        return {str(path.relative_to(self.comparison)): path.stat().st_mtime for path in found}

    def has_told(self, strategy: str) -> bool:
        """Whether ranks have told something of a turn of the newest comparison."""
        return any(self.home.glob(f"comparisons/*/strategies/{strategy}/records.jsonl"))

    def compare(
        self,
        *options: str,
        until_it_ends: Callable[[Command], Any] = lambda command: command.wait(timeout_s=240),
    ) -> None:
        self.spools = self.told() if (self.home / "comparisons").is_dir() else {}
        job = self.folder / "job.yaml"
        # Where nobody changes a module meanwhile.
        self.commands.append(
            Command("compare", job, "--json", *options, home=self.home, cwd=self.folder)
        )
        until_it_ends(self.command)
        if self.command.exit_code == -signal.SIGKILL:
            # It could not take its Ray with it, of which two agents stay for a minute.
            self.command.end()
        else:
            self.left += [*self.command.left_running(), *self.command.left_behind()]


def well(series: Series) -> None:
    """In turns, and then two of the strategies again, each in processes of its own."""
    (series.folder / "job.yaml").write_text(WELL)
    series.compare()
    two = "compare.variants=[{name: zero0, zero.stage: 0}, {name: zero2, zero.stage: 2}]"
    series.compare("--isolate", "--set", "compare.rounds=1", "--set", two)


def broken(series: Series) -> None:
    (series.folder / "job.yaml").write_text(BROKEN)
    series.compare("--no-forecast")


def stopped(series: Series) -> None:
    """Ctrl-C in the first round, SIGKILL in the second, and then to the end."""
    (series.folder / "job.yaml").write_text(STOPPED)

    def press(command: Command) -> None:
        command.wait_until(lambda: series.has_told("01-b"))
        command.signal_group(signal.SIGINT)
        command.wait(timeout_s=60)

    def kill(command: Command) -> None:
        command.wait_until(lambda: series.has_told("01-b.2/rounds/2"))
        os.kill(command.process.pid, signal.SIGKILL)
        command.wait(timeout_s=10)

    series.compare("--no-forecast", until_it_ends=press)
    series.compare("--no-forecast", until_it_ends=kill)
    series.compare("--no-forecast")


def nothing_fits(series: Series) -> None:
    (series.folder / "job.yaml").write_text(NOTHING_FITS)
    series.compare("--no-forecast")


WAYS = {way.__name__: way for way in (broken, well, stopped, nothing_fits)}


def run(way: Callable[[Series], None], folder: Path) -> Series:
    write_users_job(folder)
    series = Series(folder=folder)
    try:
        way(series)
    except BaseException:
        for command in series.commands:
            command.close()
        raise
    return series
