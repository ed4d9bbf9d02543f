import math
from functools import cache
from typing import Any

import numpy as np
import pytest

from orchestrator.compare.ranking import Sameness
from orchestrator.compare.same_loss import furthest_apart, same_loss
from tests.compare.made_up import entry

STEPS, BATCH, LR = 40, 32, 0.2
# How often the chain of a float32's digits is cut short, and what is left of them.
KEPT_BITS = {"fp32": 24, "fp16": 11, "bf16": 8}


def rounded(values, precision):
    """Values with only as many binary digits as a precision keeps."""
    mantissa, exponent = np.frexp(values)
    scale = 2.0 ** KEPT_BITS[precision]
    return np.ldexp(np.round(mantissa * scale) / scale, exponent).astype(np.float32)


@cache
def trained(  # noqa: PLR0913 - each is one way to train, right or wrong
    *,
    precision="fp32",
    micro_batch=BATCH,
    lr=LR,
    divided_again=1,
    ranks_counted=1.0,
    shift=0,
    changed_by=None,
    steps=STEPS,
):
    """Losses of a network with one hidden layer, trained in float32 with numpy.

    The sums of a step are taken over micro-batches, so that another size adds up in another order.

    Args:
        divided_again: what the gradient is divided by once too often.
        ranks_counted: share of the batch whose gradients are used.
        shift: samples by which the order of the data is moved on.
        changed_by: precision, of whose last place the first weights are changed by one unit.
    """
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((256, 8)).astype(np.float32)
    labels = (np.sin(inputs[:, 0] * 2) + inputs[:, 1] * inputs[:, 2] > 0).astype(np.float32)
    weights = [0.5 * rng.standard_normal(shape).astype(np.float32) for shape in ((8, 16), (16, 1))]
    if changed_by is not None:
        signs = np.random.default_rng(1)
        unit = 2.0 ** (1 - KEPT_BITS[changed_by])
        weights = [
            (w + signs.choice([-1, 1], w.shape) * unit * 2.0 ** np.floor(np.log2(abs(w)))).astype(
                np.float32
            )
            for w in weights
        ]
    losses = []
    for step in range(steps):
        taken = (np.arange(BATCH) + step * BATCH + shift) % len(inputs)
        total, sums = np.float32(0), [np.zeros_like(w) for w in weights]
        for start in range(0, BATCH, micro_batch):
            rows = taken[start : start + micro_batch]
            loss, grads = loss_and_gradients(weights, inputs[rows], labels[rows], precision)
            total += loss
            if start < BATCH * ranks_counted:
                sums = [before + grad for before, grad in zip(sums, grads, strict=True)]
        losses.append(float(total / np.float32(BATCH)))
        rate = np.float32(lr / (BATCH * ranks_counted * divided_again))
        weights = [w - rate * g for w, g in zip(weights, sums, strict=True)]
    return tuple(losses)


def loss_and_gradients(weights, inputs, labels, precision):
    """Sums over a micro-batch, of logistic loss and its gradients."""
    first, second = (rounded(w, precision) for w in weights)
    hidden = rounded(np.maximum(inputs @ first, 0), precision)
    logits = rounded((hidden @ second)[:, 0], precision)
    loss = np.sum(np.logaddexp(np.float32(0), logits) - labels * logits, dtype=np.float32)
    error = (1 / (1 + np.exp(-logits)) - labels)[:, None]
    back = rounded(error @ second.T, precision) * (hidden > 0)
    return loss, (inputs.T @ back, hidden.T @ error)


def controls(*precisions):
    return {precision: trained(changed_by=precision) for precision in precisions}


def verdict(losses, *, baseline=None, precision="fp32", against=None):
    job = {"training": {"precision": precision}}
    return same_loss(
        entry("mine", losses=losses, job=job),
        entry("zero0", losses=trained() if baseline is None else baseline),
        controls=controls("fp32", "fp16", "bf16") if against is None else against,
    )


WRONG: dict[str, Any] = {
    "a rate that is 1 % too large": {"lr": 1.01 * LR},
    "a rate that is 1 % too small": {"lr": 0.99 * LR},
    "a loss divided twice by the accumulation": {"micro_batch": 8, "divided_again": 4},
    "gradients of one rank of two": {"micro_batch": 16, "ranks_counted": 0.5},
    "gradients of three ranks of four": {"micro_batch": 8, "ranks_counted": 0.75},
    "another order of the data": {"shift": 32},
    "data that are one sample off": {"shift": 1},
}


def test_the_tiny_training_learns_and_feels_rounding():
    losses = trained()
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert trained(micro_batch=4) != losses


def test_equal_losses_are_bitwise_equal():
    found = verdict(trained())
    assert (found.sameness, found.max_difference, found.at_step) == (Sameness.BITWISE, 0.0, 1)
    assert found.reason == ""


def test_losses_that_are_no_numbers_in_the_same_step_are_equal():
    losses = (2.0, math.nan, math.inf)
    assert verdict(losses, baseline=losses).sameness is Sameness.BITWISE


def test_a_loss_that_is_no_number_where_the_baseline_has_one_is_different():
    found = verdict((2.0, math.nan, 1.0), baseline=(2.0, 1.5, 1.0), against={})
    assert (found.sameness, found.at_step) == (Sameness.DIFFERENT, 2)
    assert found.max_difference == math.inf


@pytest.mark.parametrize("against", [None, {}])
@pytest.mark.parametrize("micro_batch", [1, 2, 4, 8, 16])
def test_another_order_of_additions_is_rounding(micro_batch, against):
    found = verdict(trained(micro_batch=micro_batch), against=against)
    assert found.sameness is Sameness.ROUNDING
    assert found.max_difference is not None
    assert found.max_difference > 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("micro_batch", [4, 32])
