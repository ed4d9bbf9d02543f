"""MLflow's page in a real browser: how to open a link of ours and see what its charts show."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.track.mlflow import MlflowTracker

CARD = '[data-testid="experiment-view-compare-runs-card"]'
SECTION = '[data-testid="experiment-view-compare-runs-section-header"]'
# A card is there only while it is near what is in sight, and drawn once it has come into sight.
LOOK_AT_NEXT_CARD = f"""
const seen = new Set(arguments[0]);
const cards = [...document.querySelectorAll('{CARD}')];
const card = cards.find(card => !seen.has((card.querySelector('h4') || {{}}).innerText));
if (!card) {{
  if (cards.length) cards[cards.length - 1].scrollIntoView({{block: 'start'}});
  return null;
}}
card.scrollIntoView({{block: 'center'}});
const table = card.querySelector('[role="table"]');
const plot = card.querySelector('.js-plotly-plot');
const marks = 'path.js-line, .bars path, .scatterlayer .points path';
if (!table && !(plot && plot.data && plot.querySelector(marks))) return null;
const drawn = table ? [] : plot.data.filter(trace => trace.hoverinfo !== 'skip');
const bars = drawn.filter(trace => trace.type === 'bar');
const others = drawn.filter(trace => trace.type !== 'bar');
return {{
  title: card.querySelector('h4').innerText,
  table: table ? table.innerText : null,
  bars: bars.map(trace => trace.name || trace.metricKey),
  lines: others.map(trace => trace.metricKey),
  lengths: drawn.map(trace => (trace.x || []).length),
  runs: drawn.flatMap(trace => trace.names || [trace.text, [trace.name]].find(Array.isArray)),
  values: drawn.map(trace => trace.x),
  colours: drawn.flatMap(trace => (trace.marker || {{}}).color || (trace.line || {{}}).color),
}};
"""
TO_THE_TOP = f"""
const area = document.querySelector('{SECTION}').closest('[class]');
for (let at = area; at; at = at.parentElement) at.scrollTop = 0;
"""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page that is served, and the store behind it."""

    url: str
    tracker: MlflowTracker
    home: Path
    """Pictures of what was drawn are left in it."""


def wait_for(found: Callable[[], Any], *, timeout_s: float = 60) -> Any:
    """What is found, once it is there."""
    deadline_s = time.monotonic() + timeout_s
    while not (result := found()):
        assert time.monotonic() < deadline_s, "the page has not drawn it"
        time.sleep(0.05)
    return result


def opened(browser: Any, page: Page, link: str, *, picture: str) -> list[dict[str, Any]]:
    """Open a link and give what each of its charts shows, once it is drawn."""
    browser.get(page.url)
    # MLflow's assistant would open by itself at the first visit and cover a quarter of the page.
    browser.execute_script(
        "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
        "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');"
    )
    browser.get("about:blank")
    browser.get(link)
    # The last section may come a moment after the first.
    wait_for(lambda: n_charts(browser))
    time.sleep(0.5)
    charts: list[dict[str, Any]] = []
    while len(charts) < n_charts(browser):
        seen = [chart["title"] for chart in charts]
        charts.append(wait_for(partial(browser.execute_script, LOOK_AT_NEXT_CARD, seen)))
    browser.save_screenshot(str(page.home / f"{picture}-end.png"))
    browser.execute_script(TO_THE_TOP)
    time.sleep(0.5)
    browser.save_screenshot(str(page.home / f"{picture}.png"))
    assert "You're viewing a shared view" in browser.find_element("tag name", "body").text
    return charts


def n_charts(browser: Any) -> int:
    """How many charts the page says that its sections have; not all of them are drawn at once."""
    found = [element.text for element in browser.find_elements("css selector", SECTION)]
    return sum(int(count) for text in found for count in re.findall(r"\((\d+)\)$", text, re.M))


def sections(browser: Any) -> list[str]:
    """The sections that the page shows."""
    found = browser.find_elements("css selector", SECTION)
    return [element.text.splitlines()[0] for element in found]
