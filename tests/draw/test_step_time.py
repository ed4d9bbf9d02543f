from dataclasses import replace

import pytest

from orchestrator.draw.step_time import MAX_BARS, step_time_figure
from tests.draw.runs import TIMES, rank_row


def times(**changes):
    return {"step_s": replace(TIMES, **changes)}


def draw(*ranks):
    figure = step_time_figure(ranks, name="resnet-zero2")
    assert figure is not None
    return figure, figure.axes[0]


def bars(axes, *, thin=False):
    """Ends of the patches of each row, in ms; the thin ones are communication."""
    rows: dict[int, list[float]] = {}
    for patch in axes.patches:
        if bool(patch.get_height() < 0.2) is thin:
            row = round(patch.get_y() + patch.get_height() / 2)
            rows.setdefault(row, []).append(patch.get_x() + patch.get_width())
    return list(rows.values())


def words(axes):
    return [text.get_text() for text in axes.texts]


def labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_parts_follow_each_other_and_the_rest_fills_the_median():
    figure, axes = draw(rank_row())
    assert bars(axes) == [pytest.approx([1, 23, 123, 131, 133, 140])]
    assert words(axes) == ["140.0 ms"]
    assert legend(figure)[:6] == [
        "data", "forward", "backward", "optimizer", "logging", "rest of the step",
    ]  # fmt: skip


def test_a_rest_is_never_negative():
    figure, axes = draw(rank_row(**times(median=0.120)))
    assert bars(axes) == [pytest.approx([1, 23, 123, 131, 133])]
    assert "rest of the step" not in legend(figure)
    assert words(axes) == ["120.0 ms"]


def test_unknown_parts_are_absent():
    unknown = times(data=None, backward=None, logging=None, communication=None)
    figure, axes = draw(rank_row(**unknown))
    assert bars(axes) == [pytest.approx([22, 30, 140])]
    assert legend(figure) == ["forward", "optimizer", "rest of the step"]


def test_communication_lies_beside_the_bar_and_says_that_it_overlaps():
    figure, axes = draw(rank_row())
    assert bars(axes, thin=True) == [[pytest.approx(80)]]
    assert legend(figure)[-1].startswith("communication: overlaps the others")


def test_a_checkpoint_lies_beyond_the_median_step():
    figure, axes = draw(rank_row(**times(checkpoint=0.060)))
    assert bars(axes) == [pytest.approx([1, 23, 123, 131, 133, 140, 200])]
    assert words(axes) == ["140.0 ms; +60 ms when saving"]
    assert "checkpoint: longer by this when saving" in legend(figure)


def test_a_checkpoint_longer_than_a_step_is_told_and_not_drawn():
    figure, axes = draw(rank_row(**times(checkpoint=4.2)))
    assert bars(axes) == [pytest.approx([1, 23, 123, 131, 133, 140])]
    assert words(axes) == ["140.0 ms; +4.2 s when saving"]
    assert not any("checkpoint" in text for text in legend(figure))


def test_the_slowest_rank_is_marked():
    _, axes = draw(rank_row(0), rank_row(1, **times(median=0.150)), rank_row(2))
    assert words(axes) == ["140.0 ms", "150.0 ms, slowest", "140.0 ms"]


def test_a_rank_that_has_not_measured_a_step_has_no_bar():
    _, axes = draw(rank_row(0), rank_row(1, **times(median=None)))
    assert labels(axes) == ["rank 0"]
    assert "1 of 2 ranks" in axes.get_title(loc="left")


def test_without_any_measured_step_there_is_no_plot():
    assert step_time_figure([rank_row(**times(median=None))], name="run") is None
    assert step_time_figure([], name="run") is None


def test_of_64_ranks_the_16_slowest_are_shown_the_slowest_on_top():
    ranks = [rank_row(rank, **times(median=0.140 + rank / 1000)) for rank in range(64)]
    _, axes = draw(*ranks)
    assert labels(axes) == [f"rank {rank}" for rank in range(63, 47, -1)]
    assert len(bars(axes)) == MAX_BARS
    # The axis points down.
    low, high = axes.get_ylim()
    assert low > high
    assert "16 slowest of 64 ranks" in axes.get_title(loc="left")


@pytest.mark.parametrize("n_ranks", [1, 2, 64])
def test_words_do_not_overlap(n_ranks, assert_readable):
    ranks = [rank_row(rank, **times(checkpoint=0.1)) for rank in range(n_ranks)]
    figure, _ = draw(*ranks)
    assert_readable(figure)
