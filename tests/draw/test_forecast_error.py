import pytest

from orchestrator.draw.forecast_error import forecast_error_figure
from orchestrator.units import MIB
from tests.draw.rankings import failed, many, ranking, row


def foretold(name, mib, **record):
    """Its fullest rank holds 20 MiB."""
    told = None if mib is None else round(mib * MIB)
    return row(name, workers=1, record={"forecast_peak_bytes": told, **record})


def draw(*rows, **settings):
    figure = forecast_error_figure(ranking(*rows, **settings), name="digits")
    assert figure is not None
    return figure, figure.axes[0]


def marks(axes, marker):
    return [line.get_xdata()[0] for line in axes.lines if line.get_marker() == marker]


def words(axes):
    return [text.get_text() for text in axes.texts]


def title(axes):
    return " ".join(axes.get_title(loc="left").split())


def test_a_row_has_both_marks_and_the_error_in_percent():
    _, axes = draw(foretold("high", 21), foretold("low", 19.9), foretold("exact", 20))
    assert marks(axes, "o") == [20, 20, 20]
    assert marks(axes, "D") == pytest.approx([21, 19.9, 20], abs=1e-6)
    assert words(axes) == ["+5.0 %", "-0.5 %", "0 %"]


def test_the_error_is_that_of_the_rank_that_the_forecast_is_of():
    # It held 16 MiB, and was foretold 20.
    _, axes = draw(foretold("zero0", 20, forecast_error_ratio=0.25))
    assert marks(axes, "o") == [16]
    assert words(axes) == ["+25.0 %"]


def test_strategies_without_forecast_or_peak_are_counted():
    never_ran = failed("zero2", "infeasible", forecast_peak_bytes=9)
    _, axes = draw(foretold("zero0", 21), foretold("zero1", None), never_ran)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["zero0"]
    assert "2 strategies without forecast or peak: left out" in title(axes)


def test_without_any_forecast_there_is_no_plot():
    rows = [foretold("zero0", None), failed("zero1")]
    assert forecast_error_figure(ranking(*rows), name="digits") is None


@pytest.mark.parametrize("told", [{}, {"forecast_error_ratio": -1.0}])
def test_a_peak_of_0_is_drawn(told):
    record = {"forecast_peak_bytes": 0, **told}
    _, axes = draw(row("zero0", workers=1, ledger_mib={}, record=record))
    assert marks(axes, "o") == marks(axes, "D") == [0]


@pytest.mark.parametrize(
    "rows",
    [[foretold("zero0", 21)], many(12, name="a-very-long-name-of-a-strategy-{i}-bf16")],
    ids=["1", "12"],
)
def test_words_do_not_overlap(rows, assert_readable):
    figure, _ = draw(*rows)
    assert_readable(figure)
