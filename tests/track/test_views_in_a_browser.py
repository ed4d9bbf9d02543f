"""MLflow's page, opened in a real browser from the links that a run prints.

A run's records go through the outbox into a real store, `orchestrator ui` serves it, and headless
chromium draws it. Pictures of what was drawn are left in the test's folder.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.measure.ledger import CATEGORIES, empty_ledger
from orchestrator.measure.sample import NodeSample, ProbedMemory, RankSample
from orchestrator.track.base import TrackedRun, run_link
from orchestrator.track.delivery import Delivery
from orchestrator.track.mlflow import MlflowTracker
from orchestrator.track.outbox import Outbox
from orchestrator.track.spool import SpoolWriter
from orchestrator.track.views import view_links
from orchestrator.units import MIB
from tests.track.conftest import START, records_of
from tests.track.in_a_browser import LOOK_AT_NEXT_CARD, Page, opened, sections, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

N_STEPS = 30


def probed(rank: int) -> ProbedMemory:
    ledger = empty_ledger() | {
        category: (10 * number + rank) * MIB for number, category in enumerate(CATEGORIES)
    }
    ledger["unattributed"] = 0
    phases = ("forward", "backward", "step")
    return ProbedMemory(
        peak_ledgers=dict.fromkeys(phases, ledger),
        edge_ledgers=dict.fromkeys(phases, ledger),
        host_ledger=empty_ledger(),
    )


def measured(sample: RankSample) -> RankSample:
    """The sample with times that can be told apart, and with a ledger in step 2."""
    at_s = 1.0 + 0.01 * sample.rank + 0.1 * (sample.step % 3)
    timed = replace(sample, step_s=at_s, forward_s=at_s / 3, backward_s=at_s / 2)
    if sample.step != 2:
        return timed
    memory = probed(sample.rank)
    peaks = {phase: sum(ledger.values()) for phase, ledger in memory.peak_ledgers.items()}
    return replace(timed, probe=True, probed=memory, phase_peak_bytes=peaks)


def machine(number: int) -> NodeSample:
    """What the node of rank 0 was doing."""
    return NodeSample(
        node="node-a",
        rank=0,
        time_unix_s=1000.0 + 10 * number,
        number=number,
        values={"cpu_utilization_percentage": 50.0 + number, "disk_usage_percentage": 20.0},
    )


def deliver(
    folder: Path, tracker: MlflowTracker, *, records: Callable[..., Any], n_ranks: int
) -> TrackedRun:
    """Bring a run of some ranks to the store the way a launch does."""
    outbox = Outbox.create(folder, replace(START, key=f"ranks-{n_ranks}", name=f"of-{n_ranks}"))
    with SpoolWriter(outbox.spool_path) as spool:
        for record in records(N_STEPS, world_size=n_ranks):
            spool.append(measured(record) if isinstance(record, RankSample) else record)
        for number in range(3):
            spool.append(machine(number))
    outbox.finish(status="FINISHED", end_time_ms=3_000_000)
    delivery = Delivery(outbox)
    delivery.send(tracker)
    assert delivery.done
    assert delivery.run is not None
    return delivery.run


@pytest.fixture(scope="module")
def runs(mlflow_page: Page) -> dict[int, TrackedRun]:
    """Number of ranks -> a run of so many."""
    home, tracker = mlflow_page.home, mlflow_page.tracker
    return {
        n_ranks: deliver(home / f"runs-{n_ranks}", tracker, records=records_of, n_ranks=n_ranks)
        for n_ranks in (2, 64)
    }


def test_memory_per_rank_opens_with_every_peak_and_every_ledger(browser, mlflow_page, runs):
    link = view_links(mlflow_page.url, runs[2])["Memory per rank"]
    charts = opened(browser, mlflow_page, link, picture="memory-2")
    assert sections(browser)[:2] == [
        "Memory per rank: the peak",
        "Memory per rank: what fills it, MiB",
    ]
    peak, first, second, *_ = charts
    assert peak["title"] == "Peak of every rank, MiB"
    assert peak["lines"] == ["memory_peak_mib/rank_00", "memory_peak_mib/rank_01"]
    assert len(first["bars"]) == len(second["bars"]) == len(CATEGORIES)


def test_throughput_opens_with_the_job_and_every_rank(browser, mlflow_page, runs):
    link = view_links(mlflow_page.url, runs[2])["Throughput"]
    charts = {
        chart["title"]: chart for chart in opened(browser, mlflow_page, link, picture="through-2")
    }
    assert charts["All ranks together, samples/s"]["lines"] == ["throughput/samples_per_s"]
    every = charts["Every rank, samples/s"]
    assert every["lines"] == ["throughput_per_rank/rank_00", "throughput_per_rank/rank_01"]
    # All steps but the probe.
    assert every["lengths"] == [N_STEPS - 1] * 2


def test_where_a_step_goes_opens_with_all_parts_in_one_chart(browser, mlflow_page, runs):
    link = view_links(mlflow_page.url, runs[2])["Where a step goes"]
    parts, *_ = opened(browser, mlflow_page, link, picture="step-2")
    assert parts["title"] == "Parts of a step, ms"
    assert {"time_ms/data", "time_ms/forward", "time_ms/backward", "time_ms/optimizer"} <= set(
        parts["lines"]
    )


def test_64_ranks_are_shown_by_their_spread(browser, mlflow_page, runs):
    link = view_links(mlflow_page.url, runs[64])["Memory per rank"]
    browser.set_window_size(1600, 1200)
    charts = opened(browser, mlflow_page, link, picture="memory-64")
    assert charts[0]["lines"] == [
        "memory_peak_mib/max",
        "memory_peak_mib/median",
        "memory_peak_mib/min",
    ]
    assert all(len(chart["lines"]) <= 3 for chart in charts)


def test_the_run_s_own_page_has_a_section_for_each_kind_of_metric(browser, mlflow_page, runs):
    browser.get("about:blank")
    link = run_link(mlflow_page.url, runs[2]).replace("?", "/model-metrics?")
    browser.get(link)
    headers = wait_for(lambda: sections(browser))
    assert {"memory_peak_mib", "throughput_per_rank", "time_ms", "train"} <= set(headers)
    browser.save_screenshot(str(mlflow_page.home / "run.png"))


def test_the_machine_is_on_mlflow_s_page_of_system_metrics(browser, mlflow_page, runs):
    browser.get("about:blank")
    browser.get(run_link(mlflow_page.url, runs[2]).replace("?", "/system-metrics?"))
    card = wait_for(partial(browser.execute_script, LOOK_AT_NEXT_CARD, []))
    body = browser.find_element("tag name", "body").text
    assert "system/node_0/cpu_utilization_percentage" in body
    assert card["lengths"] == [3]
    browser.save_screenshot(str(mlflow_page.home / "system.png"))


def test_the_page_says_nothing_of_errors(browser):
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    # MLflow's page asks for users of a server that has none; charts that find no room at once
    # are told so by chromium and drawn a moment later.
    known = ("mlflow/users/current", "ResizeObserver loop")
    ours = [entry for entry in severe if not any(words in entry["message"] for words in known)]
    assert ours == [], json.dumps(ours, indent=1)
