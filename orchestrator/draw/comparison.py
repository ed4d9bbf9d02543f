"""The plots of a comparison, as the files that a tracking store keeps: name -> PNG and SVG bytes.

The door for comparisons, as `plots` is for runs: matplotlib is imported when one is drawn.
"""

from collections.abc import Mapping, Sequence

from orchestrator.compare.ranking import Ranking


def draw_comparison(
    ranking: Ranking, *, name: str, controls: Mapping[str, Sequence[float]]
) -> dict[str, bytes]:
    """Draw one comparison.

    Args:
        ranking: the strategies side by side.
        name: the comparison's.
        controls: precision -> losses of the baseline from first weights that were changed by one
            unit in the last place; empty where it was not run so.

    Returns:
        `plots/ledger.png`, `plots/ledger.svg` and so on: ledger, memory_throughput, steps, ranks,
        losses and forecast. A plot without data is absent. The same ranking gives the same bytes.
        One thread at a time: matplotlib's settings are the process's.
    """
    import matplotlib

    from orchestrator.draw.figure_files import figure_files
    from orchestrator.draw.forecast_error import forecast_error_figure
    from orchestrator.draw.losses import losses_figure
    from orchestrator.draw.pareto import memory_throughput_figure
    from orchestrator.draw.strategy_ledger import strategy_ledger_figure
    from orchestrator.draw.strategy_ranks import strategy_ranks_figure
    from orchestrator.draw.strategy_steps import strategy_steps_figure
    from orchestrator.draw.style import SETTINGS

    with matplotlib.rc_context(SETTINGS):
        figures = {
            "ledger": strategy_ledger_figure(ranking, name=name),
            "memory_throughput": memory_throughput_figure(ranking, name=name),
            "steps": strategy_steps_figure(ranking, name=name),
            "ranks": strategy_ranks_figure(ranking, name=name),
            "losses": losses_figure(ranking, name=name, controls=controls),
            "forecast": forecast_error_figure(ranking, name=name),
        }
        files: dict[str, bytes] = {}
        for plot, figure in figures.items():
            if figure is not None:
                files |= figure_files(figure, plot=plot)
        return files
