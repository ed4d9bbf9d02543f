"""A comparison in MLflow's page: the link that `compare` prints, opened in a real browser.

Twelve strategies go through the writer into a real store in which there are other runs too.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from orchestrator.measure.ledger import CATEGORIES
from orchestrator.measure.points import MetricPoint
from orchestrator.track.base import COMPARISON, KIND_TAG, TrackedRun, run_link
from orchestrator.track.comparison_view import COLOURS, comparison_link
from orchestrator.track.outbox import Outbox
from orchestrator.track.spool import SpoolWriter
from orchestrator.track.views import view_id, view_links
from orchestrator.track.writer import TrackingWriter
from tests.track.conftest import START, records_of
from tests.track.in_a_browser import Page, opened, sections, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

NAMES = tuple(
    f"zero{stage}{suffix}" for stage in range(4) for suffix in ("", "-optim-cpu", "-params-nvme")
)
N_STEPS = 6
RUN_NAME = '[role="row"] a[href*="/runs/"]'


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the page showed of a comparison."""

    charts: dict[str, dict[str, Any]]
    """Title -> what is drawn below it, in the page's order."""
    sections: list[str]
    listed: list[str]
    """The names in the list of runs."""
    words: str


def peak_mib(number: int) -> float:
    return 240.0 - 15 * number


def samples_per_s(number: int) -> float:
    return 500.0 - 31 * (number * 5 % 12)


def summary_of(number: int) -> list[MetricPoint]:
    peak = peak_mib(number)
    values = {
        "summary/peak_mib": peak,
        "forecast/peak_mib": peak * (1.1 if number % 3 else 0.95),
        "summary/samples_per_s": samples_per_s(number),
        "summary/host_mib": 40.0 * (number % 3),
        "summary/mfu_ratio": samples_per_s(number) / 1000,
        "summary/unattributed_ratio": 0.01,
        "summary/step_ms": 64_000 / samples_per_s(number),
        "summary/forward_ms": 20_000 / samples_per_s(number),
        "summary/backward_ms": 38_000 / samples_per_s(number),
        "summary/optimizer_ms": 6.0 + number,
        "summary/communication_ms": 3.0 * number,
        "summary/data_ms": 0.5,
        **{
            f"summary/peak_{category}_mib": peak * (at + 1) / 36
            for at, category in enumerate(CATEGORIES)
        },
    }
    return [MetricPoint(key=key, value=v, step=0, time_ms=2_000_000) for key, v in values.items()]


