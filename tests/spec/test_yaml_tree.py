"""YAML is read closed and safe, and every key knows its line and column."""

import time

import pytest

from orchestrator.spec.origin import Place
from orchestrator.spec.yaml_tree import Tree, read_yaml


def faults(tree: Tree) -> list[str]:
    return [f"{at.line}:{at.column}: {found.key}: {found.message}" for at, found in tree.faults]


def only_fault(text: str) -> str:
    (fault,) = faults(read_yaml(text))
    return fault


def test_a_tree_holds_plain_values():
    tree = read_yaml("a: {b: [1, 1e-3, on, null, 'true']}\n? c\n: |\n  text\nd:\n- - 1\n")
    assert tree.value == {
        "a": {"b": [1, 0.001, "on", None, "true"]},
        "c": "text\n",
        "d": [[1]],
    }
    assert tree.faults == ()
    assert tree.complete


@pytest.mark.parametrize(
    ("key", "line", "column"),
    [
        ("", 1, 1),
        ("a", 2, 1),
        ("a.b", 3, 3),
        ("a.c", 4, 3),
        ("a.c[0]", 4, 7),
        ("a.c[1]", 4, 10),
        ("a.c[1].d", 4, 11),
        ("e", 5, 1),
        ("e[0]", 6, 5),
        ("e[0].f", 6, 5),
        ("e[0].g.h", 7, 9),
        ("i.j", 8, 14),
    ],
)
def test_places_are_those_an_editor_shows(key, line, column):
    text = (
        "# comment\n"
        "a:\n"
        "  b: 1\n"
        "  c: [1, {d: 2}]\n"
        "'e':\n"
        "  - f: 1\n"
        "    g: {h: 2}\n"
        "i: {'ß𝄞': 1, j: 2}\n"
    )
    tree = read_yaml(text)
    assert tree.faults == ()
    assert tree.places[key] == Place(0, line, column)


def test_keys_like_on_and_no_stay_text():
    assert read_yaml("on: 1\nno: 2\ny: 3\n").value == {"on": 1, "no": 2, "y": 3}


def test_a_duplicate_key_names_the_first_line_and_keeps_the_first_value():
    tree = read_yaml("a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert faults(tree) == [
        "2:11: b.c: duplicate key, first given on line 2; keep one of them",
        "3:1: a: duplicate key, first given on line 1; keep one of them",
    ]
    assert tree.value == {"a": 1, "b": {"c": 1}}


