import numpy as np
import pytest

from orchestrator.draw.heat_map import (
    MAX_COLUMNS,
    MAX_RANK_LABELS,
    PEAK_MEMORY,
    heat_map_figure,
)
from orchestrator.draw.rank_grid import RankGrid
from orchestrator.draw.style import BLANK
from orchestrator.units import MIB


def grid(*rows):
    return RankGrid(steps=range(1, len(rows[0]) + 1), ranks=range(len(rows)), values=rows)


def many(n_ranks, n_steps):
    return grid(*([[0.1 + rank / 1000] * n_steps for rank in range(n_ranks)]))


def draw(told, **settings):
    figure = heat_map_figure(told, name="resnet-zero2", **settings)
    assert figure is not None
    axes, scale = figure.axes
    return figure, axes, scale


def cells(axes):
    return axes.images[0].get_array()


def seen_labels(axis):
    low, high = sorted(axis.get_view_interval())
    places = axis.get_majorticklocs()
    return [place for place in places if low <= place <= high]


def test_cells_are_the_step_times_in_ms():
    _, axes, scale = draw(grid([0.1, 0.2], [0.15, 0.25]))
    np.testing.assert_allclose(cells(axes), [[100, 200], [150, 250]])
    assert tuple(axes.images[0].get_extent()) == (0.5, 2.5, 1.5, -0.5)
    assert scale.get_ylabel() == "step time, ms"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rank 0", "rank 1"]


def test_cells_of_probe_steps_are_blank():
    figure, axes, _ = draw(grid([0.1, None, 0.1], [0.1, None, None]))
    np.testing.assert_array_equal(
        np.ma.getmaskarray(cells(axes)), [[False, True, False], [False, True, True]]
    )
    # 217 of 255 is D9.
    assert axes.images[0].cmap.get_bad() == pytest.approx([217 / 255] * 3 + [1])
    assert BLANK == "#D9D9D9"
    assert figure.legends[0].get_texts()[0].get_text() == "probe step, or not reported"


def test_without_blank_cells_nothing_speaks_of_them():
    figure, _, _ = draw(grid([0.1, 0.2]))
    assert not figure.legends


def test_one_slow_step_does_not_make_all_others_alike():
    _, axes, scale = draw(grid([9.0, 0.1, 0.1, 0.11, 0.1]))
    assert axes.images[0].get_clim() == pytest.approx((100, 200))
    assert "the most is 9,000.0 ms" in axes.get_title(loc="left")
    assert scale.get_ylim() == pytest.approx((100, 200))


def test_another_quantity_has_its_own_name_and_unit():
    figure, axes, scale = draw(grid([3 * MIB, 4 * MIB]), quantity=PEAK_MEMORY)
    assert cells(axes).tolist() == [[3, 4]]
    assert scale.get_ylabel() == "peak memory, MiB"
    assert figure.get_suptitle() == "Peak memory by rank and step · resnet-zero2"


def test_many_steps_become_columns_of_medians():
    _, axes, _ = draw(many(2, 10_000))
    assert cells(axes).shape == (2, MAX_COLUMNS)
    assert axes.get_xlim() == (0.5, 10_000.5)
    assert "the median of 25 steps" in axes.get_title(loc="left")


def test_64_ranks_have_labels_that_can_be_read():
    figure, axes, _ = draw(many(64, 50))
    assert cells(axes).shape == (64, 50)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) <= MAX_RANK_LABELS
    assert labels[:2] == ["rank 0", "rank 4"]
    # A row is at least seven pixels high, so that it is seen.
    figure.draw_without_rendering()
    assert axes.get_window_extent().height / 64 >= 7


def test_steps_are_whole_numbers():
    _, axes, _ = draw(many(1, 3))
    assert seen_labels(axes.xaxis) == [1, 2, 3]


@pytest.mark.parametrize("value", [0.1, 0.0])
def test_equal_values_are_drawn(value):
    _, axes, _ = draw(grid([value, value]))
    low, high = axes.images[0].get_clim()
    assert low == value * 1e3 < high


def test_a_grid_without_any_known_value_is_no_plot():
    assert heat_map_figure(grid([None, None]), name="run") is None


@pytest.mark.parametrize("n_ranks", [1, 2, 16, 64])
def test_words_do_not_overlap(n_ranks, assert_readable):
    told = many(n_ranks, 100)
    told.values[0][:3] = [9.0, None, None]
    figure, _, _ = draw(told)
    assert_readable(figure)
