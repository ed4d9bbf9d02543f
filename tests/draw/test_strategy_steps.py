import pytest

from orchestrator.draw.strategy_steps import strategy_steps_figure
from tests.draw.rankings import failed, many, ranking, row, with_times

PARTS = {"data": 0.001, "forward": 0.022, "backward": 0.1, "optimizer": 0.008, "logging": 0.002}
"""133 ms."""


def draw(*rows, **settings):
    figure = strategy_steps_figure(ranking(*rows, **settings), name="digits")
    assert figure is not None
    return figure, figure.axes[0]


def timed(name, median, **parts):
    return with_times(row(name), median=median, **(parts or PARTS))


def ends(axes):
    """Ends of the patches of each row, in ms."""
    rows: dict[int, list[float]] = {}
    for patch in axes.patches:
        middle = round(patch.get_y() + patch.get_height() / 2)
        rows.setdefault(middle, []).append(patch.get_x() + patch.get_width())
    return list(rows.values())


def words(axes):
    return [text.get_text() for text in axes.texts]


def title(axes):
    return " ".join(axes.get_title(loc="left").split())


def test_parts_follow_each_other_and_the_rest_fills_the_median():
    figure, axes = draw(timed("zero0", 0.140))
    assert ends(axes) == [pytest.approx([1, 23, 123, 131, 133, 140])]
    assert words(axes) == ["140.0 ms"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "data", "forward", "backward", "optimizer", "logging", "rest of the step",
    ]  # fmt: skip


def test_the_shortest_step_is_marked():
    _, axes = draw(timed("zero0", 0.140), timed("zero1", 0.150))
    assert words(axes) == ["140.0 ms, shortest", "150.0 ms"]


def test_strategies_that_failed_or_measured_nothing_are_counted():
    _, axes = draw(timed("zero0", 0.140), failed("zero1"), with_times(row("zero2")))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["zero0"]
    assert "2 strategies without a measured step: left out" in title(axes)


def test_steps_of_unlike_batches_are_told():
    other = with_times(row("zero1", global_batch_size=32), median=0.2)
    _, axes = draw(timed("zero0", 0.140), other)
    assert "not of equally many samples" in axes.get_title(loc="left")


def test_without_any_measured_step_there_is_no_plot():
    rows = [failed("zero0"), with_times(row("zero1"))]
    assert strategy_steps_figure(ranking(*rows), name="digits") is None


def test_a_median_of_0_is_drawn():
    figure, axes = draw(timed("zero0", 0.0, data=0.0))
    assert words(axes) == ["0.0 ms"]
    assert not figure.legends


@pytest.mark.parametrize(
    "rows",
    [[timed("zero0", 0.14)], many(12, name="a-very-long-name-of-a-strategy-{i}-bf16")],
    ids=["1", "12"],
)
def test_words_do_not_overlap(rows, assert_readable):
    figure, _ = draw(*rows)
    assert_readable(figure)
