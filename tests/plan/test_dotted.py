from orchestrator.plan.dotted import MISSING, get, put


def test_what_is_not_there_is_missing_and_not_null():
    tree = {"a": {"b": None, "c": 1}}
    assert get(tree, "a.b") is None
    assert get(tree, "a.x") is MISSING
    assert get(tree, "a.c.d") is MISSING
    assert get(tree, "x.y") is MISSING


def test_putting_a_value_leaves_its_neighbours():
    tree = {"a": {"b": 1}}
    put(tree, "a.c.d", 2)
    put(tree, "e", 3)
    assert tree == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
