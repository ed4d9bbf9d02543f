import struct
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import pytest

from orchestrator.draw.plots import draw_run
from orchestrator.draw.rank_grid import RankGrid
from tests.draw.runs import ledger_mib, rank_row, run_record, timeline

TIMES = RankGrid(steps=[1, 2], ranks=[0, 1], values=[[0.1, None], [0.1, None]])


def drawn(*ranks, timelines=(), step_times=None):
    by_rank = {told.rank: told for told in timelines}
    return draw_run(run_record(*ranks), timelines=by_rank, step_times=step_times, budget_bytes=None)


@pytest.fixture(scope="module")
def files():
    fuller = rank_row(1, ledger=ledger_mib(params=30))
    return drawn(rank_row(0), fuller, timelines=[timeline(0), timeline(1)], step_times=TIMES)


def test_every_plot_is_there_as_png_and_svg_and_the_timeline_is_the_fullest_ranks(files):
    plots = ["ledger", "timeline_rank_01", "step_time", "heat_map"]
    assert list(files) == [f"plots/{plot}.{end}" for plot in plots for end in ("png", "svg")]


def test_a_png_is_one_and_of_a_sane_size(files):
    for name, content in files.items():
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
            width, height = struct.unpack(">II", content[16:24])
            assert 600 <= width <= 2000, name
            assert 200 <= height <= 1400, name
            assert len(content) < 500_000


def test_an_svg_is_one(files):
    for name, content in files.items():
        if name.endswith(".svg"):
            root = ElementTree.fromstring(content)
            assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_a_plot_without_data_is_absent():
    unknown = replace(rank_row().step_s, median=None)
    assert drawn(rank_row(ledger=None, step_s=unknown)) == {}
    assert drawn() == {}


def test_a_timeline_is_drawn_though_the_fullest_rank_has_none():
    nothing = {"ledger": None, "step_s": replace(rank_row().step_s, median=None)}
    files = drawn(*(rank_row(rank, **nothing) for rank in range(101)), timelines=[timeline(7)])
    assert list(files) == ["plots/timeline_rank_007.png", "plots/timeline_rank_007.svg"]


def test_the_same_run_gives_the_same_bytes_whatever_the_users_settings():
    first = drawn(timelines=[timeline(0)])
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "savefig.dpi": 30}):
        assert drawn(timelines=[timeline(0)]) == first
        assert matplotlib.rcParams["font.size"] == 30
