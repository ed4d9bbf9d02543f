"""The stints of a comparison: whose turn it is, in which round, and how much of it is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.compare.same_loss import ROUNDOFF, furthest_apart
from orchestrator.launch.base import Launch, group_key, rank_environment
from orchestrator.launch.comparison.contestant import FIRST_ROUND, Contestant
from orchestrator.launch.comparison.folder import ComparisonFolder
from orchestrator.launch.comparison.told import is_whole, tally_of
from orchestrator.plan.extent import WHOLE, Extent
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.spec.sections import CompareSection

CONTROL_STEPS = 16
"""Steps that a control takes: by then rounding is as large as it gets, and judges no more."""
N_CONTROLS = 3
"""Of each precision. One alone may by chance be the one whose bits fall well: of a small network
under AdamW it called one same training in three different, three called none so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stint:
    """One turn of one strategy, or of a control."""

    contestant: Contestant
    """The strategy; of a control the baseline."""
    round: int
    """From 1; 0 is a control."""
    plan: LaunchPlan
    folder: Path
    extent: Extent
    n_steps: int
    """About how many steps it takes, for the time left."""

    @property
    def is_control(self) -> bool:
        """Whether it is the baseline from weights moved by a bit."""
        return self.round == 0

    def clear(self) -> None:
        """Remove what an earlier command has left half-done."""
        for file in (self.folder / "records.jsonl", *(self.folder / "logs").glob("*")):
            if file.is_file():
                file.unlink()

    def launch(self, compare: CompareSection, *, extensions: Path) -> Launch:
        """What a launcher needs to run it."""
        return Launch(
            plan=self.plan,
            spool_path=self.folder / "records.jsonl",
            log_folder=self.folder / "logs",
            rank_environment=rank_environment(self.plan, extensions=extensions),
            # The driver looks first: it sees which rank it is.
            collective_timeout_s=compare.hang_timeout_s + 30,
            extent=self.extent,
        )


def stints_of(contestants: Sequence[Contestant], compare: CompareSection) -> list[list[Stint]]:
    """Everything that is missing, in the order in which it is run.

    Returns:
        A list for each group of ranks; in it round after round, and in a round every strategy.
    """
    groups: dict[tuple[object, ...], list[Contestant]] = {}
    for one in contestants:
        if one.missing_rounds():
            groups.setdefault(group_key(one.planned.plan), []).append(one)
    return [
        [
            _stint(one, number, compare)
            for number in range(FIRST_ROUND, compare.rounds + 1)
            for one in members
            if number in one.missing_rounds()
        ]
        for members in groups.values()
    ]


def controls_of(
    baseline: Contestant, others: Sequence[Contestant], *, folder: ComparisonFolder
) -> list[Stint]:
    """The baseline again, from weights moved by a bit.

    Args:
        baseline: the strategy.
        others: what is compared with it; the coarser precision of the two says how large a bit is.
        folder: of the comparison.

    Returns:
        Those that are not there yet.
    """
    plan = baseline.planned.plan
    own = plan.spec.training.precision
    theirs = {one.planned.plan.spec.training.precision for one in others if one is not baseline}
    coarser = {max(own, other, key=lambda name: ROUNDOFF[name]) for other in theirs}
    n_steps = min(CONTROL_STEPS, _n_steps(plan))
    return [
        stint
        for precision in sorted(coarser)
        for number in range(N_CONTROLS)
        if not is_whole((stint := _control(baseline, precision, number, n_steps, folder)).folder)
    ]


def control_losses(
    folder: ComparisonFolder, *, baseline_losses: Sequence[float]
) -> dict[str, tuple[float, ...]]:
    """Precision -> losses of the controls: in each step, of the one that is furthest away."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for path in folder.controls():
        if is_whole(path):
            record = tally_of(path).record(name=path.name, outcome="ok", started_unix_s=None)
            found.setdefault(path.name.partition("-")[0], []).append(record.losses)
    return {
        precision: furthest_apart(baseline_losses, controls)
        for precision, controls in found.items()
    }


def alone(stints: Sequence[Stint]) -> list[list[Stint]]:
    """Each in a group of its own, but controls in one: of those nothing is measured."""
    controls = [stint for stint in stints if stint.is_control]
    alone = [[stint] for stint in stints if not stint.is_control]
    return [*alone, controls] if controls else alone


def can_follow(stints: Sequence[Stint], before: Sequence[Stint]) -> bool:
    """Whether what ran these can run those."""
    return group_key(stints[0].plan) == group_key(before[0].plan)


def _control(
    baseline: Contestant, precision: str, number: int, n_steps: int, folder: ComparisonFolder
) -> Stint:
    return Stint(
        contestant=baseline,
        round=0,
        plan=baseline.planned.plan,
        folder=folder.control(precision, number),
        extent=Extent(
            n_steps=n_steps,
            closely=False,
            weights_off_by=2 * ROUNDOFF[precision],
            off_seed=number,
        ),
        n_steps=n_steps,
    )


def _stint(one: Contestant, number: int, compare: CompareSection) -> Stint:
    plan = one.planned.plan
    n_all = _n_steps(plan)
    later = Extent(n_steps=compare.round_steps, closely=False)
    return Stint(
        contestant=one,
        round=number,
        plan=plan,
        folder=one.round_folder(number),
        extent=WHOLE if number == FIRST_ROUND else later,
        n_steps=n_all if number == FIRST_ROUND else min(compare.round_steps, n_all),
    )


def _n_steps(plan: LaunchPlan) -> int:
    """Optimizer steps; of a run counted in epochs a guess."""
    return plan.spec.training.steps or 100
