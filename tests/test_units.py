"""Sizes and durations are read and written as people do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.units import as_bytes, as_duration, as_mib, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1B", 1),
        ("1KiB", 1024),
        ("1kb", 1000),
        ("1 K", 1000),
        ("3MiB", 3_145_728),
        ("512 MB", 512_000_000),
        ("16GiB", 17_179_869_184),
        ("16gib", 17_179_869_184),
        (" 1.5 GiB ", 1_610_612_736),
        ("1TiB", 1_099_511_627_776),
        ("2TB", 2_000_000_000_000),
    ],
)
def test_sizes_are_read_in_the_unit_they_name(text, n_bytes):
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize(
    "text",
    ["", "GiB", "-1GiB", "1 2", "1PiB", "1.GiB", "1e3", "1,5GiB", "16 GiB x", "nan", "٣GiBx"],
)
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(
        ValueError, match="is not a size; write an amount and a unit, such as 16GiB"
    ):
        parse_size(text)


def test_a_size_beyond_every_number_is_refused():
    with pytest.raises(ValueError, match="is not a size; it is larger than any number"):
        parse_size("9" * 400 + "GiB")


@given(st.integers(min_value=0, max_value=2**53))
def test_plain_bytes_are_read_exactly(n_bytes):
    assert parse_size(str(n_bytes)) == n_bytes


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0.0 MiB"), (1_048_576, "1.0 MiB"), (1_610_612_736, "1,536.0 MiB"), (None, "-")],
)
def test_mib_are_powers_of_two(n_bytes, text):
    assert as_mib(n_bytes) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_572_864, "1.5 MiB"),
        (17_179_869_184, "16.0 GiB"),
        (2**40, "1.0 TiB"),
        (-2048, "-2.0 KiB"),
        (None, "-"),
    ],
)
def test_bytes_take_the_largest_unit_that_leaves_one(n_bytes, text):
    assert as_bytes(n_bytes) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("30s", 30), ("10m", 600), ("10 min", 600), ("1.5h", 5400), ("0", 0)],
)
def test_durations_are_read_with_or_without_a_unit(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "10 years", "ten", "1e3"])
def test_what_is_no_duration_is_told(text):
    with pytest.raises(ValueError, match="is not a duration; write one such as 30s, 10m or 2h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.35, "350 ms"),
        (12.34, "12.3 s"),
        (245.0, "4 min 05 s"),
        (7380.0, "2 h 03 min"),
        (float("nan"), "-"),
        (float("inf"), "-"),
        (None, "-"),
    ],
)
def test_durations_take_the_unit_a_person_would(seconds, text):
    assert as_duration(seconds) == text
