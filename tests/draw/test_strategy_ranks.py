import numpy as np
import pytest

from orchestrator.draw.strategy_ranks import strategy_ranks_figure
from tests.draw.rankings import failed, many, ranking, row


def draw(*rows, **settings):
    figure = strategy_ranks_figure(ranking(*rows, **settings), name="digits")
    assert figure is not None
    axes, scale = figure.axes
    return figure, axes, scale


def words(axes):
    return [text.get_text() for text in axes.texts]


def title(axes):
    return " ".join(axes.get_title(loc="left").split())


def test_a_cell_is_the_peak_of_a_rank():
    _, axes, scale = draw(row("zero0"), row("zero2", ledger_mib={"params": 10}))
    # Rank 1 has 1 MiB of temporaries more than rank 0.
    np.testing.assert_array_equal(axes.images[0].get_array(), [[20, 21], [10, 11]])
    assert words(axes) == ["20.0", "21.0", "10.0", "11.0"]
    assert scale.get_ylabel() == "peak memory, MiB"


def test_ranks_that_a_strategy_has_not_are_blank():
    figure, axes, _ = draw(row("two"), row("one", workers=1))
    mask = np.ma.getmaskarray(axes.images[0].get_array())
    np.testing.assert_array_equal(mask, [[False, False], [False, True]])
    assert figure.legends[0].get_texts()[0].get_text() == "no such rank, or its peak is unknown"
    assert len(words(axes)) == 3


def test_values_are_dark_on_light_and_light_on_dark():
    _, axes, _ = draw(row("a", workers=1), row("b", workers=1, ledger_mib={"params": 1}))
    assert [text.get_color() for text in axes.texts] == ["#222222", "white"]


@pytest.mark.parametrize(("n_strategies", "n_ranks"), [(2, 9), (13, 2)])
def test_many_cells_are_not_written_into_but_their_range_is_beside(n_strategies, n_ranks):
    _, axes, _ = draw(*many(n_strategies, n_ranks=n_ranks))
    assert len(axes.texts) == n_strategies
    assert words(axes)[0] == f"70.0 to {70 + n_ranks - 1}.0"


def test_strategies_that_failed_are_left_out():
    _, axes, _ = draw(row("zero0"), failed("zero1"))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["zero0"]
    assert "1 strategy without a peak: left out" in title(axes)


def test_without_any_peak_there_is_no_plot():
    assert strategy_ranks_figure(ranking(failed("zero0")), name="digits") is None


def test_equal_peaks_are_drawn():
    _, axes, _ = draw(row("a", workers=1, ledger_mib={}), row("b", workers=1, ledger_mib={}))
    low, high = axes.images[0].get_clim()
    assert low == 0 < high


@pytest.mark.parametrize(("n_strategies", "n_ranks"), [(1, 1), (6, 8), (30, 64)])
def test_words_do_not_overlap(n_strategies, n_ranks, assert_readable):
    rows = many(n_strategies, n_ranks=n_ranks, name="a-very-long-name-of-a-strategy-{i}-bf16")
    figure, _, _ = draw(*rows)
    assert_readable(figure)
