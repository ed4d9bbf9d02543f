"""A key is found where it was written, or where its nearest parent was."""

from pathlib import Path

import pytest

from orchestrator.spec.origin import START, Place, place_of, show_override, where

PLACES = {
    "a": Place(0, 1, 1),
    "a.b[0]": Place(0, 2, 5),
    "a.b[0].c.d": Place(0, 3, 7),
    "axes": Place(0, 4, 1),
    "x": Place(2, 1, 1),
}


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("a", PLACES["a"]),
        ("a.b", PLACES["a"]),
        ("a.b[0]", PLACES["a.b[0]"]),
        ("a.b[1]", PLACES["a"]),
        ("a.b[0].c.d", PLACES["a.b[0].c.d"]),
        ("a.b[0].c.e", PLACES["a.b[0]"]),
        ("axes.zero.stage", PLACES["axes"]),
        ("y.z", START),
        ("", START),
        ("]", START),
        ("[", START),
        ("a[b", START),
    ],
)
def test_the_nearest_parent_is_found(key, place):
    assert place_of(key, PLACES) == place


def test_places_of_the_file_come_before_those_of_overrides():
    assert sorted([Place(2, 1, 1), Place(0, 9, 9), Place(1, 5, 5), Place(0, 9, 2)]) == [
        Place(0, 9, 2),
        Place(0, 9, 9),
        Place(1, 5, 5),
        Place(2, 1, 1),
    ]


def test_a_place_is_written_as_editors_and_compilers_do():
    assert where(Place(0, 3, 7), path=Path("jobs/a.yaml"), overrides=()) == "jobs/a.yaml:3:7"


def test_an_override_is_its_own_place():
    overrides = ("a=1", "x=2")
    assert where(PLACES["x"], path=Path("a.yaml"), overrides=overrides) == "--set x=2"


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("a=1", "--set a=1"),
        ("uri=http://me:secret@host/x", "--set uri=http://***@host/x"),
        ("a=x\ny", "--set 'a=x\\ny'"),
        ("a=" + "x" * 100, "--set a=" + "x" * 75 + "..."),
    ],
)
def test_overrides_are_shown_short_and_without_passwords(override, shown):
    assert show_override(override) == shown
