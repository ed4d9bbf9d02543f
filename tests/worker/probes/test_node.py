import psutil
import pytest

from orchestrator.worker.probes.gpu import open_gpu
from orchestrator.worker.probes.node import EVERY_S, NodeMonitor


def test_a_machine_is_looked_at_now_and_then():
    monitor = NodeMonitor(node="a", rank=3)
    times = (0.0, 1.0, EVERY_S + 0.1, EVERY_S + 5.0, 3 * EVERY_S)
    samples = [monitor.sample(now_s=now_s) for now_s in times]
    assert [sample.number if sample else None for sample in samples] == [0, None, 1, None, 2]
    assert {(sample.node, sample.rank) for sample in samples if sample} == {("a", 3)}


def test_memory_and_disk_are_those_of_the_machine():
    sample = NodeMonitor(node="a", rank=0).sample(now_s=0.0)
    assert sample is not None
    used_mb = psutil.virtual_memory().used / 1e6
    assert sample.values["system_memory_usage_megabytes"] == pytest.approx(used_mb, rel=0.2)
    assert 0 < sample.values["system_memory_usage_percentage"] < 100
    assert sample.values["disk_available_megabytes"] > 0
    assert sample.values["network_receive_megabytes"] >= 0


@pytest.mark.ray
def test_the_names_are_those_of_mlflow_s_own_monitor():
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    theirs: set[str] = set()
    for monitor in (CPUMonitor(), DiskMonitor(), NetworkMonitor()):
        monitor.collect_metrics()
        theirs |= monitor.aggregate_metrics().keys()
    sample = NodeMonitor(node="a", rank=0).sample(now_s=0.0)
    assert sample is not None
    assert sample.values.keys() == theirs


def test_a_gpu_that_no_driver_knows_cannot_be_asked():
    assert open_gpu("GPU-00000000-0000-0000-0000-000000000000") is None