def test_keys_that_differ_only_in_quotes_are_duplicates():
    assert "2:1: a: duplicate key" in only_fault("a: 1\n'a': 2\n")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1: a\n", "1:1: : the key '1' is not text; quote it"),
        ("a: {1.5: b}\n", "1:5: a: the key '1.5' is not text; quote it"),
        ("true: a\n", "1:1: : the key 'true' is not text; quote it"),
        ("~: a\n", "1:1: : the key '~' is not text; quote it"),
        ("?\n: 1\n", "1:2: : the key '' is not text; quote it"),
        ("010: a\n", "1:1: : the key '010' is not text; quote it"),
        (".nan: a\n", "1:1: : the key '.nan' is not text; quote it"),
        ("a: [.inf]\n", "1:5: a[0]: not a finite number; write a number"),
        ('a: "\\0"\n', "1:4: a: a character that is not text; remove it"),
        ('a: "\\ud800"\n', "1:4: a: a character that is not text; remove it"),
        ('"\\ud800": 1\n', "1:1: '\\ud800': a character that is not text; remove it"),
    ],
)
def test_one_thing_out_of_bounds_is_one_fault(text, fault):
    tree = read_yaml(text)
    assert tree.complete
    (found,) = faults(tree)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: &x 1\n", "1:4: a: anchors and aliases (&, *) are not supported; write it out"),
        ("a: [*x]\n", "1:5: a[0]: anchors and aliases (&, *) are not supported; write it out"),
        ("&x a: 1\n", "1:1: : anchors and aliases (&, *) are not supported; write it out"),
        ("*x : 1\n", "1:1: : anchors and aliases (&, *) are not supported; write it out"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "1:4: a: tags such as '!!python/object/apply",
        ),
        ("a: !!str 3\n", "1:4: a: tags such as '!!str' are not supported; remove it"),
        ("a: ! 3\n", "1:4: a: tags such as '!' are not supported; remove it"),
        ("a: !mine {b: 1}\n", "1:4: a: tags such as '!mine' are not supported; remove it"),
        ("!!int 3: 1\n", "1:1: : tags such as '!!int' are not supported"),
        ("a: {<<: {b: 1}}\n", "1:5: a.<<: merging (<<) is not supported; write the keys out"),
        ("? [a, b]\n: 1\n", "1:3: : a key is a list or a mapping; quote it"),
        ("a: {{b: 1}: 2}\n", "1:5: a: a key is a list or a mapping; quote it"),
        ("a: {b: {{c: 1}}}\n", "1:9: a.b: a key is a list or a mapping; quote it"),
        ("a:\n\tb: 1\n", "2:1: : a tab; indent with spaces, and quote text"),
        ("a: 1\n\tb: 1\n", "2:1: : a tab; indent with spaces, and quote text"),
        ("a: [1, 2\nb: 1\n", "2:2: : not valid YAML: expected ',' or ']', but got ':'"),
        ("a: 'b\n", "2:1: : not valid YAML: found unexpected end of stream; close the quote"),
        ("a: b: c\n", "1:5: : not valid YAML: mapping values are not allowed here; indent it"),
        ("a: 1\n  b: 2\n", "2:4: : not valid YAML: mapping values are not allowed here"),
        ("a: 1\nb\n", "3:1: : not valid YAML: could not find expected ':'; write key: value"),
        (
            "a: @b\n",
            "1:4: : not valid YAML: found character '@' that cannot start any token; quote",
        ),
        ("a: {b: 1\n", "2:1: : not valid YAML: expected ',' or '}', but got '<stream end>'; close"),
        ("- a\nb: 1\n", "2:1: : not valid YAML: expected <block end>"),
        ("a: 1\n---\nb: 1\n", "2:1: : a second document; keep one, without --- between keys"),
        ("a: !x!y 1\n", "1:4: : not valid YAML: found undefined tag handle '!x!'"),
        ("%YAML 2.0\n---\na: 1\n", "1:1: : not valid YAML: found incompatible YAML document"),
        ("a: \x07\n", "1:4: : the character U+0007 is not allowed; save the file as UTF-8 text"),
        ("a: 1\nb: \x00\n", "2:4: : the character U+0000 is not allowed"),
        ("a: \udc80\n", "1:4: : the character U+DC80 is not allowed"),
        ('a: "\\UFFFFFFFF"\n', ": not valid YAML; check escapes and directives"),
        ("a: " + "[" * 40, "1:35: : more than 32 levels deep; write it flatter"),
        ("a: " + "{b: " * 40, ": more than 32 levels deep; write it flatter"),
    ],
)
def test_what_ends_reading_is_one_line_with_a_place(text, fault):
    tree = read_yaml(text)
    assert not tree.complete
    assert tree.value is None
    (found,) = faults(tree)
    assert fault in found
    assert "\n" not in found


def test_faults_before_the_end_of_reading_are_kept():
    assert [fault.split(": ")[0] for fault in faults(read_yaml("a: .nan\na: 1\nb: [\n"))] == [
        "1:4",
        "2:1",
        "4:1",
    ]


def test_thirty_two_levels_are_read():
    tree = read_yaml("[" * 32 + "]" * 32)
    assert tree.faults == ()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000 + "]" * 5000,
        "- " * 5000 + "1",
        "? " * 5000 + "1",
        "{" * 5000,
        "a: &a [x]\n" + "".join(f"b{n}: &b{n} [{'*a, ' * 9}]\n" for n in range(100)),
        "a: [" + "1, " * 60_000 + "]",
        "".join(f"k{n}: {n}\n" for n in range(20_500)),
        "a: " + "x" * 300_000,
        "a: '" + "x " * 120_000 + "'",
        "\n" * 250_000,
        "a: " + "9" * 200_000,
        "%YAML 1." + "9" * 5000 + "\n---\na: 1\n",
        "!" * 100_000,
        "&a " * 50_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_no_text_takes_long(text):
    start = time.process_time()
    tree = read_yaml(text)
    assert time.process_time() - start < 2
    assert tree.faults or tree.complete


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "~\n", "null\n"])
def test_an_empty_file_is_null(text):
    assert read_yaml(text).value is None


def test_windows_line_ends_count_as_one():
    assert read_yaml("a: 1\r\nb: 2\r\n").places["b"] == Place(0, 2, 1)