def strategy(page: Page, key: str, name: str, number: int, *, parent_key: str | None) -> Outbox:
    """A strategy that has run to its end."""
    stage = str(number // 3)
    start = replace(
        START,
        key=key,
        experiment="strategies",
        name=name,
        start_time_ms=1_000_000 + 1000 * number,
        params={"strategy": name, "zero.stage": stage, "training.steps": "6"},
        parent_key=parent_key,
    )
    outbox = Outbox.create(page.home / "outboxes" / key, start)
    with SpoolWriter(outbox.spool_path) as spool:
        for record in records_of(N_STEPS):
            spool.append(record)
    outbox.finish(status="FINISHED", end_time_ms=2_000_000, points=summary_of(number))
    return outbox


def compare(page: Page, key: str, names: Sequence[str]) -> TrackedRun:
    """Bring a comparison to the store the way `compare` does."""
    tags = {KIND_TAG: COMPARISON}
    start = replace(START, key=key, experiment="strategies", name=key, tags=tags)
    whole = Outbox.create(page.home / "outboxes" / key, start)
    writer = TrackingWriter(whole, open_tracker=lambda: page.tracker)
    for number, name in enumerate(names):
        writer.add(strategy(page, f"{key}-{number:02d}-{name}", name, number, parent_key=key))
    given_up = strategy(page, f"{key}-00-{names[0]}.1", "given-up", 0, parent_key=key)
    given_up.finish(status="KILLED", end_time_ms=2_000_000)
    writer.add(given_up)
    whole.add_text("report/comparison.md", "# Twelve compared\n\n| best |\n| --- |\n| zero1 |\n")
    whole.add_bytes("report/plots/memory_throughput.png", png(width=40, height=30))
    whole.finish(status="FINISHED", end_time_ms=3_000_000)
    writer.start()
    assert writer.close(timeout_s=60) == 0
    assert writer.run is not None
    return writer.run


def png(*, width: int, height: int) -> bytes:
    """A blue picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    rows = (b"\0" + b"\x00\x72\xb2" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def strategy_run(page: Page, key: str) -> TrackedRun:
    """Where a strategy lies that was delivered."""
    run = Outbox(page.home / "outboxes" / key).delivered().run
    assert run is not None
    return run


@pytest.fixture(scope="module")
def comparison(mlflow_page: Page) -> TrackedRun:
    """Twelve strategies, in an experiment with another comparison and a run of its own."""
    compared = compare(mlflow_page, "all-twelve", NAMES)
    compare(mlflow_page, "other-two", ("other0", "other1"))
    lone = strategy(mlflow_page, "zz-lone", "lone", 1, parent_key=None)
    writer = TrackingWriter(lone, open_tracker=lambda: mlflow_page.tracker)
    writer.start()
    assert writer.close(timeout_s=60) == 0
    return compared


@pytest.fixture(scope="module")
def shown(browser: Any, mlflow_page: Page, comparison: TrackedRun) -> Shown:
    """The comparison's view, opened once and looked at from top to bottom."""
    browser.set_window_size(1600, 2400)
    link = comparison_link(mlflow_page.url, comparison)
    charts = opened(browser, mlflow_page, link, picture="comparison")
    return Shown(
        charts={chart["title"]: chart for chart in charts},
        sections=sections(browser),
        listed=[name for name in texts(browser, RUN_NAME) if name],
        words=browser.find_element("tag name", "body").text,
    )


def texts(browser: Any, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", selector)]


def artifact_link(page: Page, run: TrackedRun, name: str) -> str:
    return run_link(page.url, run).replace("?", f"/artifacts/{name}?")


def test_all_twelve_strategies_are_listed_in_their_order_and_no_other_run(shown):
    assert shown.listed == list(NAMES)
    assert "12 matching runs" in shown.words


def test_memory_and_speed_come_first_with_a_bar_for_every_strategy(shown):
    memory, speed, *_ = shown.charts.values()
    assert memory["title"] == "Peak memory of the fullest rank, MiB"
    assert speed["title"] == "All ranks together, samples/s"
    # Plotly's first bar is the lowest.
    from_above = range(len(NAMES))[::-1]
    for chart, value in ((memory, peak_mib), (speed, samples_per_s)):
        assert chart["runs"] == list(NAMES)[::-1]
        assert chart["values"] == [[value(number) for number in from_above]]


def test_memory_against_speed_has_a_dot_for_every_strategy(shown):
    against = shown.charts["summary/peak_mib vs. summary/samples_per_s"]
    dots = zip(against["runs"], against["values"][0], strict=True)
    assert dict(dots) == {name: peak_mib(number) for number, name in enumerate(NAMES)}


def test_every_part_of_memory_and_of_a_step_has_bars_for_every_strategy(shown):
    titles = [f"{category}, MiB" for category in CATEGORIES]
    titles += ["step, ms", "forward, ms", "backward, ms", "optimizer, ms", "communication, ms"]
    for title in titles:
        assert sorted(shown.charts[title]["runs"]) == sorted(NAMES)


def test_every_strategy_has_a_line_of_losses(shown):
    losses = shown.charts["Loss"]
    assert sorted(losses["runs"]) == sorted(NAMES)
    assert losses["lengths"] == [N_STEPS] * 12


def test_a_strategy_has_one_colour_in_every_chart_and_no_other_has_it(shown):
    colours = dict(zip(NAMES, COLOURS, strict=True))
    several = [chart for chart in shown.charts.values() if len(chart["runs"]) == 12]
    assert len(several) > 15
    for chart in several:
        assert dict(zip(chart["runs"], chart["colours"], strict=True)) == colours


def test_a_table_tells_what_each_strategy_is(shown):
    table = shown.charts["Parameters that differ"]["table"]
    assert "zero.stage" in table
    assert all(name in table for name in NAMES)
    assert "training.steps" not in table


def test_the_page_adds_no_section_and_no_chart_of_its_own(shown):
    assert shown.sections == [
        "Strategies side by side",
        "What fills the fullest rank's peak",
        "Where a step of the slowest rank goes",
        "Step by step",
        "What each strategy is",
    ]
    assert len(shown.charts) == 6 + len(CATEGORIES) + 6 + 2 + 1
    assert "unattributed_ratio" not in shown.words


def test_a_strategy_s_own_view_opens_though_it_is_part_of_a_comparison(
    browser, mlflow_page, comparison
):
    one = strategy_run(mlflow_page, "all-twelve-03-zero1")
    link = view_links(mlflow_page.url, one)["Throughput"]
    charts = opened(browser, mlflow_page, link, picture="strategy")
    assert charts[0]["title"] == "All ranks together, samples/s"
    assert charts[0]["runs"] == ["zero1"]
    assert comparison.experiment_id == one.experiment_id


def test_the_experiment_s_own_views_show_the_strategies_of_comparisons(
    browser, mlflow_page, comparison
):
    one = view_links(mlflow_page.url, comparison)["Throughput"]
    mine, whole = (view_id("Throughput", run_id=run) for run in (comparison.run_id, None))
    charts = opened(browser, mlflow_page, one.replace(mine, whole), picture="experiment")
    assert {"lone", "other0", "other1", "zero3-params-nvme"} <= set(charts[0]["runs"])


def test_the_comparison_s_page_previews_the_report(browser, mlflow_page, comparison):
    browser.get("about:blank")
    browser.get(artifact_link(mlflow_page, comparison, "report/comparison.md"))
    # Shown as a page, not as text: a heading, and a table with cells.
    wait_for(lambda: texts(browser, "h1")[-1:] == ["Twelve compared"])
    assert texts(browser, '[role="cell"], td') == ["zero1"]
    browser.save_screenshot(str(mlflow_page.home / "report.png"))


def test_the_comparison_s_page_previews_the_plots(browser, mlflow_page, comparison):
    browser.get("about:blank")
    browser.get(artifact_link(mlflow_page, comparison, "report/plots/memory_throughput.png"))
    sizes = "return [...document.images].map(image => [image.naturalWidth, image.naturalHeight])"
    wait_for(lambda: [40, 30] in browser.execute_script(sizes))
    browser.save_screenshot(str(mlflow_page.home / "plot.png"))


def test_the_experiment_s_list_folds_the_strategies_below_their_comparison(
    browser, mlflow_page, comparison
):
    browser.get("about:blank")
    browser.get(
        f"{mlflow_page.url}/#/experiments/{comparison.experiment_id}?workflowType=machine_learning"
    )

    listed = wait_for(lambda: [name for name in texts(browser, RUN_NAME) if name])
    assert sorted(listed) == ["all-twelve", "lone", "other-two"]
    browser.save_screenshot(str(mlflow_page.home / "list.png"))
