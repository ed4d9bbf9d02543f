import posixpath
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.track.names import entity_name, flat_params, short


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("memory_peak_mib/rank_00", "memory_peak_mib/rank_00"),
        ("a b-c.d:e", "a b-c.d:e"),
        ("loss (%)", "loss ___"),
        ("a//b", "a/_/b"),
        ("../x", "__/x"),
        ("", "_"),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_lose_only_what_mlflow_refuses(text, name):
    assert entity_name(text) == name


@given(st.text(max_size=300))
def test_any_text_becomes_a_name_that_mlflow_takes(text):
    name = entity_name(text)
    # The rules of mlflow/utils/validation.py.
    assert re.match(r"^[/\w.\- :]*$", name)
    assert 1 <= len(name) <= 250
    assert posixpath.normpath(name) == name
    assert name != "."
    assert not name.startswith(("..", "/"))


def test_long_values_are_cut_with_an_ellipsis():
    assert short("abcdefgh", limit=8) == "abcdefgh"
    assert short("abcdefghi", limit=8) == "abcde..."


def test_nested_settings_become_dotted_names():
    settings = {"zero": {"stage": 2, "path": None}, "ckpt": True, "betas": [0.9, 0.99], "ds": {}}
    assert flat_params(settings) == {
        "zero.stage": "2",
        "zero.path": "null",
        "ckpt": "true",
        "betas": "[0.9, 0.99]",
    }
