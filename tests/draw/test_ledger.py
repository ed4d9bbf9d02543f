from itertools import pairwise

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from orchestrator.draw.ledger import MAX_BARS, ledger_figure
from orchestrator.draw.style import CATEGORY_COLOURS
from orchestrator.units import MIB
from tests.draw.runs import PEAK, ledger_mib, rank_row

HOST = ledger_mib(optimizer=12, buffers=2)
OFFLOAD = {"host_bytes": 14 * MIB, "host_ledger": HOST}


def draw(*ranks, **settings):
    figure = ledger_figure(ranks, name="resnet-zero2", **settings)
    assert figure is not None
    return figure, figure.axes[0]


def bars(axes):
    """Middle of a bar -> its patches, from below."""
    stacks: dict[float, list[Rectangle]] = {}
    for patch in axes.patches:
        middle = round(patch.get_x() + patch.get_width() / 2, 6)
        stacks.setdefault(middle, []).append(patch)
    return stacks


def height(stack):
    return sum(patch.get_height() for patch in stack)


def labels(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def words(axes):
    return [text.get_text() for text in axes.texts]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def ranks_of(n, **changes):
    """Peaks from 10 MiB in steps of 1 MiB; rank 5 has the largest."""
    mib = [10 + (rank - 6) % n for rank in range(n)]
    return [rank_row(i, ledger=ledger_mib(params=mib[i]), **changes) for i in range(n)]


def test_a_bar_adds_up_to_the_peak():
    _, axes = draw(rank_row(0), rank_row(1, ledger=ledger_mib(params=3, activations=4)))
    assert {x: height(stack) for x, stack in bars(axes).items()} == {0: 25, 1: 7}
    assert words(axes) == ["fullest\n25.0 MiB", "7.0 MiB"]


def test_a_bar_has_a_patch_for_each_category_that_holds_something():
    _, axes = draw(rank_row())
    (stack,) = bars(axes).values()
    assert [patch.get_height() for patch in stack] == [5, 2, 8, 6, 3, 1]
    assert [patch.get_y() for patch in stack] == [0, 5, 7, 15, 21, 24]
    used = ["params", "gradients", "optimizer", "activations", "buffers", "unattributed"]
    colours = [CATEGORY_COLOURS[name].lower() for name in used]
    assert [to_hex(patch.get_facecolor()) for patch in stack] == colours
    assert legend(axes) == used[::-1]


def test_only_what_is_unattributed_is_hatched():
    _, axes = draw(rank_row())
    assert [bool(patch.get_hatch()) for patch in axes.patches] == [False] * 5 + [True]


def test_a_label_names_the_phase_of_the_peak():
    step = {"init": 1, "forward": 1, "backward": 1, "step": 25 * MIB}
    _, axes = draw(rank_row(0), rank_row(1, phase_peak_bytes=step))
    assert labels(axes) == ["rank 0\nbackward", "rank 1\nstep"]


def test_the_only_rank_is_not_called_the_fullest():
    _, axes = draw(rank_row())
    assert words(axes) == ["25.0 MiB"]


def test_nothing_is_drawn_for_a_rank_whose_peak_is_unknown():
    _, axes = draw(rank_row(0), rank_row(1, ledger=None))
    assert list(bars(axes)) == [0]
    assert labels(axes)[1] == "rank 1\n-"


def test_a_peak_that_was_not_traced_is_unattributed():
    peaks = {"init": 4 * MIB, "forward": None, "backward": None, "step": None}
    _, axes = draw(rank_row(0), rank_row(1, ledger=None, phase_peak_bytes=peaks))
    (patch,) = bars(axes)[1]
    assert patch.get_height() == 4
    assert patch.get_hatch()


def test_without_any_ledger_there_is_no_plot():
    assert ledger_figure([rank_row(ledger=None)], name="run") is None
    assert ledger_figure([], name="run") is None


def test_host_memory_is_a_paler_bar_beside_where_there_is_some():
    _, axes = draw(rank_row(0, **OFFLOAD), rank_row(1))
    stacks = bars(axes)
    assert {x: height(stack) for x, stack in stacks.items()} == {-0.22: 25, 0.22: 14, 1: 25}
    optimizer = stacks[0.22][0]
    assert sum(optimizer.get_facecolor()) > sum(stacks[-0.22][2].get_facecolor())
    assert words(axes) == ["fullest\n25.0 MiB", "on the host\n14.0 MiB", "25.0 MiB"]
    assert "host memory" in axes.get_title(loc="left")


def test_without_offload_nothing_speaks_of_the_host():
    _, axes = draw(rank_row(0, host_bytes=0, host_ledger=ledger_mib()), rank_row(1))
    assert list(bars(axes)) == [0, 1]
    assert "host" not in axes.get_title(loc="left")


def test_a_budget_is_a_dashed_line_with_its_amount():
    _, axes = draw(rank_row(), budget_bytes=32 * MIB)
    (line,) = axes.lines
    assert set(line.get_ydata()) == {32}
    assert line.get_linestyle() == "--"
    assert legend(axes)[0] == "budget 32.0 MiB"
    assert axes.get_ylim()[1] > 32


def test_a_budget_far_above_does_not_flatten_the_bars():
    _, axes = draw(rank_row(), budget_bytes=80_000 * MIB)
    assert not axes.lines
    assert axes.get_ylim()[1] < 40
    assert legend(axes)[0] == "budget 80,000.0 MiB,\nfar above"


def test_of_64_ranks_16_are_shown_from_the_fullest_to_the_emptiest():
    _, axes = draw(*ranks_of(64))
    heights = [height(stack) for stack in bars(axes).values()]
    assert len(heights) == len(labels(axes)) == MAX_BARS
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (73, 10)
    assert max(more - less for more, less in pairwise(heights)) <= 5
    assert labels(axes)[0].startswith("rank 5\n")
    assert "16 of 64 ranks" in axes.get_title(loc="left")


def test_ranks_without_a_peak_are_not_among_those_picked():
    _, axes = draw(*ranks_of(4), *(rank_row(rank, ledger=None) for rank in range(4, 20)))
    assert len(labels(axes)) == 4
    assert "4 of 20 ranks; the" in axes.get_title(loc="left")


@pytest.mark.parametrize(
    "ranks",
    [
        [rank_row(0)],
        [rank_row(rank, **OFFLOAD) for rank in range(2)],
        [
            rank_row(
                100 + rank,
                ledger={name: 3500 * n_bytes for name, n_bytes in PEAK.items()},
                host_bytes=70_000 * MIB,
                host_ledger=None,
            )
            for rank in range(16)
        ],
        ranks_of(64),
    ],
    ids=["1 rank", "2 with offload", "16 with offload", "64 ranks"],
)
def test_words_do_not_overlap(ranks, assert_readable):
    figure, _ = draw(*ranks, budget_bytes=26 * MIB)
    assert_readable(figure)
