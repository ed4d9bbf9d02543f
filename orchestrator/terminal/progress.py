"""A run's progress, as lines worth showing."""

from dataclasses import dataclass, field
from typing import TextIO

from orchestrator.measure.sample import EvalResult, RankFacts, RankSample, Record
from orchestrator.terminal.lines import StatusLines
from orchestrator.units import as_duration


@dataclass(slots=True)
class Progress:
    """Turns records into lines worth showing; keeps only the newest."""

    total_steps: int = 0
    world_size: int = 1
    _losses: dict[int, dict[int, float]] = field(default_factory=dict)
    _rates: list[float] = field(default_factory=list)

    def line(self, record: Record) -> str | None:
        """A line for a record that is worth one; else `None`."""
        if isinstance(record, RankFacts):
            self.total_steps, self.world_size = record.total_steps, record.world_size
            if record.rank:
                return None
            startup = ", ".join(f"{part} {s:.1f}" for part, s in record.startup_s.items())
            return (
                f"Rank 0 of {record.world_size} is ready on {record.node} ({record.device}): "
                f"{record.n_train_samples:,} samples to train on, {record.n_eval_samples:,} to "
                f"evaluate on (seconds: {startup})"
            )
        if isinstance(record, EvalResult):
            accuracy = "" if record.accuracy is None else f", accuracy {record.accuracy:.2%}"
            return f"Evaluation after step {record.step}: loss {record.loss:.4f}{accuracy}"
        return None

    def step(self, record: RankSample) -> str | None:
        """The state of the run once every rank has reported a step."""
        losses = self._losses.setdefault(record.step, {})
        losses[record.rank] = record.loss
        if record.rank == 0 and not record.probe:
            self._rates = [*self._rates[-19:], record.step_s]
        if len(losses) < self.world_size:
            return None
        del self._losses[record.step]
        mean_loss = sum(losses.values()) / len(losses)
        width = len(str(self.total_steps))
        text = f"step {record.step:>{width}}/{self.total_steps}  loss {mean_loss:.4f}"
        if self._rates:
            step_s = sorted(self._rates)[len(self._rates) // 2]
            rate = record.n_samples * self.world_size / step_s
            left = as_duration((self.total_steps - record.step) * step_s)
            text += f"  {rate:,.1f} samples/s  {left} left"
        return text


class Display:
    """Progress on a terminal as one line that changes, elsewhere as a line every few seconds."""

    def __init__(self, out: TextIO) -> None:
        self._lines = StatusLines(out)
        self._progress = Progress()

    def show(self, record: Record) -> None:
        """Show what a record tells, if it is worth a line now."""
        if isinstance(record, RankSample):
            line = self._progress.step(record)
            if line is not None:
                self._lines.update(line)
        else:
            line = self._progress.line(record)
            if line is not None:
                self._lines.say(line)

    def close(self) -> None:
        """Leave the last line standing."""
        self._lines.close()
