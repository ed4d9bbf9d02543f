import pytest

from orchestrator.draw.strategy_rows import NAME_ROOM_IN, outcome_words, shown_names
from orchestrator.draw.style import SMALL_PT, width_in
from orchestrator.units import GIB
from tests.draw.rankings import failed, ranking, row

LONG = "resnet50-imagenet-zero3-optimizer-on-the-host-with-checkpointing-and-bf16"


def test_names_that_fit_stay_as_they_are():
    assert shown_names(ranking(row("zero0"), row("a$b"))) == {"zero0": "zero0", "a$b": "a$b"}


def test_a_long_name_is_cut_in_its_middle():
    short = shown_names(ranking(row(LONG)))[LONG]
    head, tail = short.split("…")
    assert LONG.startswith(head)
    assert LONG.endswith(tail)
    assert len(tail) == 10
    assert width_in(short, size_pt=SMALL_PT, bold=True) <= NAME_ROOM_IN


def test_names_that_would_look_alike_are_told_apart_by_their_place():
    other = LONG.replace("host", "nvme")
    shown = shown_names(ranking(row("zero0"), row(LONG), row(other)))
    assert shown[LONG].endswith(" #2")
    assert shown[other].endswith(" #3")
    assert shown["zero0"] == "zero0"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (failed("a", "oom", message="CUDA out of memory"), "oom"),
        (failed("a", "infeasible"), "does not fit"),
        (
            failed("a", "infeasible", forecast_peak_bytes=int(31.2 * GIB)),
            "does not fit: forecast 31.2 GiB",
        ),
        (failed("a", "failed", message="no layer\n called fc"), "failed: no layer called fc"),
        (failed("a", "failed"), "failed"),
        (failed("a", "diverged"), "diverged"),
    ],
)
def test_outcomes_are_told_in_words(told, words):
    assert outcome_words(told.entry) == words


def test_a_long_message_is_cut():
    words = outcome_words(failed("a", "failed", message="no " * 200).entry)
    assert words.endswith("…")
    assert len(words) < 100
