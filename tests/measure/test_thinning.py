from orchestrator.measure.points import MetricPoint
from orchestrator.measure.thinning import Budget, SentLines


def peak(step, value=1.0, *, rank="rank_00"):
    return MetricPoint(key=f"memory_peak_mib/{rank}", value=value, step=step, time_ms=step)


def told(lines, points):
    return [point.step for point in points if lines.news([point])]


def test_a_running_peak_is_news_when_it_changes_and_every_50th_step():
    lines = SentLines()
    steps = [peak(step, 2.0 if step >= 10 else 1.0) for step in range(1, 62)]
    assert told(lines, steps) == [1, 10, 60]


def test_a_time_is_always_news():
    points = [
        MetricPoint(key="time_ms_step/rank_00", value=1.0, step=step, time_ms=step)
        for step in (1, 2, 3)
    ]
    assert SentLines().news(points) == points


def test_lines_are_told_apart_by_rank():
    lines = SentLines()
    assert lines.news([peak(1), peak(1, rank="rank_01")]) == [peak(1), peak(1, rank="rank_01")]


def test_missing_is_what_its_line_has_not_reached_once():
    lines = SentLines()
    lines.news([peak(1), peak(3, rank="rank_01")])
    ends = [peak(3), peak(3, rank="rank_01"), peak(3, rank="rank_02")]
    assert lines.missing(ends) == [peak(3), peak(3, rank="rank_02")]
    assert lines.missing(ends) == []


def test_a_stock_is_spent_into_debt_and_comes_back_with_time():
    budget = Budget(points_per_s=10, stock=100)
    assert budget.allows(time_s=5.0)
    budget.spend(130)
    assert not budget.allows(time_s=7.9)
    assert budget.allows(time_s=8.0)


def test_a_pause_fills_no_more_than_the_stock():
    budget = Budget(points_per_s=10, stock=100)
    assert budget.allows(time_s=0.0)
    assert budget.allows(time_s=1e6)
    budget.spend(101)
    assert not budget.allows(time_s=1e6)


def test_a_clock_that_goes_back_gives_nothing():
    budget = Budget(points_per_s=10, stock=0)
    assert budget.allows(time_s=100.0)
    budget.spend(1)
    assert not budget.allows(time_s=50.0)
    assert not budget.allows(time_s=100.0)
    assert budget.allows(time_s=100.25)
