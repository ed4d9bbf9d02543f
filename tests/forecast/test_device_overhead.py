from dataclasses import replace

import pytest

from orchestrator.errors import UsageError
from orchestrator.forecast.device_overhead import (
    ProbedOverhead,
    device_overhead,
    find_probe,
    load_probes,
    store_probe,
)

MB, GB = 10**6, 10**9
PROBE = ProbedOverhead(
    device_name="NVIDIA A100-SXM4-80GB",
    driver_version="550.54.15",
    context_bytes=420 * MB,
    communication_bytes=900 * MB,
    n_ranks=4,
    measured_unix_s=1_760_000_000.5,
)


def test_a_single_rank_has_no_communication():
    assert device_overhead(1, probed=None).communication_bytes == (0, 0)
    assert device_overhead(1, probed=PROBE).communication_bytes == (0, 0)


# pytorch issue 28113: "from 200+mb to 700+mb"; nccl issue 964: 544 MB for two, 688 MB for more;
# nccl issue 864: 1.6 GB for one communicator, 6 GB for three or more.
@pytest.mark.parametrize(
    ("n_ranks", "least_bytes", "most_bytes"),
    [(2, 544 * MB, 1.6 * GB), (3, 688 * MB, 6 * GB), (64, 688 * MB, 6 * GB)],
)
def test_without_a_probe_the_interval_is_the_published_one(n_ranks, least_bytes, most_bytes):
    overhead = device_overhead(n_ranks, probed=None)
    assert overhead.context_bytes == (200 * MB, 700 * MB)
    assert overhead.communication_bytes == (least_bytes, most_bytes)
    assert overhead.total_bytes == (200 * MB + least_bytes, 700 * MB + most_bytes)
    assert "28113" in overhead.source
    assert "964" in overhead.source


def test_a_probe_of_as_many_ranks_makes_both_intervals_narrow():
    overhead = device_overhead(4, probed=PROBE)
    # What was measured, and a tenth more.
    assert overhead.context_bytes == (420 * MB, 462 * MB)
    assert overhead.communication_bytes == (900 * MB, 990 * MB)
    assert overhead.source == "probe of NVIDIA A100-SXM4-80GB, driver 550.54.15, ranks: 4"


def test_a_probe_of_fewer_ranks_is_only_the_least():
    overhead = device_overhead(8, probed=PROBE)
    assert overhead.context_bytes == (420 * MB, 462 * MB)
    assert overhead.communication_bytes == (900 * MB, 6 * GB)


def test_a_probe_of_more_ranks_is_only_the_most():
    assert device_overhead(2, probed=PROBE).communication_bytes == (544 * MB, 990 * MB)


def test_a_probe_of_one_rank_says_nothing_of_communication():
    alone = replace(PROBE, n_ranks=1, communication_bytes=0)
    overhead = device_overhead(2, probed=alone)
    assert overhead.context_bytes == (420 * MB, 462 * MB)
    assert overhead.communication_bytes == (544 * MB, 1.6 * GB)


@pytest.mark.parametrize("communication_bytes", [0, 100 * MB, 10 * GB])
@pytest.mark.parametrize("probed_ranks", [1, 2, 4, 16])
@pytest.mark.parametrize("n_ranks", [1, 2, 3, 64])
def test_the_least_is_never_above_the_most(n_ranks, probed_ranks, communication_bytes):
    probe = replace(PROBE, n_ranks=probed_ranks, communication_bytes=communication_bytes)
    low, high = device_overhead(n_ranks, probed=probe).communication_bytes
    assert low <= high


def test_no_ranks_are_refused():
    with pytest.raises(ValueError, match="n_ranks is 0"):
        device_overhead(0, probed=None)


def test_a_probe_is_read_as_it_was_stored(tmp_path):
    path = store_probe(tmp_path / "probes", probe=PROBE)
    assert path.parent == tmp_path / "probes"
    assert load_probes(tmp_path / "probes") == (PROBE,)


def test_where_there_is_no_folder_there_are_no_probes(tmp_path):
    assert load_probes(tmp_path / "none") == ()


def test_a_newer_probe_takes_the_place_of_the_older_one(tmp_path):
    store_probe(tmp_path, probe=PROBE)
    newer = replace(PROBE, context_bytes=1, n_ranks=8, measured_unix_s=1_770_000_000.0)
    store_probe(tmp_path, probe=newer)
    assert load_probes(tmp_path) == (newer,)
    assert len(list(tmp_path.iterdir())) == 1


def test_each_device_and_driver_has_a_file_of_its_own(tmp_path):
    others = [
        PROBE,
        replace(PROBE, driver_version="560.1"),
        replace(PROBE, device_name="NVIDIA A100 SXM4 80GB"),
        replace(PROBE, device_name="../../etc/NVIDIA"),
    ]
    paths = {store_probe(tmp_path, probe=probe) for probe in others}
    assert len(paths) == 4
    assert {path.parent for path in paths} == {tmp_path}
    assert set(load_probes(tmp_path)) == set(others)


def test_a_probe_is_found_by_device_and_driver_only(tmp_path):
    store_probe(tmp_path, probe=PROBE)
    store_probe(tmp_path, probe=replace(PROBE, driver_version="560.1"))
    probes = load_probes(tmp_path)
    found = find_probe(probes, device_name=PROBE.device_name, driver_version="550.54.15")
    assert found == PROBE
    assert find_probe(probes, device_name=PROBE.device_name, driver_version="1.0") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"device_name": "A", "driver_version": "1", "context_bytes": "many", '
        '"communication_bytes": 0, "n_ranks": 1, "measured_unix_s": 0}',
        '{"device_name": "A", "driver_version": "1", "context_bytes": -1, '
        '"communication_bytes": 0, "n_ranks": 1, "measured_unix_s": 0}',
    ],
)
def test_a_file_that_is_no_probe_is_named(tmp_path, text):
    (tmp_path / "broken.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"broken\.json: this is no probe .*; delete it"):
        load_probes(tmp_path)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="a probe cannot be written"):
        store_probe(tmp_path / "file", probe=PROBE)
