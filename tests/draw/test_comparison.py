import struct
from xml.etree import ElementTree

import matplotlib
import pytest

from orchestrator.draw.comparison import draw_comparison
from tests.draw.rankings import failed, many, ranking, row, with_ranks, with_times

PLOTS = ["ledger", "memory_throughput", "steps", "ranks", "losses", "forecast"]
CONTROLS = {"fp32": (2.0, 1.5, 1.2500001)}


def drawn(*rows, **settings):
    return draw_comparison(ranking(*rows, **settings), name="digits", controls=CONTROLS)


@pytest.fixture(scope="module")
def files():
    return drawn(*many(2), failed("oom"), budget_bytes=2**26)


def test_every_plot_is_there_as_png_and_svg(files):
    assert list(files) == [f"plots/{plot}.{end}" for plot in PLOTS for end in ("png", "svg")]


def test_a_png_is_one_and_of_a_sane_size(files):
    for name, content in files.items():
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
            width, height = struct.unpack(">II", content[16:24])
            assert 600 <= width <= 1400, name
            assert 250 <= height <= 1000, name
            assert len(content) < 300_000


def test_an_svg_is_one(files):
    for name, content in files.items():
        if name.endswith(".svg"):
            root = ElementTree.fromstring(content)
            assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_a_plot_without_data_is_absent():
    assert drawn() == {}
    assert drawn(failed("zero0"), failed("zero1", "infeasible")) == {}
    only_losses = with_ranks(row("zero0", speed=None), phase_peak_bytes={}, ledger=None)
    timeless = with_times(only_losses)
    assert list(drawn(timeless)) == ["plots/losses.png", "plots/losses.svg"]


def test_the_same_ranking_gives_the_same_bytes_whatever_the_users_settings(files):
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "text.usetex": True}):
        assert drawn(*many(2), failed("oom"), budget_bytes=2**26) == files
        assert matplotlib.rcParams["font.size"] == 30