def test_a_coarser_precision_is_rounding(precision, micro_batch):
    losses = trained(precision=precision, micro_batch=micro_batch)
    assert verdict(losses, precision=precision).sameness is Sameness.ROUNDING


def test_losses_of_bf16_are_not_those_of_fp32():
    assert verdict(trained(precision="bf16")).sameness is Sameness.DIFFERENT


@pytest.mark.parametrize("against", [None, {}])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_changes_the_training_is_different(wrong, against):
    assert verdict(trained(**WRONG[wrong]), against=against).sameness is Sameness.DIFFERENT


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("wrong", [name for name in WRONG if "1 %" not in name])
def test_what_changes_the_training_is_different_in_a_coarser_precision(wrong, precision):
    losses = trained(precision=precision, **WRONG[wrong])
    assert verdict(losses, precision=precision).sameness is Sameness.DIFFERENT


def test_the_first_step_beyond_rounding_is_named():
    losses = list(trained())
    losses[4] += 0.25
    losses[9] -= 0.5
    found = verdict(tuple(losses))
    assert found.reason.startswith("0.25 apart at step 5, rounding explains ")
    assert (found.max_difference, found.at_step) == (pytest.approx(0.5), 10)


def test_differences_may_grow_as_the_control_grows_and_no_further():
    baseline, control = (1.0,) * 8, tuple(1.0 + 1e-7 * 4**n for n in range(8))
    as_control = tuple(1.0 - 1e-7 * 4**n for n in range(8))
    at_once = (1.0, 1.0 + 1e-7 * 4**7, *baseline[2:])
    known = {"fp32": control}
    assert verdict(as_control, baseline=baseline, against=known).sameness is Sameness.ROUNDING
    assert verdict(at_once, baseline=baseline, against=known).sameness is Sameness.DIFFERENT


def test_only_the_steps_that_the_control_has_are_judged():
    short = {"fp32": trained()[:10]}
    late, early = list(trained()), list(trained())
    late[20] += 1.0
    early[8] += 1.0
    found = verdict(tuple(late), against=short)
    assert (found.sameness, found.reason) == (Sameness.ROUNDING, "over the first 10 steps")
    assert (found.max_difference, found.at_step) == (pytest.approx(1.0), 21)
    assert verdict(tuple(early), against=short).sameness is Sameness.DIFFERENT


def test_without_a_control_only_the_early_steps_are_judged():
    late = list(trained())
    late[30] += 1.0
    found = verdict(tuple(late), against={})
    # 64 x 2**-24 x 2**n is up to 1 % until n = 11.
    assert found.reason == "judged by the first 11 steps; no control run"
    assert found.sameness is Sameness.ROUNDING


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_without_a_control_a_coarse_precision_is_not_judged(precision):
    losses = trained(precision=precision)
    found = verdict(losses, precision=precision, against=controls("fp32"))
    assert found.sameness is Sameness.UNKNOWN
    assert f"no control run in {precision}" in found.reason


@pytest.mark.parametrize("n_steps", [1, 39])
def test_a_run_that_stopped_early_is_judged_by_the_steps_it_has(n_steps):
    equal, other = verdict(trained()[:n_steps]), verdict(trained(micro_batch=4)[:n_steps])
    assert equal.sameness is other.sameness is Sameness.ROUNDING
    assert equal.reason.startswith(f"has {n_steps} of the baseline's 40 steps")
    assert other.reason.startswith(f"has {n_steps} of the baseline's 40 steps")
    assert equal.max_difference == 0.0


def test_a_wrong_run_that_stopped_early_is_different():
    found = verdict(trained(lr=1.01 * LR)[:5])
    assert found.sameness is Sameness.DIFFERENT
    assert "has 5 of the baseline's 40 steps" in found.reason


def test_skipped_steps_are_told_where_losses_differ():
    mine = entry("mine", losses=trained(lr=2 * LR), record={"skipped_steps": 3})
    found = same_loss(mine, entry("zero0", losses=trained()), controls={})
    assert "it skipped 3 steps, the baseline 0" in found.reason


def test_without_losses_there_is_nothing_to_compare():
    silent, loud = entry("a", losses=()), entry("b")
    assert same_loss(silent, loud, controls={}).reason == "no losses of a"
    assert same_loss(loud, silent, controls={}).reason == "no losses of a"
    assert same_loss(silent, entry("c", losses=()), controls={}).reason == "no losses of a and c"
    found = same_loss(silent, silent, controls={})
    assert (found.sameness, found.max_difference, found.at_step) == (Sameness.UNKNOWN, None, None)


def test_another_training_is_not_comparable_and_the_difference_is_told():
    other = entry("b", losses=(2.0, 1.0), job={"training": {"seed": 1}})
    found = same_loss(other, entry("a", losses=(2.0, 1.5)), controls={})
    assert found.sameness is Sameness.NOT_COMPARABLE
    assert (found.max_difference, found.at_step) == (0.5, 2)
    assert found.reason == "another training.seed"


def test_of_several_controls_the_furthest_counts_in_each_step():
    still, early, late = (1.0, 1.0, 1.0, 1.0), (1.0, 0.5, 1.0), (1.0, 1.1, 1.4)
    assert furthest_apart((1.0,) * 5, (still, early, late)) == (1.0, 0.5, 1.4, 1.0)
    assert furthest_apart((1.0, 1.0), (still, early, late)) == (1.0, 0.5)
    assert furthest_apart((1.0, 1.0), ()) == ()
