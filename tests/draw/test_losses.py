import math

import numpy as np
import pytest

from orchestrator.compare.ranking import Sameness
from orchestrator.draw.losses import losses_figure
from orchestrator.draw.style import INK
from tests.draw.rankings import EQUAL, failed, many, ranking, row, verdict

BASE = (2.0, 1.5, 1.25, 1.0)


def strategy(name, *losses, sameness=Sameness.ROUNDING, **knobs):
    told = verdict(sameness, 0.0 if losses == BASE else 0.5)
    return row(name, losses=losses or BASE, loss=told, **knobs)


def equal(name):
    return row(name, losses=BASE, loss=EQUAL)


def draw(*rows, controls=None, **settings):
    ranked = ranking(*rows, **settings)
    figure = losses_figure(ranked, name="digits", controls=controls or {})
    assert figure is not None
    return figure


def curves(axes):
    return {line.get_color(): line.get_ydata().tolist() for line in axes.lines}


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def title(axes):
    return " ".join(axes.get_title(loc="left").split())


def test_losses_lie_over_a_thick_dark_baseline():
    axes = draw(equal("zero0"), strategy("zero2", 2.0, 1.5, 1.5, 1.0)).axes[0]
    base, other = axes.lines
    assert base.get_ydata().tolist() == [2.0, 1.5, 1.25, 1.0]
    assert base.get_xdata().tolist() == [1, 2, 3, 4]
    assert base.get_color() == INK
    assert base.get_linewidth() > 2 * other.get_linewidth()
    assert legend(axes) == ["zero0, baseline", "zero2"]


def test_differences_are_on_a_log_axis_without_equal_steps():
    lower = draw(equal("zero0"), strategy("zero2", 2.0, 1.5, 1.5, 0.5)).axes[1]
    (line,) = lower.lines
    np.testing.assert_array_equal(line.get_ydata(), [np.nan, np.nan, 0.25, 0.5])
    assert lower.get_yscale() == "log"
    low, high = lower.get_ylim()
    assert low < 0.25
    assert high > 0.5


def test_strategies_equal_to_the_last_bit_are_named():
    rows = [equal("zero0"), equal("zero1"), strategy("zero2", 2.0, 1.0), equal("zero3")]
    upper, lower = draw(*rows).axes
    assert "Equal to the last bit: zero1, zero3." in title(lower)
    assert legend(upper) == ["zero0, baseline", "zero2"]


def test_where_all_are_equal_there_is_one_panel_that_says_so():
    figure = draw(equal("zero0"), equal("zero1"), controls={"fp32": (2.0, 1.0)})
    (axes,) = figure.axes
    assert "Equal to the last bit: zero1." in title(axes)


def test_of_very_many_equal_ones_some_are_counted():
    rows = [equal(f"a-strategy-number-{i:02}") for i in range(40)]
    (axes,) = draw(*rows).axes
    # 20 letters each: 16 names have 320, and the baseline is none of them.
    assert "a-strategy-number-16 and 23 more." in title(axes)


def test_controls_shade_what_rounding_does_as_far_as_it_had_come():
    controls = {"fp32": (2.0, 1.625, 1.25, 1.25), "bf16": (2.5, 1.5, 1.25, 1.0)}
    lower = draw(equal("zero0"), strategy("zero2", 2.0, 1.0), controls=controls).axes[1]
    filled = [patch.get_data() for patch in lower.patches if patch.get_fill()]
    # The highest is drawn first, below the others.
    np.testing.assert_array_equal(filled[0].values, [0.5] * 4)
    np.testing.assert_array_equal(filled[1].values, [np.nan, 0.125, 0.125, 0.25])
    assert filled[1].edges.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert legend(lower) == [
        "what rounding alone does\nin bf16, the most so far",
        "what rounding alone does\nin fp32, the most so far",
    ]


def test_a_control_equal_to_the_baseline_is_no_envelope():
    lower = draw(equal("zero0"), strategy("zero2", 2.0, 1.0), controls={"fp32": BASE}).axes[1]
    assert not lower.patches
    assert lower.get_legend() is None


def test_up_to_8_strategies_each_have_a_look():
    rows = [equal("zero0"), *(strategy(f"s{i}", 2.0 + i) for i in range(7))]
    axes = draw(*rows).axes[0]
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == 8
    assert len(legend(axes)) == 8


def test_of_more_only_those_that_are_different_are_told_apart():
    rows = [equal("zero0"), *(strategy(f"s{i}", 2.0, 1.5 + i / 100) for i in range(9))]
    odd = strategy("odd", 2.0, 1.0, sameness=Sameness.DIFFERENT)
    axes = draw(*rows, odd).axes[0]
    assert legend(axes) == ["zero0, baseline", "odd, different", "the other 9"]
    assert len(axes.lines) == 11
    assert len(curves(axes)) == 3


def test_labels_say_what_else_is_to_be_known():
    apart = strategy("bn", 1.0, sameness=Sameness.NOT_COMPARABLE)
    gone = strategy("gone", 1.0, math.nan, outcome="diverged")
    axes = draw(equal("zero0"), apart, gone).axes[0]
    assert set(legend(axes)[1:]) == {"bn\n(need not be equal)", "gone, diverged"}


def test_a_diverged_strategy_does_not_flatten_the_others():
    gone = strategy("gone", 2.0, 1e30, math.inf, math.nan, outcome="diverged")
    axes = draw(equal("zero0"), gone).axes[0]
    assert axes.get_ylim() == (0, 6)
    assert "go up to 1e+30" in title(axes)


def test_without_a_baseline_there_are_no_differences():
    figure = draw(strategy("a", 2.0, 1.0), strategy("b", 1.0), baseline=None)
    (axes,) = figure.axes
    assert legend(axes) == ["a", "b"]


def test_without_any_losses_there_is_no_plot():
    for rows in ([], [failed("zero0")], [row("zero0", losses=(math.nan,))]):
        assert losses_figure(ranking(*rows), name="digits", controls={}) is None


@pytest.mark.parametrize(
    ("rows", "controls"),
    [
        ([row("zero0", losses=(2.0,)), strategy("zero1", 2.5)], {"fp32": (2.0,), "bf16": ()}),
        (
            [
                strategy(f"a-very-long-name-{i}-it-is", 2.0 + i, sameness=Sameness.NOT_COMPARABLE)
                for i in range(8)
            ],
            dict.fromkeys(("fp32", "bf16", "fp16"), (2.5, 1.0)),
        ),
        (
            [
                *many(25, name="a-very-long-name-of-a-strategy-{i}-bf16"),
                *(
                    strategy(f"different-{i}", 3.0 + i, sameness=Sameness.DIFFERENT)
                    for i in range(15)
                ),
                *(equal(f"equal-to-the-last-bit-{i}-with-a-long-name-at-that") for i in range(10)),
            ],
            {"fp32": (2.5, 1.0)},
        ),
    ],
    ids=["1 step", "8 that need not be equal", "50"],
)
def test_words_do_not_overlap(rows, controls, assert_readable):
    assert_readable(draw(*rows, controls=controls))
