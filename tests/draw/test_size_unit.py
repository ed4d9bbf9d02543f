from orchestrator.draw.size_unit import size_unit
from orchestrator.units import GIB, MIB


def test_sizes_are_in_mib_until_one_is_10_gib():
    assert size_unit([1, 9.9 * GIB]).name == "MiB"
    assert size_unit([1, 10 * GIB]).name == "GiB"
    assert size_unit([]).name == "MiB"


def test_small_amounts_have_more_decimals():
    unit = size_unit([MIB])
    assert [unit.words(mib * MIB) for mib in (2000, 12.34, 2.345, 0.0123, 0)] == [
        "2,000.0 MiB", "12.3 MiB", "2.35 MiB", "0.0123 MiB", "0.0 MiB",
    ]  # fmt: skip
