"""How sure a speed is: intervals for a throughput and for a ratio of two, on a noisy machine.

Strategies run in rounds (A B C, A B C), so that a slow minute hits all of them. Three things move
a median: steps scatter, neighbouring steps are alike, and a machine drifts between runs. The first
two are found within a round by a block bootstrap. The last shows in how far the rounds are apart;
of so few rounds that is known badly, and it is held against what the scatter of the steps lets one
expect. Pure arithmetic; the same steps give the same bytes.
"""

import math
from collections.abc import Sequence
from statistics import fmean, median, quantiles, variance
from typing import Any

from orchestrator.compare.ranking import Ratio, Throughput

Rounds = Sequence[Sequence[float]]
"""Round -> samples/s in each of its measured steps."""

CONFIDENCE = 0.95
DRIFT_RATIO = 0.5
"""How far the speed of a run drifts, as a share of the scatter of its steps; a guess that the
spread between rounds corrects."""
LEAST_DRIFT = 0.015
"""Relative change of speed from run to run, however quiet the steps are."""
GUESS_WEIGHT = 3
"""Degrees of freedom of that guess: it weighs as much as four rounds would."""
LONE_STEP_SCATTER = 0.1
"""Relative scatter of steps that is assumed where no round has two."""

_FEWEST_RESAMPLES, _MOST_RESAMPLES = 99, 999
_MOST_DRAWN = 5_000_000
"""Steps that one bootstrap draws: of a long run, which is known well, fewer resamples do."""
_MOST_HELD = 2_000_000
"""Steps it holds at once."""
_IQR_OF_NORMAL = 1.349
"""Distance of the quartiles of a normal distribution, in standard deviations."""


def throughput(rounds: Rounds) -> Throughput | None:
    """Median, quartiles and interval of a job's throughput.

    Args:
        rounds: samples/s of each measured step, above 0.

    Returns:
        Over the steps of all rounds. The interval of one round is for these very steps; that of
        several is for what further rounds would give. `None` where no step was measured.
    """
    known = [part for part in rounds if part]
    steps = [step for part in known for step in part]
    if not steps:
        return None
    centre = median(steps)
    first, _, third = quantiles(steps, n=4, method="inclusive") if len(steps) > 1 else steps * 3
    return Throughput(
        samples_per_s=centre,
        quartiles=(first, third),
        interval=_interval_of_one(steps) if len(known) == 1 else _interval_of_many(known, centre),
    )


def ratio_to(rounds: Rounds, baseline_rounds: Rounds) -> Ratio | None:
    """How much faster one strategy is than another.

    Args:
        rounds: samples/s of each measured step, above 0.
        baseline_rounds: of the other; a round of one is held against the same round of the other.

    Returns:
        The geometric mean of the rounds' ratios of medians, and its interval. `None` without a
        round that both have steps of.
    """
    pairs = [pair for pair in zip(rounds, baseline_rounds, strict=False) if all(pair)]
    if not pairs:
        return None
    mine, others = zip(*pairs, strict=True)
    logs = [math.log(median(one) / median(other)) for one, other in pairs]
    drifts = [_drift_variance(side) + LEAST_DRIFT**2 for side in (mine, others)]
    within = _median_variance(mine) + _median_variance(others)
    half = _half_width(logs, guess=within + sum(drifts))
    ratio = math.exp(fmean(logs))
    low, high = ratio * math.exp(-half), ratio * math.exp(half)
    return Ratio(ratio=ratio, interval=(low, high), difference_shown=not low <= 1 <= high)


def _interval_of_one(steps: Sequence[float]) -> tuple[float, float]:
    """Percentiles of the medians that a block bootstrap gives."""
    if min(steps) == max(steps):
        return steps[0], steps[0]
    found = _bootstrap(steps).confidence_interval
    centre = median(steps)
    return min(float(found.low), centre), max(float(found.high), centre)


def _interval_of_many(rounds: Rounds, centre: float) -> tuple[float, float]:
    logs = [math.log(median(part)) for part in rounds]
    half = _half_width(logs, guess=_median_variance(rounds) + _drift_variance(rounds))
    return centre * math.exp(-half), centre * math.exp(half)


def _half_width(logs: Sequence[float], *, guess: float) -> float:
    """Half of the interval of a mean over rounds, whose variance is known badly.

    Args:
        logs: one logarithm a round.
        guess: variance of such a logarithm, by all that is known without the other rounds.

    Source:
        Smyth, Linear models and empirical Bayes methods for assessing differential expression
        (Stat. Appl. Genet. Mol. Biol. 3(1), 2004), section 3: the moderated t-statistic.
    """
    from scipy.stats import t

    free = len(logs) - 1
    between = variance(logs) if free else 0.0
    moderated = (GUESS_WEIGHT * guess + free * between) / (GUESS_WEIGHT + free)
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, GUESS_WEIGHT + free))
    return quantile * math.sqrt(moderated / len(logs))


def _drift_variance(rounds: Rounds) -> float:
    return (DRIFT_RATIO * _scatter(rounds)) ** 2


def _scatter(rounds: Rounds) -> float:
    """Standard deviation of the logarithm of a step's speed, blind to a few slow steps."""
    spreads = []
    for part in rounds:
        if len(part) > 1:
            first, _, third = quantiles(map(math.log, part), n=4, method="inclusive")
            spreads.append((third - first) / _IQR_OF_NORMAL)
    return median(spreads) if spreads else LONE_STEP_SCATTER


def _median_variance(rounds: Rounds) -> float:
    """Variance of the logarithm of a round's median; the mean over the rounds."""
    lone = _scatter(rounds) ** 2
    return fmean(_variance_in_round(part) if len(part) > 1 else lone for part in rounds)


def _variance_in_round(steps: Sequence[float]) -> float:
    if min(steps) == max(steps):
        return 0.0
    n_blocks = len(steps) / _block_length(len(steps))
    error = float(_bootstrap([math.log(step) for step in steps]).standard_error)
    return error**2 * n_blocks / (n_blocks - 1)


def _block_length(n_steps: int) -> int:
    """Steps that are drawn together, so that those alike stay together.

    Source:
        Künsch, The jackknife and the bootstrap for general stationary observations (Ann. Statist.
        17(3), 1989): blocks grow as the cube root of the number of observations.
    """
    return max(1, round(math.cbrt(n_steps)))


def _bootstrap(steps: Sequence[float]) -> Any:
    """Draw blocks of steps, and take the median of as many steps as there are.

    Source:
        Politis and Romano, A circular block-resampling procedure for stationary data (1992): a
        block that reaches the end goes on at the start.
    """
    import numpy as np
    from scipy.stats import bootstrap

    n, length = len(steps), _block_length(len(steps))
    values = np.asarray(steps)

    def median_of_blocks(starts: Any, axis: int = -1) -> Any:
        drawn = starts[..., : math.ceil(n / length), None] + np.arange(length)
        taken = drawn.reshape(*starts.shape[:-1], -1)[..., :n] % n
        return np.median(values[taken], axis=axis)

    return bootstrap(
        (np.arange(n),),
        median_of_blocks,
        n_resamples=min(max(_MOST_DRAWN // n, _FEWEST_RESAMPLES), _MOST_RESAMPLES),
        batch=max(1, _MOST_HELD // n),
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
