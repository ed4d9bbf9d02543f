import pytest
from matplotlib.colors import to_hex

from orchestrator.draw.strategy_ledger import strategy_ledger_figure
from orchestrator.draw.style import CATEGORY_COLOURS
from orchestrator.units import GIB, MIB
from tests.draw.rankings import failed, many, ranking, row, with_ranks


def draw(*rows, **settings):
    figure = strategy_ledger_figure(ranking(*rows, **settings), name="digits")
    assert figure is not None
    return figure, figure.axes[0]


def bars(axes, *, thin=False):
    """Row -> width of each of its patches."""
    rows: dict[int, list[float]] = {}
    for patch in axes.patches:
        if bool(patch.get_height() < 0.2) is thin:
            middle = patch.get_y() + patch.get_height() / 2
            rows.setdefault(round(middle), []).append(round(patch.get_width(), 6))
    return rows


def words(axes):
    return [text.get_text() for text in axes.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def small():
    return row("zero2", ledger_mib={"params": 4, "activations": 6}, workers=1)


def test_a_bar_is_the_fullest_ranks_ledger_by_category():
    # Rank 1 has 1 MiB of temporaries more than rank 0.
    figure, axes = draw(row("zero0"), small())
    assert bars(axes) == {0: [4, 2, 8, 6, 1], 1: [4, 6]}
    used = ["params", "gradients", "optimizer", "activations", "temporaries"]
    assert legend(figure) == used
    colours = [to_hex(patch.get_facecolor()).upper() for patch in axes.patches[:5]]
    assert colours == [CATEGORY_COLOURS[name] for name in used]


def test_the_peak_is_written_at_the_end_and_beside_the_baselines():
    _, axes = draw(row("zero0"), small())
    assert words(axes) == ["21.0 MiB", "10.0 MiB, 0.48x"]


def test_large_peaks_are_all_in_gib():
    _, axes = draw(row("zero0", ledger_mib={"params": 20 * 1024}, workers=1), small())
    assert words(axes) == ["20.0 GiB", "0.0098 GiB, 0.00x"]
    assert axes.get_xlabel() == "GiB"


def test_a_peak_that_was_not_traced_is_unattributed():
    figure, axes = draw(with_ranks(small(), ledger=None))
    assert bars(axes) == {0: [10]}
    assert legend(figure) == ["unattributed"]


def test_strategies_that_failed_have_an_empty_row_that_says_why():
    known = failed("zero0-big", "infeasible", forecast_peak_bytes=int(31.2 * GIB))
    _, axes = draw(row("zero0"), failed("zero1"), known, small())
    assert list(bars(axes)) == [0, 3]
    assert words(axes)[1:3] == ["oom", "does not fit: forecast 31.2 GiB"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "zero0", "zero1", "zero0-big", "zero2",
    ]  # fmt: skip


def test_where_no_strategy_ran_there_is_no_plot():
    assert strategy_ledger_figure(ranking(failed("a"), failed("b")), name="digits") is None
    assert strategy_ledger_figure(ranking(), name="digits") is None


def test_a_strategy_that_ran_without_a_known_peak_says_so():
    _, axes = draw(row("zero0"), row("zero1", rounds=(), losses=()))
    assert words(axes)[1] == "peak unknown"


def test_what_is_kept_elsewhere_is_thin_and_hatched_and_told():
    kept = {"host_bytes": 14 * MIB, "nvme_bytes": 30 * MIB}
    figure, axes = draw(row("zero0"), with_ranks(small(), **kept))
    assert bars(axes, thin=True) == {1: [14, 30]}
    assert all(patch.get_hatch() for patch in axes.patches if patch.get_height() < 0.2)
    assert words(axes)[1] == "10.0 MiB, 0.48x; host memory 14.0 MiB; NVMe 30.0 MiB"
    assert legend(figure)[-2:] == ["host memory", "NVMe"]
    assert axes.get_xlim()[1] == pytest.approx(30.3)


def test_much_on_nvme_does_not_make_slivers_of_the_bars():
    _, axes = draw(with_ranks(row("zero3"), nvme_bytes=9000 * MIB))
    assert axes.get_xlim()[1] < 70
    assert "goes on beyond it" in axes.get_title(loc="left")


def test_a_budget_is_a_line_and_what_is_above_it_says_so():
    figure, axes = draw(row("zero0"), small(), budget_bytes=16 * MIB)
    (line,) = axes.lines
    assert set(line.get_xdata()) == {16}
    assert legend(figure)[-1] == "budget 16.0 MiB"
    assert words(axes) == ["21.0 MiB, above the budget", "10.0 MiB, 0.48x"]


def test_a_budget_far_beyond_is_told_and_not_drawn():
    figure, axes = draw(row("zero0"), budget_bytes=80 * GIB)
    assert not axes.lines
    assert legend(figure)[-1] == "budget 80.0 GiB, far beyond"
    assert axes.get_xlim()[1] < 25


def test_names_are_not_read_as_formulas(assert_readable):
    figure, axes = draw(row("a$x^2$ {0} %s"), failed("$\\frac", "failed", message="$\\int"))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a$x^2$ {0} %s", "$\\frac"]
    assert_readable(figure)


def test_the_baselines_name_is_bold():
    _, axes = draw(row("zero0"), row("zero1"), baseline="zero1")
    assert [label.get_fontweight() for label in axes.get_yticklabels()] == ["normal", "bold"]


@pytest.mark.parametrize(
    "rows",
    [
        [row("zero0", workers=1)],
        [row("z", ledger_mib={}, workers=1)],
        [*many(12), failed("a"), failed("b" * 99, "failed", message="no " * 99)],
        [
            with_ranks(told, host_bytes=40 * MIB, nvme_bytes=900 * MIB)
            for told in many(21, name="a-very-long-name-of-a-strategy-{i}-and-how-it-is-sharded")
        ],
    ],
    ids=["1", "nothing held", "12 and failures", "21 that offload"],
)
def test_words_do_not_overlap(rows, assert_readable):
    figure, _ = draw(*rows, budget_bytes=40 * MIB)
    assert_readable(figure)
