"""A figure as the files that a tracking store keeps of it: name -> PNG and SVG bytes."""

import io

from matplotlib.figure import Figure

FOLDER = "plots"


def figure_files(figure: Figure, *, plot: str) -> dict[str, bytes]:
    """Write a figure as `plots/PLOT.png` and `plots/PLOT.svg`; the same figure gives the same."""
    # Laid out once for both files: that is what takes longest.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return {
        f"{FOLDER}/{plot}.png": png.getvalue(),
        f"{FOLDER}/{plot}.svg": svg.getvalue(),
    }
