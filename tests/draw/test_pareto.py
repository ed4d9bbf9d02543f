import pytest

from orchestrator.compare.ranking import Winner
from orchestrator.draw.pareto import memory_throughput_figure
from orchestrator.units import GIB, MIB
from tests.draw.rankings import failed, many, ranking, row


def draw(*rows, **settings):
    figure = memory_throughput_figure(ranking(*rows, **settings), name="digits")
    assert figure is not None
    return figure, figure.axes[0]


def three():
    """10, 20 and 15 MiB at 100, 200 and 90 samples/s; the first two are the front."""
    return [
        row("small", ledger_mib={"params": 10}, workers=1, speed=100, pareto=True),
        row("fast", ledger_mib={"params": 20}, workers=1, speed=200, spread=5, pareto=True),
        row("beaten", ledger_mib={"params": 15}, workers=1, speed=90),
    ]


def points(axes):
    """Where the points are, and whether they are filled."""
    return [
        (line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor() != "white")
        for line in axes.lines
        if line.get_marker() == "o" and line.get_markersize() < 8
    ]


def front(axes):
    return [line for line in axes.lines if line.get_drawstyle() == "steps-post"]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def bold(axes):
    return {text.get_text() for text in axes.texts if text.get_fontweight() == "bold"}


def winners(**names):
    return {key: Winner(name=name, reason="") for key, name in names.items()}


def test_a_point_is_peak_and_median_throughput_and_filled_on_the_front():
    _, axes = draw(*three())
    assert points(axes) == [(10, 100, True), (20, 200, True), (15, 90, False)]
    assert axes.get_xlabel() == "peak memory of the fullest rank, MiB"


def test_error_bars_are_the_confidence_interval():
    _, axes = draw(*three())
    ends = [bar.get_segments()[0][:, 1].tolist() for bar in axes.collections]
    assert ends == [[98, 102], [195, 205], [88, 92]]


def test_the_front_is_a_step_line_from_the_smallest_to_the_fastest():
    _, axes = draw(*three())
    (line,) = front(axes)
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([10, 20], [100, 200])


def test_names_stand_at_the_points_and_those_of_the_front_are_bold():
    _, axes = draw(*three())
    assert {text.get_text() for text in axes.texts} == {"small, baseline", "fast", "beaten"}
    assert bold(axes) == {"small, baseline", "fast"}


def test_winners_are_marked_and_named():
    won = winners(fastest="fast", smallest="small", balanced="fast")
    figure, axes = draw(*three(), winners={**won, "other": None})
    assert legend(figure)[2:] == ["fastest: fast", "smallest: small, baseline", "balanced: fast"]
    around = [(line.get_xdata()[0], line.get_marker()) for line in axes.lines[4:7]]
    assert around == [(20, "s"), (10, "D"), (20, "o")]
    assert len({line.get_markersize() for line in axes.lines[4:7]}) == 3


def test_without_a_front_or_winners_nothing_speaks_of_them():
    figure, axes = draw(row("a"), row("b"), winners={"fastest": None})
    assert not front(axes)
    assert not figure.legends


def test_strategies_without_both_are_counted():
    _, axes = draw(*three(), failed("oom"), row("slow", speed=None))
    assert len(points(axes)) == 3
    assert "2 strategies without both: left out" in axes.get_title(loc="left")


def test_where_nothing_was_measured_there_is_no_plot():
    assert memory_throughput_figure(ranking(failed("a")), name="digits") is None
    assert memory_throughput_figure(ranking(row("a", speed=None)), name="digits") is None


@pytest.mark.parametrize(
    ("budget_bytes", "words"),
    [(18 * MIB, None), (80 * GIB, "budget 80.0 GiB, far to the right"), (22 * MIB, None)],
)
def test_a_budget_is_a_line_where_it_is_near(budget_bytes, words):
    figure, axes = draw(*three(), budget_bytes=budget_bytes)
    lines = [line for line in axes.lines if line.get_linestyle() == "--"]
    if words is None:
        assert set(lines[0].get_xdata()) == {budget_bytes / MIB}
        assert axes.get_xlim()[1] > budget_bytes / MIB
    else:
        assert not lines
        assert legend(figure)[-1] == words


def test_many_points_are_numbered_by_their_place_and_listed():
    _, axes = draw(failed("oom"), *many(17, name="s{i}"))
    told = [text.get_text() for text in axes.texts]
    # Once in the list and once at the point.
    assert told.count("2") == told.count("18") == 2
    assert told.count("s0") == told.count("s16") == 1
    assert "1" not in told


@pytest.mark.parametrize(
    "rows",
    [
        [row("zero0", workers=1, pareto=True)],
        [row("z", ledger_mib={}, workers=1, speed=0.0, spread=0.0)],
        [row(f"zero{i}-with-a-very-long-name-that-is-cut", pareto=i > 3) for i in range(16)],
        [row(f"a-very-long-name-of-a-strategy-{i}-at-that", pareto=i > 40) for i in range(50)],
    ],
    ids=["1", "zeros", "16 at one place", "50 at one place"],
)
def test_words_do_not_overlap(rows, assert_readable):
    name = rows[0].name
    won = winners(fastest=name, smallest=name, balanced=name)
    figure, _ = draw(*rows, winners=won, budget_bytes=40 * MIB)
    assert_readable(figure)
