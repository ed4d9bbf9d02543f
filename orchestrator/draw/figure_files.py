"""A figure as the files that a tracking store keeps of it: name -> PNG and SVG bytes."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

FOLDER = "plots"


def figure_files(figure: Figure, *, plot: str) -> dict[str, bytes]:
    """Write a figure as `plots/PLOT.png` and `plots/PLOT.svg`; the same figure gives the same.

    `Figure.savefig` would draw each file twice, the first time for nothing but the layout.
    """
    png, svg = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    # It is laid out now.
    figure.set_layout_engine("none")
    FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    return {
        f"{FOLDER}/{plot}.png": png.getvalue(),
        f"{FOLDER}/{plot}.svg": svg.getvalue(),
    }
