"""Unquoted scalars mean what YAML 1.2 says, and what is ambiguous or too large is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.spec.scalar import resolve_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("Null", None), ("NULL", None),
        ("true", True), ("True", True), ("TRUE", True),
        ("false", False), ("False", False), ("FALSE", False),
        ("0", 0), ("-0", 0), ("7", 7), ("+7", 7), ("-7", -7), ("0o17", 15), ("0xfF", 255),
        ("9007199254740992", 2**53),
        ("1e-3", 0.001), ("1.0e-3", 0.001), ("1E5", 100000.0), ("1e+2", 100.0), (".5", 0.5),
        ("5.", 5.0), ("-1.5", -1.5), ("0.1", 0.1), ("00.5", 0.5), ("1e-999", 0.0),
    ],
)  # fmt: skip
def test_scalars_of_the_core_schema_are_what_it_says(text, value):
    read = resolve_scalar(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "on", "off", "yes", "no", "y", "n", "On", "tRue", "nULL", "1:30", "190:20:30",
        "2024-01-31", "2001-12-14t21:59:43.10-05:00", "1_000", "0b101", "1e", "e5", ".", "-", "+",
        "0o8", "0xg", "+0x1", "1.2.3", "nan", "inf", "16GiB", "=", "1 2",
    ],
)  # fmt: skip
def test_everything_else_stays_text(text):
    assert resolve_scalar(text) == text


@pytest.mark.parametrize("text", ["010", "-010", "00", "+08", "0123456789"])
def test_a_leading_zero_is_refused_because_readers_disagree(text):
    with pytest.raises(ValueError, match=r"leading zero is octal to some.*drop the zero"):
        resolve_scalar(text)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".inf", "-.inf", "+.INF"])
def test_numbers_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="not a finite number; write a number"):
        resolve_scalar(text)


@pytest.mark.parametrize("text", ["1e999", "-1e999", "1" + "0" * 400 + ".0"])
def test_numbers_beyond_a_double_are_refused(text):
    with pytest.raises(ValueError, match=r"too large; write one below 1\.8e308"):
        resolve_scalar(text)


@pytest.mark.parametrize(
    "text",
    ["9007199254740993", "-9007199254740993", "9" * 5000, "0x" + "f" * 5000, "0xffffffffffffff"],
)
def test_whole_numbers_that_json_would_round_are_refused(text):
    with pytest.raises(ValueError, match=re.escape("too large; write one up to 2**53")):
        resolve_scalar(text)


@given(st.integers(min_value=-(2**53), max_value=2**53))
def test_whole_numbers_come_back_as_they_were(number):
    assert resolve_scalar(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_as_they_were(number):
    assert resolve_scalar(repr(number)) == number
